"""Delivers message after message, says which are acknowledged, and waits to be killed.

Usage: python -m tests.support.mda_child DIRECTORY
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from restante.mda.writer import BatchWriter
from restante.status import Delivered
from tests.support.deliveries import CONTENT, HOST, delivery, envelope

SENDERS = 8
MAILBOXES = ("iain", "paul")


async def _send(writer: BatchWriter, root: Path, first: int) -> None:
    number = first
    while True:
        deliveries = [delivery(root, name) for name in MAILBOXES]
        outcome = await writer.deliver_all(envelope(number), CONTENT, deliveries)
        assert isinstance(outcome, Delivered), outcome
        os.write(1, b"%d\n" % number)
        number += SENDERS


async def main(root: Path) -> None:
    """Send for ever."""
    writer = BatchWriter(HOST, 1, 1)
    await asyncio.gather(*(_send(writer, root, first) for first in range(SENDERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

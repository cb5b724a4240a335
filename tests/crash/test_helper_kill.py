"""Helpers are killed while they deliver: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from pathlib import Path

from restante.directory import Account
from restante.helper.pool import Helpers
from restante.helper.writer import HelperWriter
from restante.mda import Delivery
from restante.status import Delivered
from tests.support.deliveries import CONTENT, envelope
from tests.support.helpers import nursery, passable_directory
from tests.support.owner import only_root

OWNERS = (12345, 12346)
MESSAGES = 300
KILLS = 12


def mailbox(root: Path, uid: int) -> Delivery:
    home = root / str(uid)
    home.mkdir()
    os.chown(home, uid, uid)
    return Delivery(f"{home}/Maildir", Account(str(uid), uid, uid, str(home)), (f"{uid}@x.org",))


def kill_all_children(pid: int) -> int:
    killed = 0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(int(child), signal.SIGKILL)
            killed += 1
    return killed


def copies(one: Delivery) -> Counter[str]:
    """How often each message is there, by its queue id."""
    names = os.listdir(f"{one.maildir}/new")
    return Counter(name.split(".")[1].partition("_")[0] for name in names)


async def deliver(writer: HelperWriter, number: int, mailboxes: list[Delivery]) -> None:
    """As the front door and then the queue do it: the queue knows nothing of a first attempt."""
    outcome = await writer.deliver_all(envelope(number), CONTENT, mailboxes)
    left = [] if isinstance(outcome, Delivered) else mailboxes
    again = False
    while left:
        outcomes = await writer.deliver_each(envelope(number), CONTENT, left, again=again)
        left = [
            each
            for each, found in zip(left, outcomes, strict=True)
            if not isinstance(found, Delivered)
        ]
        again = True


@only_root
async def test_helpers_are_killed_while_they_deliver() -> None:
    with passable_directory() as root, nursery() as (supplier, process):
        mailboxes = [mailbox(root, uid) for uid in OWNERS]
        helpers = Helpers(supplier, 60.0)
        writer = HelperWriter(helpers)
        numbers = iter(range(MESSAGES))
        done = asyncio.Event()

        async def send() -> None:
            for number in numbers:
                await deliver(writer, number, mailboxes)

        async def kill() -> None:
            killed = 0
            while killed < KILLS and not done.is_set():
                await asyncio.sleep(0.02)
                killed += kill_all_children(process.pid)
            assert killed

        killing = asyncio.create_task(kill())
        await asyncio.gather(*(send() for _ in range(10)))
        done.set()
        await killing
        await writer.close()
        await helpers.close()
        expected = {envelope(number).queue_id: 1 for number in range(MESSAGES)}
        for one in mailboxes:
            assert copies(one) == expected

"""The sendmail program, run as programs run it, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from restante.drop import DropPaths, is_finished
from restante.drop.record import HEAD_SIZE, Record, decode, decode_head

SRC = Path(__file__).parents[2] / "src"
CLEAN = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SRC), "USER": "ann", "TZ": "UTC"}
"""An environment that says nothing that a test does not expect."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """One message in the drop directory."""

    record: Record
    content: bytes

    @property
    def recipients(self) -> list[str]:
        """Their addresses."""
        return [recipient.address for recipient in self.record.recipients]


def read(path: Path) -> Dropped:
    """A dropped file, which must be whole."""
    octets = path.read_bytes()
    head = decode_head(octets[:HEAD_SIZE])
    assert head.file_size == len(octets)
    body = HEAD_SIZE + head.envelope
    return Dropped(decode(octets[HEAD_SIZE:body]), octets[body:])


def dropped(instance: Path) -> list[Dropped]:
    """All that waits there; nothing else may lie in the directory."""
    found = list(Path(DropPaths.of(str(instance)).incoming).iterdir())
    assert all(is_finished(path.name) for path in found)
    return [read(path) for path in found]


def sendmail(
    instance: Path,
    *arguments: str,
    stdin: bytes = b"",
    environ: Mapping[str, str] | None = None,
    user: int | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the program on an instance."""
    return subprocess.run(
        [sys.executable, "-m", "restante.sendmail", *arguments],
        input=stdin,
        capture_output=True,
        env=CLEAN | {"RESTANTE_DIR": str(instance)} | dict(environ or {}),
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )

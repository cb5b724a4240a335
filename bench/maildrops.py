"""Maildirs full of messages, written straight into them."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.accounts import maildir_of, make_maildirs
from bench.systems.system import System

LINE = b"x" * 71 + b"\n"
HEADER = b"From: sender@example.net\nTo: 1@bench.test\nSubject: a message of the bench\n\n"
BEGAN = 1_790_000_000
"""Seconds since the epoch, as in the names."""
MAX_LINKS = 60_000
"""Names that one file may have; ext4 allows 65,000."""


@dataclass(frozen=True, slots=True)
class Filling:
    """What lies in each maildrop."""

    messages: int
    octets: int = 4096
    """Of each message, on disk."""
    sized: bool = True
    """The names tell sizes, as Restante's and Dovecot's deliveries do; Postfix's do not."""
    linked: bool = False
    """Many names for a few files: for a maildrop of which only listings are measured."""


def fill(system: System, numbers: Iterable[int], filling: Filling) -> None:
    """Make these accounts' Maildirs anew, without what servers keep there, and fill ``new/``."""
    content = message(filling.octets)
    write = _write_linked if filling.linked else _write
    for number in numbers:
        maildir = maildir_of(system.mail, number)
        shutil.rmtree(maildir, ignore_errors=True)
        make_maildirs(system.mail, [number], system.owner)
        write((f"{maildir}/new/{name}" for name in names(filling, content)), content, system.owner)


def message(octets: int) -> bytes:
    """One of so many octets, with LF as on disk."""
    body = LINE * (octets // len(LINE) + 1)
    return (HEADER + body)[: octets - 1] + b"\n"


def names(filling: Filling, content: bytes) -> Iterator[str]:
    """Of the files, in the order in which they came."""
    wire = len(content) + content.count(b"\n")
    sizes = f",S={len(content)},W={wire}" if filling.sized else ""
    for number in range(filling.messages):
        yield f"{BEGAN + number}.M{number:06d}P1.mail.bench.test{sizes}"


def forget(maildir: Path) -> None:
    """Remove what Restante and Dovecot have found out about a maildrop, and what they remember."""
    for path in (*maildir.glob("dovecot*"), maildir / "restante.sizes"):
        path.unlink(missing_ok=True)
    change(maildir)


def change(maildir: Path) -> None:
    """As far as the stamps of its directories tell, messages have come or gone."""
    for folder in ("new", "cur"):
        os.utime(maildir / folder)


def _write(paths: Iterable[str], content: bytes, owner: tuple[int, int]) -> None:
    for path in paths:
        with open(path, "wb", buffering=0) as file:
            file.write(content)
            os.fchown(file.fileno(), *owner)


def _write_linked(paths: Iterable[str], content: bytes, owner: tuple[int, int]) -> None:
    """The owner of a file is that of all its names."""
    some = iter(paths)
    for first in some:
        _write([first], content, owner)
        for path in itertools.islice(some, MAX_LINKS - 1):
            os.link(first, path)

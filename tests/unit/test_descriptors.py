"""Nothing stays open of what fails in the midst: a file that was opened, and cannot be looked at.

As on a FUSE whose process ends, or on a file server that forgets the file, between two calls.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from restante import eventlog, logsetup
from restante.checkpassword.desk import Desk
from restante.config.tree import Log, Programs
from restante.directory import Account
from restante.errors import RestanteError
from restante.mda import MboxDelivery
from restante.mda.durable import LocalDisk
from restante.mda.maildir import Maildirs
from restante.mda.mbox import append_letter
from restante.mda.mboxrd import Letter
from restante.mda.program import run_command
from restante.pickup.letter import DroppedFile
from restante.queue.slots import lock_queue
from restante.rights import owners_rights
from tests.support.deliveries import CONTENT, GROUP, HOST, OWNER, delivery, envelope
from tests.support.helpers import passable_directory
from tests.support.owner import AS_ROOT, as_owner

MOST = 100
"""Calls after which a test has failed: nothing here makes so many."""
STALE = OSError(errno.ESTALE, os.strerror(errno.ESTALE))


@pytest.fixture
def place() -> Iterator[Path]:
    with passable_directory() as path:
        path.chmod(0o755)
        yield path


def opened() -> set[str]:
    """The descriptors of this process, but for the one that this takes."""
    return {each for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")}


@contextmanager
def failing(module: Any, name: str, at: int, error: OSError) -> Iterator[list[int]]:
    """Have the ``at``-th call of a function fail, and the others work; the calls are counted."""
    real, calls = getattr(module, name), [0]

    def call(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise error
        return real(*arguments, **named)

    setattr(module, name, call)
    try:
        yield calls
    finally:
        setattr(module, name, real)


def left_open(
    work: Callable[[int], object], module: Any = os, name: str = "fstat", error: OSError = STALE
) -> list[int]:
    """Which calls of a function, of those that ``work`` makes, leave something open if they fail.

    ``work`` is done once for each, with its number; what it returns may be closed.
    """
    leaving: list[int] = []
    for at in range(1, MOST):
        before = opened()
        with failing(module, name, at, error) as calls, suppress(OSError, RestanteError):
            done = work(at)
            if hasattr(done, "close"):
                done.close()
        if calls[0] < at:
            return leaving
        if opened() != before:
            leaving.append(at)
    raise AssertionError("it does not end")


def maildirs_of(place: Path) -> Callable[[int], object]:
    def work(at: int) -> object:
        maildirs = Maildirs(LocalDisk())
        one = delivery(place, f"user{at}")
        maildirs.get(one)
        maildirs.forget(one)
        return None

    return work


@pytest.mark.skipif(not AS_ROOT, reason="another way is gone")
def test_maildirs_that_root_makes(place: Path) -> None:
    assert left_open(maildirs_of(place)) == []


def test_maildirs_that_their_owner_makes(place: Path) -> None:
    os.chown(place, OWNER, GROUP)
    assert as_owner(lambda: left_open(maildirs_of(place))) == []


def test_mboxes_and_their_dot_locks(place: Path) -> None:
    os.chown(place, OWNER, GROUP)
    account = Account("iain", OWNER, GROUP, str(place))

    def work(at: int) -> None:
        mbox = MboxDelivery(str(place / f"mbox{at}"), account, ("iain@example.com",))
        letter = Letter(envelope(at), CONTENT, mbox.delivered_to)
        append_letter(
            LocalDisk(),
            letter,
            mbox,
            again=False,
            asked_at=time.monotonic(),
            mark=HOST.encode(),
            pause=lambda _: False,
        )

    assert as_owner(lambda: left_open(work)) == []
    assert list(place.glob("*.lock")) == []


def test_dropped_files(tmp_path: Path) -> None:
    (tmp_path / "dropped").write_bytes(b"")
    assert left_open(lambda _: DroppedFile(str(tmp_path / "dropped"))) == []


def test_locks_of_queues(tmp_path: Path) -> None:
    assert left_open(lambda at: lock_queue(str(tmp_path / str(at)))) == []


@pytest.mark.skipif(not AS_ROOT, reason="only root takes others' rights")
def test_homes_that_root_enters(place: Path) -> None:
    account = Account("iain", OWNER, GROUP, str(place))
    assert left_open(lambda _: owners_rights(1, 1)(account)) == []


@pytest.mark.skipif(not AS_ROOT, reason="only root looks what it opens")
def test_logs(tmp_path: Path) -> None:
    os.chown(tmp_path, OWNER, GROUP)
    before, log = eventlog.log.destination, Log(target="mail.log")
    try:
        assert left_open(lambda _: logsetup.setup_logging(log, str(tmp_path))) == []
    finally:
        eventlog.log.destination = before


def test_pipes_of_programs(place: Path) -> None:
    home, never = os.open(place, os.O_PATH), os.eventfd(0)
    try:

        def work(_: int) -> object:
            return run_command("true", home, {}, CONTENT, Programs(), (never,))

        assert left_open(work, fcntl, "fcntl", OSError(errno.EMFILE, "too many")) == []
    finally:
        os.close(never)
        os.close(home)


async def test_the_socket_for_logins(tmp_path: Path) -> None:
    async def answer(_: bytes) -> bytes:
        return b""

    before = opened()
    with failing(socket, "socket", 1, OSError(errno.EMFILE, "too many")):
        Desk(str(tmp_path / "desk" / "socket"), 100, answer).start()
    assert opened() == before

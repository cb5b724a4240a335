"""Work done as the owner of mail, who is never root: in a child of this process, or in itself."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from restante.directory import Account
from tests.support.deliveries import GROUP, OWNER

AS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not AS_ROOT, reason="only root can be several users")
only_users = pytest.mark.skipif(AS_ROOT, reason="as whoever started it is the server, if not root")
_T = TypeVar("_T")


class ChildDied(Exception):
    """The child ended without an answer; the text says how."""


def as_owner(work: Callable[[], _T], uid: int = OWNER, gid: int = GROUP) -> _T:
    """What ``work`` returns, done as the owner; raises ChildDied if it does not return."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of pytest's are idle
        pid = os.fork()
    if pid == 0:
        os.close(readable)
        _answer(work, writable, uid, gid)
    os.close(writable)
    with open(readable, "rb") as answer:
        octets = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise ChildDied(f"ended with {status}")
    found: _T = pickle.loads(octets)
    return found


def _answer(work: Callable[[], object], writable: int, uid: int, gid: int) -> None:
    """Never returns: the child has nothing to do with pytest."""
    status = 1
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if AS_ROOT:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        found = pickle.dumps(work())
        with open(writable, "wb") as answer:
            answer.write(found)
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
        traceback.print_exc()
    finally:
        os._exit(status)


@contextlib.contextmanager
def owners_rights(root: Path) -> Iterator[None]:
    """As helpers work, and servers that are their mailboxes' user: never as root.

    This process has them, and ``root`` is the owner's.
    """
    if not AS_ROOT:
        yield
        return
    os.chown(root, OWNER, GROUP)
    os.setegid(GROUP)
    os.seteuid(OWNER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextlib.contextmanager
def owners_home() -> Iterator[Path]:
    """An empty home of the owner's, to which he can go: tmp_path is closed to all but pytest."""
    above = Path(tempfile.mkdtemp(prefix="restante-test-"))
    try:
        above.chmod(0o755)
        home = above / "home"
        home.mkdir(mode=0o700)
        os.chown(home, OWNER, GROUP)
        yield home
    finally:
        shutil.rmtree(above)


def owner(home: Path) -> Account:
    """The account of whom the home belongs to."""
    return Account("iain", OWNER, GROUP, str(home))

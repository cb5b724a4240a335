"""The passwd file and .qmail files, asked in this process.

Both may lie behind a network: look-ups are done in threads, so many at a time, and each
is given up after a while. One that hangs keeps its place until it ends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import os
import queue
import stat
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from restante.address import fold
from restante.config.tree import Settings
from restante.directory import Account, BadFile, DotQmail, NoSystemFiles, SystemFiles
from restante.directory.dotqmail import check_missing_home, read_dot_qmail
from restante.directory.passwd import PasswdEntry, passwd_entry
from restante.directory.rows import MAX_ID
from restante.directory.sql import ALIAS_USER
from restante.errors import CannotKnow
from restante.rights import RightsRefused, owners_rights

PATIENCE = 5.0
"""Seconds for one look-up: an SMTP peer that asks for several still hears within its timeout."""
MAX_LOOKUPS = 16
"""Look-ups at once, in threads; others wait for their turn, within their patience."""

_T = TypeVar("_T")
_Jobs = queue.SimpleQueue[Callable[[], None] | None]
"""What the threads do; None: there will be no more."""


EntryOf = Callable[[str], PasswdEntry | None]
"""Finds the password entry of a user; raises CannotKnow."""


def mail_user(name: str, minimum_uid: int, entry_of: EntryOf = passwd_entry) -> Account | None:
    """The user of the system who has mail (qmail-getpw(8)); raises what SystemFiles.user does.

    Somebody who has a password entry, a uid above 0 and not below the minimum, and a home of
    their own; nobody whose name has upper case letters. The user ``alias`` serves all other
    addresses, and if there is one who cannot, that is an error: BadFile.
    """
    if fold(name) != name:
        return None
    entry = entry_of(name)
    if entry is None:
        return None
    why = _objection(entry, max(minimum_uid, 1))
    if not why:
        return Account(name, entry.uid, entry.gid, entry.home)
    if name == ALIAS_USER:
        raise BadFile(f"passwd: user {name} cannot have mail: {why}")
    return None


def _objection(entry: PasswdEntry, minimum_uid: int) -> str:
    if not minimum_uid <= entry.uid <= MAX_ID:
        return f"uid {entry.uid} is not between {minimum_uid} and {MAX_ID}"
    if not entry.home.startswith("/"):
        return f"the home {entry.home!r} is no absolute path"
    try:
        home = os.stat(entry.home)
    except (FileNotFoundError, NotADirectoryError):
        return f"the home {entry.home} is missing"
    except (OSError, ValueError) as error:
        raise CannotKnow(f"passwd: {entry.name}: cannot see {entry.home}: {error}") from error
    if not stat.S_ISDIR(home.st_mode):
        return f"the home {entry.home} is no directory"
    if home.st_uid != entry.uid:
        return f"the home {entry.home} belongs to uid {home.st_uid}, not to {entry.uid}"
    return ""


def system_files(settings: Settings) -> SystemFiles:
    """What is asked after SQL, by a process that does it itself."""
    if not settings.routing.system_files:
        return NoSystemFiles()
    return HostFiles(settings.mail.minimum_uid, settings.mail.minimum_gid)


class HostFiles:
    """``SystemFiles`` by this process itself: with the owner's rights as root, else with its own.

    Belongs to one event loop.
    """

    def __init__(
        self,
        minimum_uid: int,
        minimum_gid: int,
        entry_of: EntryOf = passwd_entry,
        patience: float = PATIENCE,
    ) -> None:
        self._minimum_uid = minimum_uid
        self._entry_of = entry_of
        self._ways = owners_rights(minimum_uid, minimum_gid)
        self._threads = _Threads(MAX_LOOKUPS, patience)

    async def user(self, name: str) -> Account | None:
        """See SystemFiles."""
        return await self._threads.run(
            f"passwd: {name}", lambda: mail_user(name, self._minimum_uid, self._entry_of)
        )

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        return await self._threads.run(
            f".qmail files in {account.home}", lambda: self._dot_qmail(account, extension)
        )

    def _dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        own = os.geteuid()
        if own not in (0, account.uid):
            raise CannotKnow(
                f".qmail files of {account.name}: its uid is {account.uid}, "
                f"this process runs as {own}"
            )
        try:
            way = self._ways(account)
        except FileNotFoundError:
            check_missing_home(account, extension)
            return None
        except RightsRefused as error:
            raise BadFile(f".qmail files of {account.name}: {error}") from error
        with contextlib.closing(way), way.rights():
            return read_dot_qmail(account, extension, way.path)


class _Threads:
    """Blocking work in threads that are kept, bounded in number and in time.

    They are daemons: one that hangs keeps nobody from ending. Belongs to one event loop.
    """

    def __init__(self, count: int, patience: float) -> None:
        self._places = asyncio.Semaphore(count)
        self._patience = patience
        self._jobs: _Jobs = queue.SimpleQueue()
        self._started = 0
        self._busy = 0
        weakref.finalize(self, self._jobs.put, None)

    async def run(self, what: str, work: Callable[[], _T]) -> _T:
        """The result of ``work``; raises CannotKnow when it takes too long, and what it raises."""
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
                self._hand_out(what, functools.partial(self._do, work, answer))
                return await answer
        except TimeoutError:
            raise CannotKnow(f"{what}: no answer within {self._patience:g} seconds") from None

    def _hand_out(self, what: str, job: Callable[[], None]) -> None:
        if self._busy == self._started:
            try:
                threading.Thread(target=_serve, args=(self._jobs,), daemon=True).start()
            except RuntimeError as error:
                self._places.release()
                raise CannotKnow(f"{what}: {error}") from error
            self._started += 1
        self._busy += 1
        self._jobs.put(job)

    def _do(self, work: Callable[[], _T], answer: asyncio.Future[_T]) -> None:
        """In a thread. A loop that has ended meanwhile wants no answer any more."""
        done: concurrent.futures.Future[_T] = concurrent.futures.Future()
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - handed on to whoever waits
            done.set_exception(error)
        with contextlib.suppress(RuntimeError):
            answer.get_loop().call_soon_threadsafe(self._settle, done, answer)

    def _settle(self, done: concurrent.futures.Future[_T], answer: asyncio.Future[_T]) -> None:
        self._busy -= 1
        self._places.release()
        if answer.done():
            return
        if error := done.exception():
            answer.set_exception(error)
        else:
            answer.set_result(done.result())


def _serve(jobs: _Jobs) -> None:
    """A thread's life: it ends when there is nobody left to give it work."""
    while job := jobs.get():
        job()
        # Whoever gave the work is to be forgotten while there is none.
        del job
    jobs.put(None)

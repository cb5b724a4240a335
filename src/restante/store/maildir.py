"""Maildirs as POP3 sees them: ``home/Maildir`` of an account, listed once, held exclusively.

One session at a time has a Maildir: the lock is ``flock`` on ``restante.lock`` in it, which
ends with the process and holds across machines where the file system honours it
(docs/cluster.md). Delivery and other readers (Dovecot, mutt) need no lock and may change
flags or remove messages meanwhile.
A Maildir that does not exist is empty: there is nothing to hold, and nothing is made. That is not
said of one whose file system seems not to be mounted.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import struct
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from restante.directory import Account
from restante.rights import RightsRefused, Way, Ways, own_rights
from restante.store import (
    MaildropUnavailable,
    MessageGone,
    Messages,
    files,
    scan,
    unwaiting,
)
from restante.store.columns import Column
from restante.store.lock import (
    LOCK,
    STALE_AFTER,
    check_missing,
    check_name,
    clean_if_due,
    keep_lock,
    of_others,
    take_known_lock,
    take_lock,
    unavailable,
)
from restante.store.recollection import Recollection

MAILDIR = "Maildir"
READ_AHEAD = 32
"""Messages read in one go when the client fetches one after another."""
READ_AHEAD_OCTETS = 256 * 1024
"""Octets in these messages."""
READINGS = 8
"""Maildirs whose mail is read for its sizes at the same time, each in a thread for as long as that
takes. There are more threads, for everybody else."""

_FOLDERS_BELOW = tuple(b"/" + folder.encode() for folder in scan.FOLDERS)
"""What follows a Maildir's path in those of its folders."""

_STAMP = struct.Struct("!QQq")

_Result = TypeVar("_Result")

_NO_MESSAGE_FILE = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)
"""What opening says of a name that has become a link, a socket or a directory."""


class MaildirStore:
    """The Maildirs of all accounts, read and changed with the rights that ``ways`` gives."""

    def __init__(self, ways: Ways = own_rights, clock: Callable[[], float] = time.time) -> None:
        self._ways = ways
        self._clock = clock
        # Worth something only without a thread; and an owner's rights are taken by threads alone.
        self._recollection = Recollection() if ways is own_rights else None
        self._readings = asyncio.Semaphore(READINGS)

    async def open(
        self, account: Account, is_wanted: Callable[[], bool] = lambda: True
    ) -> MaildirDrop:
        """See ``MailStore.open``. A thread asks first whether it ``is_wanted`` still.

        What may have to wait is done in a thread: everything, unless the Maildir is known and
        unchanged, and the kernel can say so at once.
        """
        drop = self.at_once(account)
        if drop is not None:
            return drop
        began = self._clock()
        work = functools.partial(_open, self._ways, account, began - STALE_AFTER)
        try:
            drop = await _in_thread(work, MaildirDrop.close, is_wanted)
        except scan.TakesLong:
            reading = functools.partial(work, may_last=True)
            drop = await _in_thread(reading, MaildirDrop.close, is_wanted, self._readings)
        if self._recollection is not None:
            drop.is_remembered = self._recollection.keep(drop.maildir, drop.listing, began)
        return drop

    def at_once(self, account: Account) -> MaildirDrop | None:
        """The maildrop, if it is known and unchanged and that takes no wait; None is no answer."""
        if self._recollection is None:
            return None
        way = Way(account.home)
        maildir = _maildir_of(way)
        known = self._recollection.of(maildir)
        if known is None:
            return None
        is_unchanged = functools.partial(_is_unchanged, maildir, known)
        lock = take_known_lock(maildir, self._clock() - STALE_AFTER, is_unchanged)
        if lock is None:
            return None
        drop = MaildirDrop(way, lock, known)
        drop.is_remembered = True
        return drop


@dataclass(frozen=True, slots=True)
class Fetched:
    """The first block of a message; the reader of the rest, if any; small messages after it."""

    block: bytes
    rest: files.Reader | None
    ahead: dict[int, bytes]

    async def next_block(self) -> bytes:
        """The next block, empty at the end; raises MaildropUnavailable."""
        return await _begun(functools.partial(_block, self.rest)) if self.rest else b""

    def release(self) -> None:
        """Close what is open."""
        if self.rest:
            self.rest.close()


class MaildirDrop:
    """An open Maildir, for one session."""

    __slots__ = (
        "_ahead",
        "_lock",
        "_next",
        "_places",
        "_way",
        "is_remembered",
        "listing",
        "maildir",
    )

    def __init__(
        self, way: Way | None, lock: int | None, listing: scan.Listing = scan.NOTHING
    ) -> None:
        """``lock`` is the descriptor that holds the lock; None if there is no Maildir.

        ``way`` leads to the home, which holds the Maildir; None if there is no home.
        """
        self._way = way or Way("")
        self._lock = lock
        self._next = -1
        self._ahead: dict[int, bytes] | None = None
        self._places = listing.places
        """Where the messages are now, as far as it is known."""
        self.maildir = _maildir_of(self._way)
        """Its path, for system calls."""
        self.listing = listing
        """What was found when the session opened."""
        self.is_remembered = False
        """Its stamps tell the listing from any other of the Maildir."""

    @property
    def messages(self) -> Messages:
        """See ``Maildrop.messages``."""
        return self.listing.messages

    @property
    def version(self) -> bytes:
        """What the listing can be recognised by; empty if by nothing."""
        if not self.is_remembered:
            return b""
        stamps = self.listing.stamps
        return b"".join([_STAMP.pack(each.device, each.inode, each.changed) for each in stamps])

    def at_hand(self, index: int) -> bytes | None:
        """See ``Maildrop.at_hand``."""
        message = self._ahead.pop(index, None) if self._ahead else self._known(index)
        if message is not None:
            self._next = index + 1
        return message

    def _known(self, index: int) -> bytes | None:
        """A small message that lies in the kernel's memory, on a local file system."""
        if not self.listing.stamps or type(self._way) is not Way:
            return None  # an owner's rights are taken by threads alone
        try:
            return unwaiting.read_known(self._path(index), READ_AHEAD_OCTETS)
        except (OSError, MessageGone):
            return None  # whoever reads it in earnest waits, or says what is wrong

    async def read(self, index: int) -> AsyncGenerator[bytes, None]:
        """See ``Maildrop.read``; while messages are read in order, some are read ahead."""
        if (message := self.at_hand(index)) is not None:
            yield message
            return
        in_order, self._next = index == self._next, index + 1
        fetched = await self.fetch(index, READ_AHEAD if in_order else 0)
        self._ahead = fetched.ahead
        try:
            yield fetched.block
            while block := await fetched.next_block():
                yield block
        finally:
            fetched.release()

    async def fetch(self, index: int, further: int) -> Fetched:
        """The beginning of a message, and so many that follow it if all of them are small.

        Raises as ``read`` does. The caller releases what it is given.
        """
        return await _in_thread(functools.partial(self._fetch, index, further), Fetched.release)

    async def remove(self, indexes: Collection[int]) -> None:
        """See ``Maildrop.remove``."""
        if indexes:
            await _begun(functools.partial(self._remove, sorted(indexes)))

    def close(self) -> None:
        """See ``Maildrop.close``."""
        self._ahead = None
        if self._lock is not None:
            files.close(self._lock)
            self._lock = None
        self._way.close()

    # In a thread

    def _fetch(self, index: int, further: int) -> Fetched:
        with self._way.rights():
            return self._fetch_here(index, further)

    def _fetch_here(self, index: int, further: int) -> Fetched:
        reader = self._reader(index)
        block = _block(reader)
        if not reader.is_done:
            return Fetched(block, reader, {})
        reader.close()
        return Fetched(block, None, self._read_ahead(range(index + 1, index + 1 + further)))

    def _read_ahead(self, indexes: range) -> dict[int, bytes]:
        """Small messages; the first that is large, or cannot be read, ends it."""
        ahead: dict[int, bytes] = {}
        room = READ_AHEAD_OCTETS
        for index in indexes[: max(0, len(self.messages) - indexes.start)]:
            if self.messages.sizes[index] > room:
                break
            try:
                message = files.read_bounded(self._path(index), room)  # its size may be wrong
            except (OSError, MessageGone):
                break
            if message is None:
                break
            ahead[index] = message
            room -= len(message)
        return ahead

    def _reader(self, index: int) -> files.Reader:
        try:
            try:
                return files.Reader(self._path(index))
            except FileNotFoundError:
                self._relocate()
                return files.Reader(self._path(index))
        except (FileNotFoundError, files.NotRegular):
            raise MessageGone from None
        except OSError as error:
            if error.errno in _NO_MESSAGE_FILE:
                raise MessageGone from None
            raise unavailable("read a message in", self._name, error) from error

    @property
    def _name(self) -> str:
        return os.path.join(self._way.home, MAILDIR)

    def _path(self, index: int) -> bytes:
        place = self._places[index]
        if place == scan.GONE:
            raise MessageGone
        return b"%b/%b" % (self.maildir, place)

    def _relocate(self) -> None:
        """Follow what other programs renamed; what is gone is not looked for again."""
        self._places = Column(self._where_now(self._places, self.listing.inodes))

    def _where_now(self, places: Iterable[bytes], inodes: Mapping[int, int]) -> list[bytes]:
        """Where messages are that were at these places.

        Reading a directory may miss a file that is renamed meanwhile, so that only what
        is not there twice is gone.
        """
        places = list(places)
        try:
            first = scan.relocate(self.maildir, places, inodes)
            if scan.GONE not in first:
                return first
            second = scan.relocate(self.maildir, places, inodes)
        except OSError as error:
            raise unavailable("read", self._name, error) from error
        return [now or then for then, now in zip(first, second, strict=True)]

    def _remove(self, indexes: Sequence[int]) -> None:
        with self._way.rights():
            assert self._lock is not None, "messages lie in Maildirs alone, and those are locked"
            keep_lock(self._lock, self.maildir, self._name)
            self._remove_here(indexes)

    def _remove_here(self, indexes: Sequence[int]) -> None:
        folders: set[bytes] = set()
        problems: list[OSError] = []
        where = zip(indexes, map(self._places.__getitem__, indexes), strict=True)
        missed = self._unlink(where, folders, problems)
        left = self._unlink_moved(missed, folders, problems) if missed else ()
        gone = len(indexes) - len(problems) - len(left)
        if left:
            problems.append(OSError(errno.EBUSY, "other programs go on renaming them"))
        for folder in sorted(folders):
            try:
                files.fsync_directory(os.path.join(self.maildir, folder))
            except OSError as error:
                problems.append(error)
        if problems:
            doing = f"delete {len(indexes)} messages ({gone} are gone) in"  # for the log to tell
            raise unavailable(doing, self._name, problems[0])

    def _unlink_moved(
        self, missed: Sequence[int], folders: set[bytes], problems: list[OSError]
    ) -> Sequence[int]:
        """Look for messages that are not where they were, and unlink them; the rest is returned.

        A program that changes the flags of all of them is as quick as this, so that some have
        another name again by the time of their turn. What is not found has another chance for as
        long as there are such ones, and is gone if there are none.
        """
        for _ in range(scan.LOOKS):
            places = self._places_of(missed)
            missed = self._unlink(zip(missed, places, strict=True), folders, problems)
            if len(missed) == places.count(scan.GONE):
                return ()
        return missed

    def _places_of(self, indexes: Sequence[int]) -> list[bytes]:
        """Where some messages of the listing are now."""
        inodes = self.listing.inodes
        some = {now: inodes[index] for now, index in enumerate(indexes) if index in inodes}
        return self._where_now(map(self.listing.places.__getitem__, indexes), some)

    def _unlink(
        self, where: Iterable[tuple[int, bytes]], folders: set[bytes], problems: list[OSError]
    ) -> list[int]:
        """Unlink messages; those that are not where they were are returned.

        Little is done between two system calls: the event loop waits meanwhile.
        """
        missed = []
        root = os.path.join(self.maildir, b"")
        for index, place in where:
            if place == scan.GONE:
                missed.append(index)
                continue
            try:
                os.unlink(root + place)
                folders.add(place.partition(b"/")[0])
            except FileNotFoundError:
                missed.append(index)
            except OSError as error:
                problems.append(error)
        return missed


def _maildir_of(way: Way) -> bytes:
    return os.fsencode(f"{way.path}/{MAILDIR}")


def _is_unchanged(maildir: bytes, known: scan.Listing) -> bool:
    for folder, stamp in zip(_FOLDERS_BELOW, known.stamps, strict=True):
        if not unwaiting.has_stamp(maildir + folder, stamp):
            return False
    return True


def _open(
    ways: Ways, account: Account, stale_before: float, *, may_last: bool = False
) -> MaildirDrop:
    """Raises scan.TakesLong unless it ``may_last``."""
    try:
        way = ways(account)
    except FileNotFoundError:
        check_missing(os.path.join(account.home, MAILDIR))
        return MaildirDrop(None, None)
    except RightsRefused as error:
        raise MaildropUnavailable(str(error)) from error
    try:
        with way.rights():
            return _open_by(way, account.uid, stale_before, may_last=may_last)
    except BaseException:
        way.close()
        raise


def _open_by(way: Way, uid: int, stale_before: float, *, may_last: bool) -> MaildirDrop:
    maildir, name = (os.path.join(home, MAILDIR) for home in (way.path, way.home))
    try:
        lock = take_lock(maildir, name)
    except PermissionError as error:
        what = of_others({way.home: way.path, name: maildir}, uid) or os.path.join(name, LOCK)
        raise unavailable("lock", what, error) from error
    if lock is None:
        return MaildirDrop(way, None)
    try:
        check_name(lock, os.path.join(maildir, LOCK))
        is_due = clean_if_due(lock, maildir, stale_before)
        found = scan.listing(os.fsencode(maildir), thorough=is_due, may_last=may_last)
        return MaildirDrop(way, lock, found)
    except OSError as error:
        files.close(lock)
        raise unavailable("read", name, error) from error
    except BaseException:
        files.close(lock)
        raise


def _block(reader: files.Reader) -> bytes:
    try:
        return reader.read()
    except OSError as error:
        reader.close()
        raise MaildropUnavailable(f"cannot read a message: {error.strerror}") from error


async def _in_thread(
    work: Callable[[], _Result],
    release: Callable[[_Result], None],
    is_wanted: Callable[[], bool] = lambda: True,
    places: asyncio.Semaphore | None = None,
) -> _Result:
    """Do blocking work; if the session is cancelled meanwhile, its result is released.

    What no thread has begun by then, or is not wanted any more, is not done.
    Raises MaildropUnavailable then, and where no thread can be started, and what the work raises.
    ``places``: it waits for one, and has it until the thread is done, whoever has gone meanwhile.
    """
    is_awaited = True

    def begin() -> _Result:
        if is_awaited and is_wanted():
            return work()
        raise MaildropUnavailable("nobody waits for it any more")

    working = _begun(begin) if places is None else await _begun_in_turn(begin, places)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        is_awaited = False
        working.add_done_callback(functools.partial(_release_unwanted, release))
        raise


def _begun(work: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """Raises MaildropUnavailable where no thread can be started."""
    try:
        return asyncio.get_running_loop().run_in_executor(None, work)
    except RuntimeError as error:
        raise MaildropUnavailable(str(error)) from error


async def _begun_in_turn(
    work: Callable[[], _Result], places: asyncio.Semaphore
) -> asyncio.Future[_Result]:
    await places.acquire()
    try:
        working = _begun(work)
    except MaildropUnavailable:
        places.release()
        raise
    working.add_done_callback(lambda _: places.release())
    return working


def _release_unwanted(release: Callable[[_Result], None], done: asyncio.Future[_Result]) -> None:
    if not done.cancelled() and done.exception() is None:
        release(done.result())

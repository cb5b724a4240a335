"""Watches the drop directory, and takes what is in it into a queue."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice

from restante import maillog
from restante.address import fold
from restante.config import Settings
from restante.drop import DropPaths, is_finished, is_unfinished
from restante.drop.record import BadRecord, NewerRecord
from restante.errors import TemporaryError
from restante.pickup import TakingQueue
from restante.pickup.letter import DroppedFile, Letter, Limits, read_letter
from restante.pickup.place import make_bad, sync_directory
from restante.queue import LastAnswer, Target
from restante.spool import Spool
from restante.status import PermanentFailure
from restante.threads import in_thread

BATCH = 100
"""Files that are claimed together."""
AT_ONCE = 10
"""Files that are read at the same time."""
SCAN_INTERVAL = 5.0
"""Seconds between two looks that nobody asked for."""
LEAST_PAUSE = 0.05
"""Seconds until the next look, whoever asks for it, when there was no more than could be taken."""
REST = 9.0
"""Seconds of rest for each second of processor time that a look takes: any user can leave a million
files that have to be passed over."""
PAUSE_AFTER_FAILURE = 15.0
"""Seconds until the next look when the queue or a disk has failed."""
PAUSE_AFTER_STUCK = 3600.0
"""Seconds until what cannot be put aside is tried again. It holds up nobody meanwhile."""
LOGGED_AT_ONCE = 1000
"""Lines that are written until others have their turn."""
ABANDONED = 24 * 3600.0
"""Seconds after which an unfinished file is the trace of a program that was killed."""
MAX_BAD = 1000
"""Files that are kept for the operator to look at; more are removed."""
WHY_FAILED = "a limit was lowered after it was dropped"


class Collector:
    """One worker's pick-up; one of a generation has one."""

    def __init__(
        self,
        settings: Settings,
        slot: int,
        queue: TakingQueue,
        new_id: Callable[[], str],
        spool_directory: str,
    ) -> None:
        """``queue`` is that of ``slot``."""
        self._settings = settings
        self._slot = slot
        self._paths = DropPaths.of(settings.directory)
        self._claimed = claimed_by(self._paths, slot)
        self._queue = queue
        self._new_id = new_id
        self._spool_directory = spool_directory
        self._limits = Limits(settings.smtp.databytes, settings.smtp.max_received)
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._settle_at = 0.0
        """When what is claimed must be put in order again; infinite: all that is claimed is."""
        self._rest = 0.0
        """Seconds that are due to others after the last look."""
        self._room = asyncio.Semaphore(AT_ONCE)
        self._aside = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Collect from now on."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, patience: float) -> None:
        """Finish what was begun; what takes longer than ``patience`` seconds is picked up later."""
        self._stop.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=patience)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        with _listening(self._paths.wake, self._wake) as listen:
            while not self._stop.is_set():
                self._wake.clear()
                listen()
                await self._turn()

    async def _turn(self) -> None:
        """Collect a batch, and wait until there may be more."""
        try:
            found = await self._collect()
        except (TemporaryError, OSError) as error:
            maillog.drop_failed(self._paths.root, str(error))
        except Exception as error:  # noqa: BLE001 - pick-up must go on
            maillog.unplanned("pick-up of dropped mail", error)
        else:
            if found == BATCH:
                await _wait(self._stop, self._rest)
            else:
                await _wait(self._stop, max(self._rest, LEAST_PAUSE))
                await _wait(self._wake, SCAN_INTERVAL)
            return
        self._settle_at = 0.0
        await _wait(self._stop, PAUSE_AFTER_FAILURE)

    async def _collect(self) -> int:
        """Take at most BATCH files; how many there were. Raises TemporaryError and OSError."""
        if time.monotonic() >= self._settle_at:
            await in_thread(_forget_second_names, self._paths)
            await settle(self._settings, self._slot, self._queue)
            queues = self._settings.path(self._settings.queue.root)
            await in_thread(_settle_orphans, self._paths, queues)
            self._settle_at = math.inf
        names = await in_thread(self._claim)
        if names:
            await self._take_all(names)
        return len(names)

    def _claim(self) -> list[str]:
        """See ``claim``; notes what rest the look asks for."""
        began = time.thread_time()
        names = look(self._paths)
        self._rest = REST * (time.thread_time() - began)
        return claim(self._paths, self._claimed, names)

    async def _take_all(self, names: Sequence[str]) -> None:
        results = await asyncio.gather(*map(self._take, names), return_exceptions=True)
        await in_thread(sync_directory, self._claimed)
        pairs = list(zip(names, results, strict=True))
        await self._queue.forget_taken([name for name, failure in pairs if failure is None])
        for _, failure in pairs:
            if failure is not None:
                raise failure

    async def _take(self, name: str) -> None:
        """One file into the queue, or aside; raises TemporaryError and OSError with it in place."""
        path = os.path.join(self._claimed, name)
        async with self._room:
            try:
                await self._enqueue(name, path)
            except BadRecord as error:
                await self._put_aside(path, str(error))
            except NewerRecord as error:
                self._leave(f"{name}: {error}")
            else:
                await in_thread(os.unlink, path)

    async def _put_aside(self, path: str, why: str) -> None:
        """See ``_put_aside``; where that fails, ``_leave``."""
        async with self._aside:  # so that MAX_BAD is what it says
            try:
                await in_thread(_put_aside, self._paths, path, why)
            except OSError as error:
                self._leave(str(error))

    def _leave(self, why: str) -> None:
        """A file stays claimed for a while, and only the first is told of: in ``incoming`` it could
        come before all others again and again.
        """
        if self._settle_at == math.inf:
            self._settle_at = time.monotonic() + PAUSE_AFTER_STUCK
            maillog.drop_failed(self._paths.root, why)

    async def _enqueue(self, name: str, path: str) -> None:
        smtp = self._settings.smtp
        began = time.time()
        file = await in_thread(DroppedFile, path)
        spool = Spool(self._spool_directory, smtp.spool_threshold, smtp.max_header)
        try:
            letter = await self._read(file, spool, began)
            finished = await self._add(letter, name)
        finally:
            spool.let_go()
            file.close()
        envelope = letter.envelope
        maillog.picked_up(
            envelope.queue_id,
            file.uid,
            str(envelope.reverse_path),
            len(envelope.recipients),
            letter.content.size,
            max(began - file.modified_at, 0.0),
            time.time() - began,
        )
        if letter.failure is not None:
            failure = PermanentFailure(letter.failure, WHY_FAILED)
            await _log_failed(envelope.queue_id, letter.targets, failure)
        if finished:
            maillog.message_finished(envelope.queue_id)

    async def _add(self, letter: Letter, name: str) -> bool:
        """Whether it has left the queue by now."""
        what = letter.envelope, letter.content, letter.targets
        if letter.failure is None:
            await self._queue.add(*what, name)
            return False
        failure = LastAnswer(letter.failure, WHY_FAILED, None, letter.envelope.received_at)
        return await self._queue.add_failed(*what, failure, name)

    async def _read(self, file: DroppedFile, spool: Spool, now: float) -> Letter:
        host = self._settings.hostname
        try:
            return await read_letter(file, spool, self._limits, host, self._new_id(), now)
        except (BadRecord, NewerRecord, TemporaryError, OSError, MemoryError):
            raise
        except Exception as error:
            # The next time would end in the same way, and hold up what others dropped.
            maillog.unplanned("dropped file", error)
            raise BadRecord(f"a bug: {type(error).__name__}") from error


async def _log_failed(queue_id: str, targets: Iterable[Target], failure: PermanentFailure) -> None:
    """Each address once, as in the queue, however often a file names it. There may be very many."""
    addresses: dict[str, str] = {}
    for target in targets:
        addresses.setdefault(fold(target.address), target.address)
    for number, address in enumerate(addresses.values(), 1):
        maillog.failed(queue_id, address, failure)
        if number % LOGGED_AT_ONCE == 0:
            await asyncio.sleep(0)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


@contextlib.contextmanager
def _listening(fifo: str, wake: asyncio.Event) -> Iterator[Callable[[], None]]:
    """Set ``wake`` when somebody has written to the FIFO; without it there is the interval.

    Once for each call of what this gives: whoever writes without end is read no more often.
    """
    try:
        # For writing too: a FIFO that nobody has open for writing is always at its end.
        descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        maillog.drop_failed(fifo, str(error))
        yield lambda: None
        return

    loop = asyncio.get_running_loop()

    def listen() -> None:
        with contextlib.suppress(OSError):  # by now it is a file, which has nothing to wait for
            loop.add_reader(descriptor, poked)

    def poked() -> None:
        loop.remove_reader(descriptor)
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, 65536)
        wake.set()

    try:
        yield listen
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def claimed_by(paths: DropPaths, slot: int) -> str:
    """Where files lie that go into the queue of ``slot``; it is the queue's owner's."""
    return os.path.join(paths.claimed, str(slot))


def look(paths: DropPaths) -> list[str]:
    """The names of at most BATCH files that may be letters; raises OSError. Blocks."""
    with os.scandir(paths.incoming) as entries:
        return [each.name for each in islice(filter(_is_letter, entries), BATCH)]


def claim(paths: DropPaths, claimed: str, names: Iterable[str]) -> list[str]:
    """Move files out of everybody's reach, durably; the names of those that were there still.

    Raises OSError. Another generation of workers may be faster with any of them. Blocks.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(claimed, 0o700)
        sync_directory(paths.claimed)
    moved = [
        name
        for name in names
        if _move(os.path.join(paths.incoming, name), os.path.join(claimed, name))
    ]
    if moved:
        sync_directory(claimed)  # first: without a journal each is written for itself
        sync_directory(paths.incoming)
    return moved


def _move(path: str, to: str) -> bool:
    """Whether it was still there, and no directory that its owner keeps; raises OSError."""
    try:
        os.rename(path, to)
    except FileNotFoundError:
        return False
    except PermissionError:
        if not _is_directory(path):
            raise
        return False
    return True


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _put_aside(paths: DropPaths, path: str, why: str) -> None:
    """Out of the way, for the operator to look at; raises OSError with it in place.

    A directory that its owner has swapped in may be immovable: it stays where it is.
    """
    facts = os.lstat(path)
    make_bad(paths.bad)  # whoever has looked at what was in it may have removed it
    _move_aside(paths, path, is_directory=stat.S_ISDIR(facts.st_mode))
    maillog.drop_refused(os.path.basename(path), facts.st_uid, why)


def _move_aside(paths: DropPaths, path: str, *, is_directory: bool) -> None:
    # A directory with the file's name may be there by now: its owner's, like the file.
    with contextlib.suppress(OSError if is_directory else IsADirectoryError):
        if len(os.listdir(paths.bad)) < MAX_BAD:
            os.rename(path, os.path.join(paths.bad, os.path.basename(path)))
            return
    if not is_directory:
        os.unlink(path)


def _is_letter(entry: os.DirEntry[str]) -> bool:
    """Directories cannot be moved, being their owners'; whatever else it is is found out later."""
    if is_unfinished(entry.name):
        _remove_abandoned(entry)
        return False
    return is_finished(entry.name) and not entry.is_dir(follow_symlinks=False)


def _remove_abandoned(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):
        # Or it was begun while the clock was ahead.
        age = abs(time.time() - entry.stat(follow_symlinks=False).st_mtime)
        if age > ABANDONED:
            os.unlink(entry.path)


async def settle(settings: Settings, slot: int, queue: TakingQueue) -> None:
    """Put in order what the last owner of the queue of ``slot`` was picking up when it ended.

    Before anybody collects into this queue. Raises TemporaryError and OSError.
    """
    paths = DropPaths.of(settings.directory)
    taken = await queue.taken()
    await in_thread(_settle, paths, claimed_by(paths, slot), taken)
    if taken:
        await queue.forget_taken(taken)


def _settle(paths: DropPaths, claimed: str, taken: Collection[str]) -> None:
    """Remove what is taken, and give the rest back, durably."""
    try:
        names = os.listdir(claimed)
    except FileNotFoundError:
        return
    with _alone(paths):
        for name in names:
            path = os.path.join(claimed, name)
            if name in taken:
                os.unlink(path)
            elif not _is_directory(path):  # which is no message, and may be immovable
                _give_back(paths, path)
    sync_directory(paths.incoming)
    sync_directory(claimed)
    with contextlib.suppress(OSError):  # it is made anew when it is needed
        os.rmdir(claimed)


def _give_back(paths: DropPaths, path: str) -> None:
    """Put a claimed file back; raises OSError.

    Its owner may have put a directory in its place. If it cannot be put aside then, it stays.
    """
    try:
        os.rename(path, os.path.join(paths.incoming, os.path.basename(path)))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # see ``_forget_second_names``: rename(2) leaves both
    except IsADirectoryError:
        try:
            _put_aside(paths, path, "there is a directory where it was")
        except OSError as error:
            maillog.drop_failed(paths.root, str(error))


@contextlib.contextmanager
def _alone(paths: DropPaths) -> Iterator[None]:
    """Among those who decide which of two names goes: they could remove one each."""
    claimed = os.open(paths.claimed, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(claimed, fcntl.LOCK_EX)
        yield
    finally:
        os.close(claimed)


def _forget_second_names(paths: DropPaths) -> None:
    """Files that are claimed, for whichever queue, have no name in ``incoming``; raises OSError.

    A power cut may have left both, on file systems without a journal. Before anybody claims: it
    would be claimed a second time, and would then be a file with other names, as of its owner.
    """
    with _alone(paths):
        for slot in os.listdir(paths.claimed):
            claimed = os.path.join(paths.claimed, slot)
            with contextlib.suppress(OSError):  # whoever settles it has to say so
                for name in os.listdir(claimed):
                    _forget_second_name(paths, os.path.join(claimed, name))
    sync_directory(paths.incoming)


def _forget_second_name(paths: DropPaths, claimed: str) -> None:
    path = os.path.join(paths.incoming, os.path.basename(claimed))
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.lstat(path), os.lstat(claimed)):
            os.unlink(path)


def _settle_orphans(paths: DropPaths, queues: str) -> None:
    """Give back what was claimed for queues that are no more: nobody else will.

    Raises OSError, also where nobody can say: what a queue has taken would come twice.
    """
    for slot in os.listdir(paths.claimed):
        if not _is_queue(os.path.join(queues, slot)):
            _settle(paths, os.path.join(paths.claimed, slot), frozenset())


def _is_queue(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False

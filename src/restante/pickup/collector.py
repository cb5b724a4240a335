"""Watches the drop directory, and takes what is in it into a queue."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from restante import maillog
from restante.address import fold
from restante.config import Settings
from restante.drop import DropPaths
from restante.drop.record import BadRecord, NewerRecord
from restante.errors import TemporaryError
from restante.pickup import TakingQueue
from restante.pickup.claims import (
    claim,
    claimed_by,
    forget_second_names,
    look,
    put_aside,
    settle,
    settle_orphans,
)
from restante.pickup.letter import DroppedFile, Letter, Limits, Qualified, read_letter
from restante.pickup.place import most_in_header, most_octets, sync_directory
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


class Collector:
    """One worker's pick-up; one of a generation has one."""

    def __init__(
        self,
        settings: Settings,
        slot: int,
        queue: TakingQueue,
        new_id: Callable[[], str],
        spool_directory: str,
        qualified: Qualified,
    ) -> None:
        """``queue`` is that of ``slot``."""
        self._settings = settings
        self._slot = slot
        self._paths = DropPaths.of(settings.directory)
        self._claimed = claimed_by(self._paths, slot)
        self._queue = queue
        self._new_id = new_id
        self._spool_directory = spool_directory
        self._qualified = qualified
        self._limits = Limits(most_octets(settings), settings.smtp.max_received)
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
            await in_thread(forget_second_names, self._paths)
            await settle(self._settings, self._slot, self._queue)
            queues = self._settings.path(self._settings.queue.root)
            await in_thread(settle_orphans, self._paths, queues)
            self._settle_at = math.inf
        names = await in_thread(self._claim)
        if names:
            await self._take_all(names)
        return len(names)

    def _claim(self) -> list[str]:
        """See ``claim``; notes what rest the look asks for."""
        began = time.thread_time()
        names = look(self._paths, BATCH)
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
        """See ``put_aside``; where that fails, ``_leave``."""
        async with self._aside:  # so that MAX_BAD is what it says
            try:
                await in_thread(put_aside, self._paths, path, why)
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
        spool = Spool(self._spool_directory, smtp.spool_threshold, most_in_header(self._settings))
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
            await _log_failed(envelope.queue_id, letter.targets, letter.failure)
        if finished:
            maillog.message_finished(envelope.queue_id)

    async def _add(self, letter: Letter, name: str) -> bool:
        """Whether it has left the queue by now."""
        what = letter.envelope, letter.content, letter.targets
        if letter.failure is None:
            await self._queue.add(*what, name)
            return False
        reply, detail = letter.failure.reply, letter.failure.detail
        failure = LastAnswer(reply, detail, None, letter.envelope.received_at)
        return await self._queue.add_failed(*what, failure, name)

    async def _read(self, file: DroppedFile, spool: Spool, now: float) -> Letter:
        host = self._settings.hostname
        try:
            return await read_letter(
                file, spool, self._limits, host, self._new_id(), now, self._qualified
            )
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

"""One worker's connection to a helper: its requests are done with the helper's own rights."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakValueDictionary

from restante.directory import Account, SystemFiles
from restante.envelope import Content
from restante.errors import TemporaryError
from restante.helper import NoHelper, messages
from restante.helper.channel import Channel
from restante.helper.failures import failure_of
from restante.helper.messages import Message, Owner, Pieces
from restante.helper.wire import LASTING, BadFrame, Frame, Kind, Reader, Writer
from restante.mda.acts import MAX_APPENDS, MAX_PROGRAMS
from restante.mda.writer import BatchWriter
from restante.records import record
from restante.status import Outcome
from restante.store import MaildropInUse, MaildropUnavailable
from restante.store.maildir import Fetched, MaildirDrop, MaildirStore

MAX_REQUESTS = 2000
"""Requests of one connection that are worked on; more stay unread until some are done."""
MAX_OCTETS = 64 * 1024 * 1024
"""Octets of these requests; the same."""
MAX_OPENING = MAX_REQUESTS // 2
"""Maildrops that threads are asked to open at the same time; one more is refused at once. Where a
file system hangs, each client that comes again leaves one, and deliveries are to get through."""
IN_USE_TRIES = 3
IN_USE_PAUSE = 0.02
"""How often, and after how many seconds, a maildrop is tried that another session has: its word
that it is done may have come by now, over another connection."""
TURN = 30.0
"""Seconds that a command or an mbox waits for its turn. Where programs hang, or mboxes are locked,
the worker is told in time: giving up the helper, it would give up all that the user has there."""
SIGN_OF_LIFE = 10.0
"""Seconds between two words to the worker that what lasts is still being worked on: it has no other
way to tell a large maildrop from a helper that hangs, which it gives up."""
MAX_DROPS = 10_000
"""Maildrops that one connection has open."""


_Run = tuple[str, tuple[str, ...], str]
"""A message's id, the addresses by which it came, and the command that it is for."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What does the work."""

    writer: BatchWriter
    store: MaildirStore
    files: SystemFiles
    programs: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, MAX_PROGRAMS))
    appends: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, MAX_APPENDS))
    runs: WeakValueDictionary[_Run, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """Held by each command until it has ended: with its worker gone that may take some seconds,
    and the next worker asks for it again."""


@record
class _Answer:
    """The frame that answers a request."""

    kind: Kind
    buffers: Sequence[bytes] = ()


_UNCHANGED = _Answer(Kind.UNCHANGED)

_Outcomes = tuple[Outcome, ...]
_Work = Coroutine[None, None, _Answer]
_Begun = _Work | asyncio.Future[_Outcomes] | _Answer | None
"""What there is to do for a request, what becomes of its deliveries, or its answer; None: there is
none."""
_UnderWay = asyncio.Future[_Answer] | asyncio.Future[_Outcomes]


@dataclass(slots=True)
class _Drop:
    """A maildrop from the moment it is asked for."""

    opening: asyncio.Future[MaildirDrop]
    fetched: Fetched | None = None
    """The message whose blocks are under way."""

    def forget_message(self) -> None:
        """Close the message that was read."""
        if self.fetched is not None:
            self.fetched.release()
            self.fetched = None

    def release(self) -> None:
        """Let the next session in: at once, or as soon as this one is."""
        self.forget_message()
        if self.opening.done():
            _release(self.opening)
        else:
            self.opening.add_done_callback(_release)


def _release(opening: asyncio.Future[MaildirDrop]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class Serving:
    """One connection. ``on_change`` is called when it has ended, and when it has become unused."""

    def __init__(
        self,
        connection: socket.socket,
        owner: Owner,
        tools: Tools,
        on_change: Callable[[Serving], None],
    ) -> None:
        self._owner = owner
        self._tools = tools
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(connection, self._take, self._lose, takes_descriptors=True)
        self._under_way: dict[_UnderWay, Frame] = {}
        """With the request of each."""
        self._octets = 0
        """Of these requests."""
        self._next_sign: asyncio.TimerHandle | None = None
        self._drops: dict[int, _Drop] = {}
        self._running: set[int] = set()
        """Descriptors that tell the commands that run that the worker is gone."""
        self._opening = 0
        """How many maildrops threads are asked to open, be it for nobody any more."""
        self._requests: dict[int, Callable[[Frame, Reader], _Begun]] = {
            Kind.DELIVER: self._deliver,
            Kind.WITHDRAW: self._withdraw,
            Kind.APPEND: self._append,
            Kind.RUN: self._run,
            Kind.OPEN: self._open,
            Kind.READ: self._read,
            Kind.MORE: self._more,
            Kind.REMOVE: self._remove,
            Kind.CLOSE: self._close,
            Kind.DOT_QMAIL: self._dot_qmail,
        }

    @property
    def is_open(self) -> bool:
        """Whether there is a worker at the other end."""
        return self._channel.is_open

    @property
    def is_unused(self) -> bool:
        """Whether nothing is under way for it; it may be though the worker is gone."""
        return not self._under_way and not self._drops

    def ask_back(self) -> None:
        """Ask the worker to close the connection, unless something is under way on it."""
        if self.is_unused:
            self._channel.send(0, Kind.GOODBYE, ())

    def remark(self, text: str) -> None:
        """Let the worker log a line."""
        out = Writer()
        out.cut(text, messages.MAX_TEXT)
        self._channel.send(0, Kind.REMARK, (out.octets(),))

    # Frames

    def _take(self, frame: Frame) -> None:
        try:
            begun = self._begin(frame)
        except BaseException:
            _close(frame.descriptor)
            raise
        if begun is None:
            _close(frame.descriptor)
            if self.is_unused:
                self._on_change(self)
            return
        if isinstance(begun, _Answer):
            _close(frame.descriptor)
            self._send(frame, begun)
            return
        # Deliveries have no task of their own: the writer's future is all that they wait for.
        work = begun if isinstance(begun, asyncio.Future) else self._loop.create_task(begun)
        self._under_way[work] = frame
        self._octets += len(frame.body)
        work.add_done_callback(partial(self._done, frame))
        if self._is_full():
            self._channel.hold()
        if frame.kind in LASTING and self._next_sign is None:
            self._next_sign = self._loop.call_later(SIGN_OF_LIFE, self._give_signs)

    def _give_signs(self) -> None:
        """Tell the worker what is still being worked on: now, and again for as long as it lasts."""
        lasting = [each.number for each in self._under_way.values() if each.kind in LASTING]
        if not self._channel.is_behind:
            for number in lasting:
                self._channel.send(number, Kind.WORKING, ())
        again = bool(lasting) and self._channel.is_open
        self._next_sign = self._loop.call_later(SIGN_OF_LIFE, self._give_signs) if again else None

    def _is_full(self) -> bool:
        return len(self._under_way) >= MAX_REQUESTS or self._octets >= MAX_OCTETS

    def _begin(self, frame: Frame) -> _Begun:
        request = self._requests.get(frame.kind)
        if request is None:
            raise BadFrame(f"a request of kind {frame.kind}")
        if frame.descriptor >= 0 and not stat.S_ISREG(os.fstat(frame.descriptor).st_mode):
            raise BadFrame("a body that is no file")
        return request(frame, Reader(frame.body))

    def _send(self, frame: Frame, answer: _Answer) -> None:
        alone = not self._under_way  # other answers may come to be sent with it
        self._channel.send(frame.number, answer.kind, answer.buffers, at_once=alone)

    def _done(self, frame: Frame, work: _UnderWay) -> None:
        was_full = self._is_full()
        del self._under_way[work]
        self._octets -= len(frame.body)
        _close(frame.descriptor)
        try:
            if not work.cancelled():
                self._send(frame, _answer_of(work))
        finally:
            if was_full and not self._is_full() and self._channel.is_open:
                self._channel.resume()
            if self.is_unused:
                self._on_change(self)

    def _lose(self, _why: str) -> None:
        """The worker is gone: what was begun is finished, what it held is given back.

        But commands are ended: nobody would learn how they end, and they are run again.
        """
        for gone in self._running:
            os.eventfd_write(gone, 1)
        for drop in self._drops.values():
            drop.release()
        self._drops.clear()
        self._on_change(self)

    # Deliveries

    def _deliver(self, frame: Frame, fields: Reader) -> _Work | asyncio.Future[_Outcomes]:
        together, again = fields.flag(), fields.flag()
        message = messages.read_message(fields)
        deliveries = messages.read_deliveries(fields, self._owner)
        content = _content(message, frame, fields)
        writer = self._tools.writer
        if not together or len(deliveries) == 1:
            return writer.begin_each(message.envelope, content, deliveries, again=again)

        async def work() -> _Answer:
            outcome = await writer.deliver_all(message.envelope, content, deliveries)
            return _outcomes((outcome,))

        return work()

    def _withdraw(self, _frame: Frame, fields: Reader) -> _Work:
        message = messages.read_message(fields)
        deliveries = messages.read_deliveries(fields, self._owner)
        fields.end()

        async def work() -> _Answer:
            writer = self._tools.writer
            await writer.withdraw(message.envelope, message.without_body(), deliveries)
            return _Answer(Kind.DONE)

        return work()

    def _append(self, frame: Frame, fields: Reader) -> _Work:
        again = fields.flag()
        message = messages.read_message(fields)
        mbox = messages.read_mbox(fields, self._owner)
        content = _content(message, frame, fields)

        async def work() -> _Answer:
            writer = self._tools.writer
            async with self._turn(self._tools.appends):
                outcome = await writer.append(message.envelope, content, mbox, again=again)
            return _outcomes((outcome,))

        return work()

    def _run(self, frame: Frame, fields: Reader) -> _Work:
        message = messages.read_message(fields)
        program = messages.read_program(fields, self._owner)
        content = _content(message, frame, fields)

        run = (message.envelope.queue_id, program.delivered_to, program.command)
        alone = self._tools.runs.setdefault(run, asyncio.Lock())

        async def work() -> _Answer:
            async with alone, self._turn(self._tools.programs):
                with self._gone() as gone:
                    ran = await self._tools.writer.run(message.envelope, content, program, gone)
            out = Writer()
            messages.write_ran(out, ran)
            return _Answer(Kind.RAN, (out.octets(),))

        return work()

    @contextlib.contextmanager
    def _gone(self) -> Iterator[int]:
        """A descriptor that becomes readable when the worker is gone; raises OSError."""
        gone = os.eventfd(0, os.EFD_CLOEXEC)
        self._running.add(gone)
        try:
            yield gone
        finally:
            self._running.remove(gone)
            os.close(gone)

    @contextlib.asynccontextmanager
    async def _turn(self, places: asyncio.Semaphore) -> AsyncIterator[None]:
        """Wait for a place; raises TemporaryError if it takes too long.

        Raises NoHelper if nobody waits for the answer by then: whoever asked asks again, and it
        would be done twice.
        """
        try:
            await asyncio.wait_for(places.acquire(), TURN)
        except TimeoutError:
            uid = self._owner.uid
            raise TemporaryError(f"others of uid {uid} have taken all places for so long") from None
        try:
            if not self._channel.is_open:
                raise NoHelper("the worker is gone")
            yield
        finally:
            places.release()

    # Maildrops

    def _open(self, frame: Frame, fields: Reader) -> _Begun:
        account, known = messages.read_open(fields, self._owner)
        if frame.number in self._drops or len(self._drops) >= MAX_DROPS:
            raise BadFrame("a maildrop too many")
        at_once = self._tools.store.at_once(account)
        held = self._drops[frame.number] = _Drop(self._loop.create_future())
        if at_once is not None:
            held.opening.set_result(at_once)
            return self._opened(frame.number, at_once, known)

        async def work() -> _Answer:
            self._opening += 1
            try:
                drop = await self._open_patiently(account, partial(self._holds, frame.number, held))
            except BaseException as error:
                self._drops.pop(frame.number, None)
                held.opening.set_exception(error)
                held.opening.exception()  # if nobody else waits for it, that is no bug
                raise
            finally:
                self._opening -= 1
            held.opening.set_result(drop)
            begun = self._opened(frame.number, drop, known)
            return begun if isinstance(begun, _Answer) else await begun

        return work()

    def _opened(self, number: int, drop: MaildirDrop, known: bytes) -> _Answer | _Work:
        """What a worker is told that knows a listing, or none."""
        if known and drop.version == known:
            return _UNCHANGED
        return self._listing(number, drop)

    def _holds(self, number: int, held: _Drop) -> bool:
        """Whether the worker has not closed it; in any thread."""
        return self._drops.get(number) is held

    async def _open_patiently(self, account: Account, is_wanted: Callable[[], bool]) -> MaildirDrop:
        if self._opening > MAX_OPENING:
            raise MaildropUnavailable(f"{MAX_OPENING} maildrops are being opened already")
        await asyncio.sleep(0)  # as a rule that word has come, and need only be read
        for _ in range(IN_USE_TRIES - 1):
            with contextlib.suppress(MaildropInUse):
                return await self._tools.store.open(account, is_wanted)
            await asyncio.sleep(IN_USE_PAUSE)
        return await self._tools.store.open(account, is_wanted)

    async def _listing(self, number: int, drop: MaildirDrop) -> _Answer:
        for octets, is_last in messages.listing(drop.messages):
            if is_last:
                return _Answer(Kind.OPENED, (messages.opened(drop.version), octets))
            self._channel.send(number, Kind.LISTING, (octets,))
            await self._channel.drain()
        raise AssertionError("a listing has a last part")

    def _read(self, _frame: Frame, fields: Reader) -> _Work:
        number = fields.count(messages.MAX_DROP)
        index, further = fields.count(messages.MAX_DROP), fields.count(messages.MAX_AHEAD)
        fields.end()

        async def work() -> _Answer:
            held, drop = await self._drop(number)
            if index >= len(drop.messages):
                raise MaildropUnavailable("no such message in the maildrop")
            held.forget_message()
            fetched = await drop.fetch(index, further)
            if not self._holds(number, held):
                fetched.release()
                raise MaildropUnavailable("the maildrop was closed meanwhile")
            if fetched.rest is not None:
                held.fetched = fetched
            pieces = Pieces(fetched.block, fetched.rest is not None, fetched.ahead)
            return _Answer(Kind.MESSAGES, messages.write_pieces(pieces))

        return work()

    def _more(self, _frame: Frame, fields: Reader) -> _Work:
        number = fields.count(messages.MAX_DROP)
        fields.end()

        async def work() -> _Answer:
            held, _ = await self._drop(number)
            block = await held.fetched.next_block() if held.fetched else b""
            if not block:
                held.forget_message()
            return _Answer(Kind.MESSAGES, messages.write_pieces(Pieces(block, bool(block), {})))

        return work()

    def _remove(self, _frame: Frame, fields: Reader) -> _Work:
        number = fields.count(messages.MAX_DROP)

        async def work() -> _Answer:
            _, drop = await self._drop(number)
            indexes = messages.read_indexes(fields, len(drop.messages))
            await drop.remove(indexes)
            return _Answer(Kind.DONE)

        return work()

    def _close(self, _frame: Frame, fields: Reader) -> None:
        """There is no answer: nobody waits for it."""
        number = fields.count(messages.MAX_DROP)
        fields.end()
        held = self._drops.pop(number, None)
        if held is not None:
            held.release()

    async def _drop(self, number: int) -> tuple[_Drop, MaildirDrop]:
        held = self._drops.get(number)
        if held is None:
            raise MaildropUnavailable("the maildrop is closed")
        return held, await asyncio.shield(held.opening)

    # Files

    def _dot_qmail(self, _frame: Frame, fields: Reader) -> _Work:
        account = messages.read_account(fields, self._owner)
        extension = fields.text(messages.MAX_NAME)
        fields.end()

        async def work() -> _Answer:
            found = await self._tools.files.dot_qmail(account, extension)
            out = Writer()
            messages.write_dot_qmail(out, found)
            return _Answer(Kind.FILE, (out.octets(),))

        return work()


def _content(message: Message, frame: Frame, fields: Reader) -> Content:
    """The body is what is left of the frame, or the file that came with it."""
    body = fields.rest()
    return message.content(body if frame.descriptor < 0 else frame.descriptor)


def _answer_of(work: _UnderWay) -> _Answer:
    """What the worker is told, now that it is done."""
    try:
        found = work.result()
        return found if isinstance(found, _Answer) else _outcomes(found)
    except Exception as error:  # noqa: BLE001 - failure_of logs what is a bug
        return _Answer(Kind.FAILED, (failure_of(error),))


def _outcomes(outcomes: Sequence[Outcome]) -> _Answer:
    out = Writer()
    messages.write_outcomes(out, outcomes)
    return _Answer(Kind.OUTCOMES, (out.octets(),))


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)

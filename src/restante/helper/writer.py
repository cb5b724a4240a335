"""A MailboxWriter whose work is done by the owners' helpers."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from typing import Any

from restante import maillog
from restante.directory import Account
from restante.envelope import Content, Envelope
from restante.errors import TemporaryError
from restante.helper import Crowded, IdsRefused, NoHelper, messages
from restante.helper.pool import PATIENCE, Helpers, Link, Place
from restante.helper.wire import BadFrame, Frame, Kind, Reader, Writer
from restante.mda import Delivery, MboxDelivery, ProgramDelivery, Ran
from restante.mda.answers import CLOSING, MISCONFIGURED, NOT_NOW
from restante.records import record
from restante.status import Delivered, Outcome, TemporaryFailure

QUEUEING = 300.0
"""Seconds that a command may wait for others of its user to end, and be ended itself."""
CROWD_PAUSE = PATIENCE
"""Seconds after which what stood back for others is tried again. By then the helper or the disk is
at work again, or has been silent for so long that an attempt may fail of it."""
MAX_DOUBTS = 10_000
"""Messages of which is remembered that an answer about them was lost."""

_Outcomes = tuple[Outcome, ...]


@record
class _Part:
    """Deliveries for one helper, few enough for one request, and where each stands in the call."""

    account: Account
    deliveries: Sequence[Delivery]
    places: Sequence[int]


class _Work:
    """How many calls are under way: each is within ``with``."""

    __slots__ = ("_calls", "_idle")

    def __init__(self) -> None:
        self._calls = 0
        self._idle = asyncio.Event()

    def __enter__(self) -> None:
        self._calls += 1

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()

    async def ended(self) -> None:
        """Wait until there is none."""
        while self._calls:
            self._idle.clear()
            await self._idle.wait()


class HelperWriter:
    """See MailboxWriter. Belongs to one event loop.

    Where a helper's answer is lost, nobody knows what it has done: that is a temporary failure,
    and the next attempt looks for what was delivered, whether it is told to or not.
    """

    def __init__(self, helpers: Helpers, longest_command: float = 300.0) -> None:
        """``longest_command``: programs.timeout."""
        self._helpers = helpers
        self._run_patience = longest_command + QUEUEING
        self._doubts: OrderedDict[str, None] = OrderedDict()
        """Ids of messages of which ``doubts`` is true."""
        self._work = _Work()
        self._is_closing = False

    async def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Outcome:
        """See MailboxWriter."""
        if self._is_closing:
            return TemporaryFailure(CLOSING)
        with self._work:
            parts = self._parts(deliveries)
            try:
                # All of them first: whoever cannot be had is not to cost what others have done.
                links = [await self._helpers.link(part.account) for part in parts]
            except Exception as error:  # noqa: BLE001 - _failure logs what is a bug
                return _failure(error)
            outcomes = await _all_of(
                [
                    self._deliver(link, envelope, content, part, together=True, again=False)
                    for link, part in zip(links, parts, strict=True)
                ]
            )
            failures = [each for (each,) in outcomes if not isinstance(each, Delivered)]
            if not failures:
                single = outcomes[0][0] if len(parts) == 1 else None
                return single or Delivered(f"{len(deliveries)} mailboxes")
            # Where an answer was lost, the next attempt looks: what hangs might withdraw it later.
            delivered = [
                part
                for part, (outcome,) in zip(parts, outcomes, strict=True)
                if isinstance(outcome, Delivered)
            ]
            await self._withdraw_all(envelope, content, delivered)
            return failures[0]

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> _Outcomes:
        """See MailboxWriter."""
        outcomes: list[Outcome] = [TemporaryFailure(CLOSING)] * len(deliveries)
        if self._is_closing:
            return tuple(outcomes)
        with self._work:
            again = again or self.doubts(envelope)
            parts = self._parts(deliveries)
            found = await _all_of(
                [self._deliver_part(envelope, content, part, again=again) for part in parts]
            )
        for part, answers in zip(parts, found, strict=True):
            for place, outcome in zip(part.places, answers, strict=True):
                outcomes[place] = outcome
        return tuple(outcomes)

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        """See MailboxWriter."""
        if self._is_closing:
            return TemporaryFailure(CLOSING)
        with self._work:
            out = Writer()
            try:
                out.flag(again or self.doubts(envelope))
                messages.write_message(out, envelope, content, (mbox,))
                messages.write_mbox(out, mbox)
                link = await self._helpers.link(mbox.account)
                return (await self._request(link, Kind.APPEND, out, envelope, content, 1))[0]
            except Exception as error:  # noqa: BLE001 - _failure logs what is a bug
                return _failure(error)

    async def run(self, envelope: Envelope, content: Content, program: ProgramDelivery) -> Ran:
        """See MailboxWriter."""
        if self._is_closing:
            return Ran(TemporaryFailure(CLOSING))
        with self._work:
            out = Writer()
            try:
                messages.write_message(out, envelope, content, (program,))
                messages.write_program(out, program)
                link = await self._helpers.link(program.account)
                frame = await _send(link, Kind.RUN, out, content, patience=self._run_patience)
                return messages.read_ran(_fields(frame, Kind.RAN))
            except Exception as error:  # noqa: BLE001 - _failure logs what is a bug
                return Ran(_failure(error))

    async def withdraw(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> None:
        """As ``BatchWriter.withdraw``."""
        with self._work:
            await self._withdraw_all(envelope, content, self._parts(deliveries))

    def doubt(self, envelope: Envelope) -> None:
        """Let every later attempt look for what was delivered, whether it is told to or not."""
        self._doubts[envelope.queue_id] = None
        while len(self._doubts) > MAX_DOUBTS:
            self._doubts.popitem(last=False)

    def doubts(self, envelope: Envelope) -> bool:
        """Whether the message may be in mailboxes though nobody was told so."""
        return envelope.queue_id in self._doubts

    async def close(self) -> None:
        """See MailboxWriter."""
        self._is_closing = True
        await self._work.ended()

    def _parts(self, deliveries: Sequence[Delivery]) -> list[_Part]:
        """The deliveries by helper, and no more of them together than a request takes."""
        if len(deliveries) == 1:
            return [_Part(deliveries[0].account, deliveries, (0,))]
        parts: list[_Part] = []
        helpers: dict[Place, list[int]] = {}
        for place, each in enumerate(deliveries):
            helpers.setdefault(self._helpers.place_of(each.account), []).append(place)
        for places in helpers.values():
            for first in range(0, len(places), messages.MAX_DELIVERIES):
                some = places[first : first + messages.MAX_DELIVERIES]
                theirs = [deliveries[place] for place in some]
                parts.append(_Part(theirs[0].account, theirs, some))
        return parts

    async def _deliver_part(
        self, envelope: Envelope, content: Content, part: _Part, *, again: bool
    ) -> _Outcomes:
        try:
            self._helpers.check_share(part.account)
            link = await self._helpers.link(part.account)
        except Exception as error:  # noqa: BLE001 - _failure logs what is a bug
            return (_failure(error),) * len(part.deliveries)
        return await self._deliver(link, envelope, content, part, together=False, again=again)

    async def _deliver(
        self,
        link: Link,
        envelope: Envelope,
        content: Content,
        part: _Part,
        *,
        together: bool,
        again: bool,
    ) -> _Outcomes:
        """One outcome for each delivery, or for all of them together; raises nothing."""
        expected = 1 if together else len(part.deliveries)
        out = Writer()
        try:
            out.flag(together)
            out.flag(again)
            messages.write_message(out, envelope, content, part.deliveries)
            messages.write_deliveries(out, part.deliveries)
            # What comes in parts is the queue's.
            return await self._request(
                link, Kind.DELIVER, out, envelope, content, expected, has_place=not together
            )
        except Exception as error:  # noqa: BLE001 - _failure logs what is a bug
            return (_failure(error),) * expected

    async def _request(
        self,
        link: Link,
        kind: Kind,
        out: Writer,
        envelope: Envelope,
        content: Content,
        expected: int,
        *,
        has_place: bool = False,
    ) -> _Outcomes:
        """So many outcomes as are expected; a lost answer makes a doubt of the message."""
        try:
            frame = await _send(link, kind, out, content, has_place=has_place)
            outcomes = messages.read_outcomes(_fields(frame, Kind.OUTCOMES))
        except (NoHelper, BadFrame):
            self.doubt(envelope)
            raise
        if len(outcomes) != expected:
            self.doubt(envelope)
            raise BadFrame(f"{len(outcomes)} outcomes, {expected} were expected")
        return outcomes

    async def _withdraw_all(
        self, envelope: Envelope, content: Content, parts: Sequence[_Part]
    ) -> None:
        """Take back what was delivered, and doubt it: a reader may have moved it to ``cur``."""
        if parts:
            self.doubt(envelope)
            await asyncio.gather(*(self._withdraw(envelope, content, part) for part in parts))

    async def _withdraw(self, envelope: Envelope, content: Content, part: _Part) -> None:
        out = Writer()
        with contextlib.suppress(TemporaryError):
            messages.write_message(out, envelope, content, ())
            messages.write_deliveries(out, part.deliveries)
            link = await self._helpers.link(part.account)
            _fields(await link.request(Kind.WITHDRAW, [out.octets()]), Kind.DONE)


def _send(
    link: Link,
    kind: Kind,
    out: Writer,
    content: Content,
    *,
    patience: float = PATIENCE,
    has_place: bool = False,
) -> Coroutine[Any, Any, Frame]:
    """A request that ends with the body: its octets, or a file that has them."""
    body = content.body
    if isinstance(body, bytes) and len(body) <= messages.MAX_INLINE:
        return link.request(kind, (out.octets(), body), patience=patience, has_place=has_place)
    return link.request(
        kind, (out.octets(),), _as_file(body), patience=patience, has_place=has_place
    )


def _as_file(body: bytes | str | int) -> int:
    """A descriptor of a file that holds the body; raises OSError."""
    if isinstance(body, int):
        return os.dup(body)
    if isinstance(body, str):
        return os.open(body, os.O_RDONLY | os.O_CLOEXEC)
    descriptor = os.memfd_create("body", os.MFD_CLOEXEC)
    try:
        rest = memoryview(body)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _fields(frame: Frame, kind: Kind) -> Reader:
    if frame.kind != kind:
        raise BadFrame(f"an answer of kind {frame.kind} to what {kind.name} answers")
    return Reader(frame.body)


async def _all_of(works: Sequence[Coroutine[None, None, _Outcomes]]) -> list[_Outcomes]:
    """All of them at the same time; the only one there is needs no task."""
    return [await works[0]] if len(works) == 1 else await asyncio.gather(*works)


def _failure(error: Exception) -> TemporaryFailure:
    if isinstance(error, TemporaryError | OSError):
        reply = MISCONFIGURED if isinstance(error, IdsRefused) else NOT_NOW
        pause = CROWD_PAUSE if isinstance(error, Crowded) else 0.0
        return TemporaryFailure(reply, str(error), pause=pause)
    maillog.unplanned("helper's writer", error)
    return TemporaryFailure(NOT_NOW, "an unplanned exception, see the log")

"""The worker's connections to helpers: one for each uid and gid, opened when it is needed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from restante import maillog
from restante.directory import Account
from restante.helper import Crowded, IdsRefused, NoHelper, Supplied, Supplier
from restante.helper.channel import Channel
from restante.helper.failures import read_failure
from restante.helper.messages import MAX_TEXT, Owner
from restante.helper.wire import LASTING, BadFrame, Frame, Kind, Reader
from restante.mounts import FarPlaces

MAX_NUMBER = 2**31 - 1
"""Requests are numbered up to here, and then from 1 again."""
MAX_REMARK = 4096
"""Characters of a helper's line that are logged."""
MOST_REMARKS = 100
"""Lines of one connection that are logged ..."""
REMARKS_INTERVAL = 60.0
"""... in so many seconds; who has taken a helper over could fill the disk."""

PATIENCE = 120.0
"""Seconds until a helper has to have answered, sent a part of its answer, or given a sign of life.
Whoever owns the mailbox can stop its helper, or let it wait for a file system of their own."""
MOST_PATIENCE = 6 * 3600.0
"""Seconds until it has to have answered, whatever it said meanwhile."""
SULK = 60.0
"""Seconds for which nothing is asked of the helper of a uid that did not answer in time."""
CROWDED = 10.0
"""Seconds after which what waits for one helper takes places of the queue's from others, if it is
more than its share, and nothing has been answered for as long: who is at work is only busy."""
MAX_GIVEN_UP = 100
"""Requests of one connection that were given up and may be answered yet."""
LOOK_INTERVAL = 5.0
"""Seconds between two looks at what takes too long, at most."""

Place = tuple[Owner, str]
"""Whose helper, and the network file system (restante.mounts) for whose homes it is: one that
hangs holds up nobody whose home is elsewhere."""

CROWD = "others wait for it already"

OnPart = Callable[[Frame], None]
"""Takes the parts of an answer that come before its last one; may raise BadFrame."""

_ON_THE_WAY = frozenset((Kind.LISTING, Kind.WORKING))
"""What may come before an answer."""


@dataclass(slots=True)
class _Pending:
    """A request whose answer is to come."""

    answer: asyncio.Future[Frame]
    on_part: OnPart | None
    may_last: bool
    patience: float
    begun: float
    """In the loop's time."""
    until: float
    """When it is given up ..."""
    at_the_latest: float
    """... and when it is whatever the helper says of it until then."""
    has_place: bool
    """Whether it holds a place that others wait for."""


class _Remarks:
    """The lines of one helper, which are logged up to a number, and beyond that counted."""

    def __init__(self, uid: int) -> None:
        self._uid = uid
        self._count = 0
        self._until = 0.0

    def take(self, text: str, now: float) -> None:
        """Log a line, or leave it out; ``now``: the loop's time."""
        if now >= self._until:
            self.settle()
            self._until = now + REMARKS_INTERVAL
        self._count += 1
        if self._count <= MOST_REMARKS:
            maillog.helper_remark(self._uid, text[:MAX_REMARK])

    def settle(self) -> None:
        """Log how many were left out."""
        if self._count > MOST_REMARKS:
            maillog.helper_remark(self._uid, f"{self._count - MOST_REMARKS} lines were left out")
        self._count = 0


class Link:
    """One connection to one helper."""

    def __init__(self, supplied: Supplied, owner: Owner, on_end: Callable[[Link], None]) -> None:
        self.owner = owner
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(
            supplied.connection, self._take, self._lose, takes_descriptors=False
        )
        self._pending: dict[int, _Pending] = {}
        self._given_up: set[int] = set()
        """Requests that nobody waits for any more, and that the helper has not answered."""
        self._number = 0
        self._is_asked_back = False
        self._remarks = _Remarks(owner.uid)
        self._why = ""
        self.last_used = self._loop.time()
        self.last_answer = 0.0
        """In the loop's time. A sign of life is none: who waits for a disk gives those, too."""
        self.drops = 0
        """Maildrops that are open by way of this connection."""

    @property
    def is_usable(self) -> bool:
        """Whether it takes requests that begin something new."""
        return self._channel.is_open and not self._is_asked_back

    @property
    def is_unused(self) -> bool:
        """Whether nothing is under way on it."""
        return not self._pending and not self.drops

    def next_number(self) -> int:
        """A number that no request under way has."""
        while True:
            self._number = self._number % MAX_NUMBER + 1
            if self._number not in self._pending and self._number not in self._given_up:
                return self._number

    async def request(
        self,
        kind: Kind,
        buffers: Sequence[bytes],
        descriptor: int = -1,
        *,
        number: int = 0,
        on_part: OnPart | None = None,
        patience: float = PATIENCE,
        has_place: bool = False,
    ) -> Frame:
        """The answer, whatever its kind is but FAILED.

        Raises what the helper says it failed of, BadFrame, and NoHelper if the connection ends
        first, or nothing of an answer comes for ``patience`` seconds: then nobody knows what was
        done, or will be. So it is with one that ``has_place`` of a few, when others for the same
        helper have waited for longer.
        ``descriptor`` belongs to the link from here on.
        """
        if not self._channel.is_open:
            if descriptor >= 0:
                os.close(descriptor)
            raise NoHelper(self._text(self._why))
        number = number or self.next_number()
        waiting = self._expect(number, kind, on_part, patience, has_place)
        try:
            alone = len(self._pending) == 1  # others may come to be sent with it
            self._channel.send(number, kind, buffers, descriptor, at_once=alone)
        except BadFrame:
            del self._pending[number]
            raise
        # However much waits to be sent before it: who waits for the answer waits for that, too.
        frame = await waiting.answer
        if frame.kind == Kind.FAILED:
            raise read_failure(Reader(frame.body))
        return frame

    def tell(self, kind: Kind, buffers: Sequence[bytes]) -> None:
        """A word that is not answered; on its way on return, ahead of whatever follows."""
        if self._channel.is_open:
            self._channel.send(0, kind, buffers, at_once=True)

    def close(self) -> None:
        """End the connection; what is under way on it fails."""
        if self._channel.is_open:
            self._channel.close()
            self._lose("it was closed")

    def settle(self) -> None:
        """End a connection that is unused and wanted back."""
        if self._is_asked_back and self.is_unused:
            self.close()

    def give_up_if_late(self) -> bool:
        """Give up what is not answered in time; whether that is the helper, which is silent.

        One that has said anything since it got the request is at work for others, whose requests
        stay.
        """
        now = self._loop.time()
        late = [number for number, waiting in self._pending.items() if waiting.until <= now]
        if not late:
            return False
        is_silent = any(self.last_used <= self._pending[number].begun for number in late)
        if is_silent or len(self._given_up) + len(late) > MAX_GIVEN_UP:
            self._why = "it does not answer"
            self.close()
            return True
        for number in late:
            self.give_up(number, NoHelper(self._text("it does not answer this request")))
        return False

    def holding(self, since: float) -> list[tuple[float, int]]:
        """When requests were made that have held a place ``since`` then, and their numbers."""
        return [
            (waiting.begun, number)
            for number, waiting in self._pending.items()
            if waiting.has_place and waiting.begun <= since
        ]

    def make_room(self, number: int) -> None:
        """Give up what has held a place for long, since others hold as many as they may."""
        self.give_up(number, Crowded(self._text(CROWD)))

    def give_up(self, number: int, why: NoHelper) -> None:
        """Nobody waits for the answer any more."""
        self._given_up.add(number)
        _fail(self._pending.pop(number), why)

    def _expect(
        self, number: int, kind: Kind, on_part: OnPart | None, patience: float, has_place: bool
    ) -> _Pending:
        now = self._loop.time()
        answer: asyncio.Future[Frame] = self._loop.create_future()
        until, at_the_latest = now + patience, now + MOST_PATIENCE
        waiting = _Pending(
            answer, on_part, kind in LASTING, patience, now, until, at_the_latest, has_place
        )
        self._pending[number] = waiting
        return waiting

    def _take(self, frame: Frame) -> None:
        if frame.number == 0:
            self._take_unasked(frame)
            return
        waiting = self._pending.get(frame.number)
        if waiting is None:
            self._take_late(frame)
            return
        self.last_used = self._loop.time()
        if frame.kind in _ON_THE_WAY:
            _take_on_the_way(waiting, frame)
            waiting.until = min(self.last_used + waiting.patience, waiting.at_the_latest)
            return
        self.last_answer = self.last_used
        del self._pending[frame.number]
        if not waiting.answer.done():
            waiting.answer.set_result(frame)
        if self._is_asked_back:
            self.settle()

    def _take_late(self, frame: Frame) -> None:
        if frame.number not in self._given_up:
            raise BadFrame("an answer that nobody asked for")
        if frame.kind not in _ON_THE_WAY:
            self.last_answer = self._loop.time()
            self._given_up.remove(frame.number)

    def _take_unasked(self, frame: Frame) -> None:
        if frame.kind == Kind.GOODBYE:
            self._is_asked_back = True
            self.settle()
            return
        text = Reader(frame.body).told(MAX_TEXT)
        if frame.kind == Kind.REFUSED:
            self._why = text
        elif frame.kind == Kind.REMARK:
            self._remarks.take(text, self._loop.time())
        else:
            raise BadFrame(f"a frame of kind {frame.kind} under number 0")

    def _lose(self, why: str) -> None:
        self._why = self._why or why
        self._remarks.settle()
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            _fail(waiting, NoHelper(self._text(self._why)))
        self._on_end(self)

    def _text(self, why: str) -> str:
        return f"the helper of uid {self.owner.uid}: {why}"


def _fail(waiting: _Pending, why: NoHelper) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(why)
        waiting.answer.exception()  # if nobody waits for it, that is no bug


def _take_on_the_way(waiting: _Pending, frame: Frame) -> None:
    if frame.kind == Kind.WORKING:
        if frame.body or not waiting.may_last:
            raise BadFrame("a sign of life that nobody asked for")
    elif waiting.on_part is None:
        raise BadFrame("a part of what nobody asked for")
    else:
        waiting.on_part(frame)


class Helpers:
    """Links by uid, gid and file system. Belongs to one event loop."""

    def __init__(
        self,
        supplier: Supplier,
        idle: float,
        places: FarPlaces | None = None,
        objection: Callable[[int, int], str] | None = None,
        share: int = 5,
    ) -> None:
        """``idle``: seconds that an unused connection is kept. ``objection``: as that of Limits.

        ``share``: requests that may hold a place for long, of one helper, or of all for one file
        system.
        """
        self._supplier = supplier
        self._objection = objection
        self._idle = idle
        self._share = share
        self._places = places or FarPlaces()
        self._links: dict[Place, Link] = {}
        self._sulking: dict[Place, float] = {}
        """Whose helpers did not answer in time, and when they are asked again."""
        self._crowded: set[Place | str] = set()
        """Whose share was taken at the last look."""
        self._opening: dict[Place, asyncio.Task[Link]] = {}
        self._all: dict[Link, Place] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_closed = False

    def place_of(self, account: Account) -> Place:
        """Which helper is the account's."""
        return Owner(account.uid, account.gid), self._places.of(account.home)

    def check_share(self, account: Account) -> None:
        """Raise Crowded if what holds a place there has waited for long, and takes its share."""
        if self._crowded and not self._crowded.isdisjoint(_names(self.place_of(account))):
            raise Crowded(f"the helper of uid {account.uid}: {CROWD}")

    async def link(self, account: Account) -> Link:
        """A usable connection to the helper of the account; raises NoHelper."""
        place = self.place_of(account)
        link = self._links.get(place)
        if link is not None and link.is_usable:
            return link
        opening = self._opening.get(place)
        if opening is None:
            opening = asyncio.create_task(self._open(account, place))
            self._opening[place] = opening
            opening.add_done_callback(partial(self._opened, place))
        return await asyncio.shield(opening)

    async def close(self) -> None:
        """End all connections."""
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for opening in list(self._opening.values()):
            opening.cancel()
        for link in list(self._all):
            link.close()

    async def _open(self, account: Account, place: Place) -> Link:
        owner, _ = place
        if self._is_closed:
            raise NoHelper("the server shuts down")
        if self._objection is not None and (why := self._objection(*owner)):
            raise IdsRefused(f"{account.name}: {why}")
        if self._sulking.get(place, 0.0) > asyncio.get_running_loop().time():
            raise NoHelper(f"the helper of uid {owner.uid} has not answered lately")
        supplied = await self._supplier.supply(account)
        if (supplied.uid, supplied.gid) != (owner.uid, owner.gid):
            supplied.connection.close()
            raise NoHelper(
                f"{account.name} was looked up with uid {owner.uid} and gid {owner.gid}, and has"
                f" {supplied.uid} and {supplied.gid} now"
            )
        link = Link(supplied, owner, self._forget)
        self._links[place] = link
        self._all[link] = place
        if self._sweeping is None:
            self._sweep()
        return link

    def _opened(self, place: Place, opening: asyncio.Task[Link]) -> None:
        del self._opening[place]
        if not opening.cancelled():
            opening.exception()  # if nobody waits for it any more, that is no bug

    def _forget(self, link: Link) -> None:
        self._all.pop(link, None)
        for place, known in list(self._links.items()):
            if known is link:
                del self._links[place]

    def _sweep(self) -> None:
        """Close what is late, and what has not been used for long; from now on again and again."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._sulking = {place: until for place, until in self._sulking.items() if until > now}
        for link, place in list(self._all.items()):
            if link.give_up_if_late():
                self._sulking[place] = now + SULK
            elif link.is_unused and now - link.last_used >= self._idle:
                link.close()
        self._make_room(now - CROWDED)
        interval = min(self._idle / 2, LOOK_INTERVAL)
        self._sweeping = loop.call_later(interval, self._sweep) if self._all else None

    def _make_room(self, since: float) -> None:
        """Give up what has held a place since then beyond the share that one may take.

        Of what has answered nothing since then: a file system with all whose homes are there, or
        one helper.
        """
        at_work: set[Place | str] = {""}
        for link, place in self._all.items():
            if link.last_answer > since:
                at_work.update(_names(place))
        holding: dict[Place | str, list[tuple[float, int, Link]]] = {}
        for link, place in self._all.items():
            if place not in at_work:
                silent = place if place[1] in at_work else place[1]
                for begun, number in link.holding(since):
                    holding.setdefault(silent, []).append((begun, number, link))
        self._crowded = {each for each, those in holding.items() if len(those) >= self._share}
        for each in self._crowded:
            for _, number, link in sorted(holding[each], key=lambda one: one[:2])[self._share :]:
                link.make_room(number)


def _names(place: Place) -> tuple[Place | str, ...]:
    """What may hang there: the helper, and the file system."""
    return place, place[1]

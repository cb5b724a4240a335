"""The worker's connections to helpers: one for each uid and gid, opened when it is needed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from restante import maillog
from restante.directory import Account
from restante.helper import NoHelper, Supplied, Supplier
from restante.helper.channel import Channel
from restante.helper.failures import read_failure
from restante.helper.messages import MAX_TEXT, Owner
from restante.helper.wire import BadFrame, Frame, Kind, Reader

MAX_NUMBER = 2**31 - 1
"""Requests are numbered up to here, and then from 1 again."""
MAX_REMARK = 4096
"""Characters of a helper's line that are logged."""

OnPart = Callable[[Frame], None]
"""Takes the parts of an answer that come before its last one; may raise BadFrame."""


class Link:
    """One connection to one helper."""

    def __init__(self, supplied: Supplied, owner: Owner, on_end: Callable[[Link], None]) -> None:
        self._owner = owner
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(
            supplied.connection, self._take, self._lose, takes_descriptors=False
        )
        self._pending: dict[int, tuple[asyncio.Future[Frame], OnPart | None]] = {}
        self._number = 0
        self._is_asked_back = False
        self._why = ""
        self.last_used = self._loop.time()
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
            if self._number not in self._pending:
                return self._number

    async def request(
        self,
        kind: Kind,
        buffers: Sequence[bytes],
        descriptor: int = -1,
        *,
        number: int = 0,
        on_part: OnPart | None = None,
    ) -> Frame:
        """The answer, whatever its kind is but FAILED.

        Raises what the helper says it failed of, BadFrame, and NoHelper if the connection ends
        first: then nobody knows what was done. ``descriptor`` belongs to the link from here on.
        """
        if not self._channel.is_open:
            if descriptor >= 0:
                os.close(descriptor)
            raise NoHelper(self._lost_text())
        number = number or self.next_number()
        answer: asyncio.Future[Frame] = self._loop.create_future()
        self._pending[number] = (answer, on_part)
        try:
            self._channel.send(number, kind, buffers, descriptor)
        except BadFrame:
            del self._pending[number]
            raise
        await self._channel.drain()
        frame = await answer
        if frame.kind == Kind.FAILED:
            raise read_failure(Reader(frame.body))
        return frame

    def tell(self, kind: Kind, buffers: Sequence[bytes]) -> None:
        """A request whose answer nobody waits for."""
        if self._channel.is_open:
            number = self.next_number()
            self._pending[number] = (self._loop.create_future(), None)
            self._channel.send(number, kind, buffers)

    def close(self) -> None:
        """End the connection; what is under way on it fails."""
        if self._channel.is_open:
            self._channel.close()
            self._lose("it was closed")

    def settle(self) -> None:
        """End a connection that is unused and wanted back."""
        if self._is_asked_back and self.is_unused:
            self.close()

    def _take(self, frame: Frame) -> None:
        if frame.number == 0:
            self._take_unasked(frame)
            return
        waiting = self._pending.get(frame.number)
        if waiting is None:
            raise BadFrame("an answer that nobody asked for")
        answer, on_part = waiting
        if frame.kind == Kind.LISTING:
            if on_part is None:
                raise BadFrame("a part of what nobody asked for")
            on_part(frame)
            return
        del self._pending[frame.number]
        self.last_used = self._loop.time()
        if not answer.done():
            answer.set_result(frame)
        self.settle()

    def _take_unasked(self, frame: Frame) -> None:
        if frame.kind == Kind.GOODBYE:
            self._is_asked_back = True
            self.settle()
            return
        text = Reader(frame.body).text(MAX_TEXT)
        if frame.kind == Kind.REFUSED:
            self._why = text
        elif frame.kind == Kind.REMARK:
            maillog.helper_remark(self._owner.uid, text[:MAX_REMARK])
        else:
            raise BadFrame(f"a frame of kind {frame.kind} under number 0")

    def _lose(self, why: str) -> None:
        self._why = self._why or why
        pending, self._pending = self._pending, {}
        for answer, _ in pending.values():
            if not answer.done():
                answer.set_exception(NoHelper(self._lost_text()))
                answer.exception()  # whoever waits is told; if nobody does, that is no bug
        self._on_end(self)

    def _lost_text(self) -> str:
        return f"the helper of uid {self._owner.uid}: {self._why}"


class Helpers:
    """Links by uid and gid. Belongs to one event loop."""

    def __init__(self, supplier: Supplier, idle: float) -> None:
        """``idle``: seconds that an unused connection is kept."""
        self._supplier = supplier
        self._idle = idle
        self._links: dict[Owner, Link] = {}
        self._opening: dict[Owner, asyncio.Task[Link]] = {}
        self._all: set[Link] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def link(self, account: Account) -> Link:
        """A usable connection to the helper of the account's uid and gid; raises NoHelper."""
        owner = Owner(account.uid, account.gid)
        link = self._links.get(owner)
        if link is not None and link.is_usable:
            return link
        opening = self._opening.get(owner)
        if opening is None:
            opening = asyncio.create_task(self._open(account, owner))
            self._opening[owner] = opening
            opening.add_done_callback(lambda _: self._opening.pop(owner, None))
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

    async def _open(self, account: Account, owner: Owner) -> Link:
        if self._is_closed:
            raise NoHelper("the server shuts down")
        supplied = await self._supplier.supply(account)
        if (supplied.uid, supplied.gid) != (owner.uid, owner.gid):
            supplied.connection.close()
            raise NoHelper(
                f"{account.name} was looked up with uid {owner.uid} and gid {owner.gid}, and has"
                f" {supplied.uid} and {supplied.gid} now"
            )
        link = Link(supplied, owner, self._forget)
        self._links[owner] = link
        self._all.add(link)
        if self._sweeping is None:
            self._sweep()
        return link

    def _forget(self, link: Link) -> None:
        self._all.discard(link)
        for owner, known in list(self._links.items()):
            if known is link:
                del self._links[owner]

    def _sweep(self) -> None:
        """Close what has not been used for long, from now on again and again."""
        loop = asyncio.get_running_loop()
        for link in list(self._all):
            if link.is_unused and loop.time() - link.last_used >= self._idle:
                link.close()
        self._sweeping = loop.call_later(self._idle / 2, self._sweep) if self._all else None

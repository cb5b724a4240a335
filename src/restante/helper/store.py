"""A MailStore whose maildrops are held, read and changed by their owners' helpers."""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass

from restante.directory import Account
from restante.errors import TemporaryError
from restante.helper.messages import (
    MAX_MESSAGES,
    Pieces,
    drop_number,
    read_listed,
    read_opened,
    read_pieces,
    write_indexes,
    write_open,
)
from restante.helper.pool import Helpers, Link, OnPart
from restante.helper.wire import BadFrame, Frame, Kind, Writer
from restante.store import (
    Maildrop,
    MaildropInUse,
    MaildropUnavailable,
    MessageGone,
    Messages,
)
from restante.store.columns import Column
from restante.store.maildir import READ_AHEAD
from restante.store.recollection import Memory
from restante.store.scan import PER_LISTING

LISTINGS = 16 * 1024 * 1024
"""Octets of all listings that a worker keeps for the sessions that come while nothing changes."""

_Place = tuple[int, int, str]
"""A helper speaks for its own uid and gid, and for the homes of accounts that have these."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a helper told of a maildrop."""

    version: bytes
    messages: Messages
    octets: int
    """What it takes in memory, about."""


_NOTHING = _Listed(b"", Messages(), 0)


class _Parts:
    """A listing that comes in parts."""

    __slots__ = ("_sizes", "_uids")

    def __init__(self) -> None:
        self._uids = Column()
        self._sizes = array("Q")

    def add(self, listed: Messages) -> None:
        """One more; raises BadFrame."""
        self._uids.extend(listed.uids)
        self._sizes.extend(listed.sizes)
        if len(self._sizes) > MAX_MESSAGES:
            raise BadFrame(f"more than {MAX_MESSAGES} messages")

    def whole(self, version: bytes) -> _Listed:
        """All of them."""
        octets = PER_LISTING + self._uids.octets + len(self._sizes) * self._sizes.itemsize
        return _Listed(version, Messages(self._uids, self._sizes), octets)


class HelperStore:
    """See MailStore. Belongs to one event loop."""

    def __init__(self, helpers: Helpers) -> None:
        self._helpers = helpers
        self._listings: Memory[_Place, _Listed] = Memory(LISTINGS)

    async def open(self, account: Account) -> Maildrop:
        """See ``MailStore.open``."""
        place = account.uid, account.gid, account.home
        known = self._listings.of(place)
        try:
            request = write_open(account, known.version if known else b"")
            link = await self._helpers.link(account)
        except TemporaryError as error:
            raise MaildropUnavailable(str(error)) from error
        drop = HelperDrop(link, known)
        await drop.open(request)
        if drop.listed is not known:
            self._keep(place, drop.listed)
        return drop

    def _keep(self, place: _Place, listed: _Listed) -> None:
        if listed.version:
            self._listings.keep(place, listed, listed.octets)
        else:
            self._listings.forget(place)


class HelperDrop:
    """A maildrop that a helper has open."""

    __slots__ = ("_ahead", "_is_open", "_known", "_link", "_named", "_next", "_parts", "listed")

    def __init__(self, link: Link, known: _Listed | None) -> None:
        """``known``: what was told of the maildrop last; the helper says whether it still is so."""
        self._link = link
        self._known = known
        self._parts: _Parts | None = None
        self._is_open = False
        self._named = b""
        """How a request names the maildrop that it is about."""
        self._next = -1
        self._ahead: dict[int, bytes] = {}
        self.listed = _NOTHING

    @property
    def messages(self) -> Messages:
        """See ``Maildrop.messages``."""
        return self.listed.messages

    async def open(self, request: bytes) -> None:
        """Once, at first; raises MaildropInUse and MaildropUnavailable."""
        number = self._link.next_number()
        self._named = drop_number(number)
        self._is_open = True
        self._link.drops += 1
        try:
            frame = await self._request(Kind.OPEN, request, number=number, on_part=self._list)
        except BaseException:
            # The helper may be about to open it: the word that it is to close follows.
            self._link.tell(Kind.CLOSE, (self._named,))
            self._forget()
            raise
        try:
            self._opened(frame)
        except MaildropUnavailable:
            self.close()  # whatever it meant, the helper may have the maildrop open
            raise

    def _opened(self, frame: Frame) -> None:
        if frame.kind == Kind.UNCHANGED and self._known is not None:
            self.listed = self._known
            return
        _expect(frame, Kind.OPEN, Kind.OPENED)
        try:
            version, last = read_opened(frame.body)
            self.listed = self._add(last).whole(version)
        except BadFrame as error:
            raise MaildropUnavailable(str(error)) from error

    def at_hand(self, index: int) -> bytes | None:
        """See ``Maildrop.at_hand``."""
        message = self._ahead.pop(index, None)
        if message is not None:
            self._next = index + 1
        return message

    async def read(self, index: int) -> AsyncGenerator[bytes, None]:
        """See ``Maildrop.read``."""
        if (message := self.at_hand(index)) is not None:
            yield message
            return
        in_order, self._next = index == self._next, index + 1
        out = Writer()
        out.count(index)
        out.count(READ_AHEAD if in_order else 0)
        pieces = await self._pieces(Kind.READ, self._named + out.octets())
        self._ahead = pieces.ahead
        yield pieces.block
        while pieces.more:
            pieces = await self._pieces(Kind.MORE, self._named)
            if pieces.block:
                yield pieces.block

    async def remove(self, indexes: Collection[int]) -> None:
        """See ``Maildrop.remove``."""
        if indexes:
            out = Writer()
            write_indexes(out, indexes, len(self.messages))
            await self._ask(Kind.REMOVE, self._named + out.octets(), Kind.DONE)

    def close(self) -> None:
        """See ``Maildrop.close``."""
        if not self._is_open:
            return
        self._ahead = {}
        # The next session's request comes after this, and a helper that is gone has let go of it.
        self._link.tell(Kind.CLOSE, (self._named,))
        self._forget()

    def _forget(self) -> None:
        if self._is_open:
            self._is_open = False
            self._link.drops -= 1
            self._link.settle()

    def _list(self, frame: Frame) -> None:
        self._add(read_listed(frame.body))

    def _add(self, listed: Messages) -> _Parts:
        if self._parts is None:
            self._parts = _Parts()
        self._parts.add(listed)
        return self._parts

    async def _pieces(self, kind: Kind, request: bytes) -> Pieces:
        frame = await self._ask(kind, request, Kind.MESSAGES)
        try:
            return read_pieces(frame.body)
        except BadFrame as error:
            raise MaildropUnavailable(str(error)) from error

    async def _ask(self, kind: Kind, request: bytes, answer: Kind) -> Frame:
        frame = await self._request(kind, request)
        _expect(frame, kind, answer)
        return frame

    async def _request(
        self, kind: Kind, request: bytes, *, number: int = 0, on_part: OnPart | None = None
    ) -> Frame:
        try:
            return await self._link.request(kind, (request,), number=number, on_part=on_part)
        except (MaildropInUse, MaildropUnavailable, MessageGone):
            raise
        except TemporaryError as error:
            raise MaildropUnavailable(str(error)) from error


def _expect(frame: Frame, kind: Kind, answer: Kind) -> None:
    if frame.kind != answer:
        raise MaildropUnavailable(f"a helper answered {kind.name} with {frame.kind}")

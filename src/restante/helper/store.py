"""A MailStore whose maildrops are held, read and changed by their owners' helpers."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass

from restante.directory import Account
from restante.errors import TemporaryError
from restante.helper.messages import (
    MAX_MESSAGES,
    Owner,
    Pieces,
    read_listed,
    read_opened,
    read_pieces,
    write_indexes,
    write_open,
)
from restante.helper.pool import Helpers, Link
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

_Place = tuple[Owner, str]
"""A helper speaks for its own uid and gid, and for the homes of accounts that have these."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a helper told of a maildrop."""

    version: bytes
    messages: Messages


class HelperStore:
    """See MailStore. Belongs to one event loop."""

    def __init__(self, helpers: Helpers) -> None:
        self._helpers = helpers
        self._listings: Memory[_Place, _Listed] = Memory(LISTINGS)

    async def open(self, account: Account) -> Maildrop:
        """See ``MailStore.open``."""
        place = Owner(account.uid, account.gid), account.home
        known = self._listings.of(place)
        out = Writer()
        try:
            write_open(out, account, known.version if known else b"")
            link = await self._helpers.link(account)
        except TemporaryError as error:
            raise MaildropUnavailable(str(error)) from error
        drop = HelperDrop(link, link.next_number(), known)
        await drop.open(out.octets())
        if drop.listed is not known:
            self._keep(place, drop)
        return drop

    def _keep(self, place: _Place, drop: HelperDrop) -> None:
        if drop.listed.version:
            self._listings.keep(place, drop.listed, drop.octets)
        else:
            self._listings.forget(place)


class HelperDrop:
    """A maildrop that a helper has open."""

    def __init__(self, link: Link, number: int, known: _Listed | None) -> None:
        """``known``: what was told of the maildrop last; the helper says whether it still is so."""
        self._link = link
        self._number = number
        self._known = known
        self._uids = Column()
        self._sizes = array("Q")
        self._is_open = False
        self._next = -1
        self._ahead: dict[int, bytes] = {}
        self.listed = _Listed(b"", Messages(self._uids, self._sizes))

    @property
    def messages(self) -> Messages:
        """See ``Maildrop.messages``."""
        return self.listed.messages

    @property
    def octets(self) -> int:
        """What the listing that it was told takes in memory, about."""
        return PER_LISTING + self._uids.octets + len(self._sizes) * self._sizes.itemsize

    async def open(self, request: bytes) -> None:
        """Once, at first; raises MaildropInUse and MaildropUnavailable."""
        self._is_open = True
        self._link.drops += 1
        try:
            frame = await self._request(Kind.OPEN, [request], number=self._number)
        except asyncio.CancelledError:
            # The helper may be about to open it: the word that it is to close follows.
            self._link.tell(Kind.CLOSE, [self._named().octets()])
            self._forget()
            raise
        except BaseException:
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
            self._add(last)
        except BadFrame as error:
            raise MaildropUnavailable(str(error)) from error
        self.listed = _Listed(version, Messages(self._uids, self._sizes))

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
        out = self._named()
        out.count(index)
        out.count(READ_AHEAD if in_order else 0)
        pieces = await self._pieces(Kind.READ, out)
        self._ahead = pieces.ahead
        yield pieces.block
        while pieces.more:
            pieces = await self._pieces(Kind.MORE, self._named())
            if pieces.block:
                yield pieces.block

    async def remove(self, indexes: Collection[int]) -> None:
        """See ``Maildrop.remove``."""
        if indexes:
            out = self._named()
            write_indexes(out, indexes, len(self.messages))
            await self._ask(Kind.REMOVE, [out.octets()], Kind.DONE)

    def close(self) -> None:
        """See ``Maildrop.close``."""
        if not self._is_open:
            return
        self._ahead = {}
        # The next session's request comes after this, and a helper that is gone has let go of it.
        self._link.tell(Kind.CLOSE, [self._named().octets()])
        self._forget()

    def _forget(self) -> None:
        if self._is_open:
            self._is_open = False
            self._link.drops -= 1
            self._link.settle()

    def _named(self) -> Writer:
        out = Writer()
        out.count(self._number)
        return out

    def _list(self, frame: Frame) -> None:
        self._add(read_listed(frame.body))

    def _add(self, listed: Messages) -> None:
        self._uids.extend(listed.uids)
        self._sizes.extend(listed.sizes)
        if len(self._sizes) > MAX_MESSAGES:
            raise BadFrame(f"more than {MAX_MESSAGES} messages")

    async def _pieces(self, kind: Kind, out: Writer) -> Pieces:
        frame = await self._ask(kind, [out.octets()], Kind.MESSAGES)
        try:
            return read_pieces(frame.body)
        except BadFrame as error:
            raise MaildropUnavailable(str(error)) from error

    async def _ask(self, kind: Kind, buffers: Sequence[bytes], answer: Kind) -> Frame:
        frame = await self._request(kind, buffers)
        _expect(frame, kind, answer)
        return frame

    async def _request(self, kind: Kind, buffers: Sequence[bytes], *, number: int = 0) -> Frame:
        on_part = self._list if kind is Kind.OPEN else None
        try:
            return await self._link.request(kind, buffers, number=number, on_part=on_part)
        except (MaildropInUse, MaildropUnavailable, MessageGone):
            raise
        except TemporaryError as error:
            raise MaildropUnavailable(str(error)) from error


def _expect(frame: Frame, kind: Kind, answer: Kind) -> None:
    if frame.kind != answer:
        raise MaildropUnavailable(f"a helper answered {kind.name} with {frame.kind}")

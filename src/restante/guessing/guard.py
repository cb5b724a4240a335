"""The guard of one process: looks by itself, and lets a thread write."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from restante import maillog
from restante.address import fold
from restante.config import Settings
from restante.guessing import (
    CLEAR,
    UNSUSPECTED,
    GuessesUnusable,
    Limits,
    Look,
    Standing,
    objection,
)
from restante.guessing.file import FILE_NAME, GuessFile
from restante.guessing.secret import digest, read_key
from restante.network import network_of
from restante.tally.clerk import Clerk
from restante.tally.file import BUSY_TIMEOUT

WRITE_AFTER = 5.0
"""Seconds after which logins are written down, all that came meanwhile at once."""
NOTE_AGAIN = 86400
"""Seconds after which a login from the same network is written down again."""
MAX_NOTED = 50_000
"""Pairs of account and network that are remembered as written down."""
MAX_NAME = 320
"""Characters of an account's name, or of a login."""
RETRY_AFTER = 10.0
"""Seconds to leave files alone that could not be used."""
LOOPBACK = ("127.0.0.0/8", "::1/128")
"""From here come the logins of everybody who uses a webmail on this host."""

T = TypeVar("T")


class FileGuard:
    """Implements ``restante.guessing.Guard`` on the files in a directory.

    A look is one statement on the event loop: WAL lets it read without waiting for anybody, and
    it takes some ten microseconds. A login that is right and that nobody guesses at writes
    nothing; that its network is known is gathered and written in the background, once a day.
    """

    def __init__(
        self,
        directory: str,
        limits: Limits,
        shared: Iterable[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``directory`` holds the files, or will; ``shared``: networks of many people."""
        self._directory = directory
        self._limits = limits
        self._shared = [ipaddress.ip_network(each, strict=False) for each in (*LOOPBACK, *shared)]
        self._clock = clock
        self._clerk = Clerk("guesses", self._opened, GuessesUnusable, maillog.guessing_failed)
        self._reader: GuessFile | None = None
        self._retry_at = 0.0
        self._key = b""
        self._logins = _Logins()
        self._noting: asyncio.Task[None] | None = None

    async def look(self, account: str, peer: str) -> Look:
        """See Guard."""
        name, network, now = _name(account), network_of(peer), self._clock()
        reader = self._reader or await self._open_reader(now)
        if reader is None:
            return UNSUSPECTED
        try:
            standing = reader.standing(name, network, now)
        except GuessesUnusable as error:
            self._close_reader(error, now)
            return UNSUSPECTED
        return UNSUSPECTED if standing is CLEAR else self._judged(standing, name, peer)

    async def wrong(self, account: str, peer: str, password: str | None) -> Standing:
        """See Guard."""
        name, network, now = _name(account), network_of(peer), self._clock()

        def count(file: GuessFile) -> tuple[Standing, Standing]:
            before = file.standing(name, network, now)
            file.count(name, network, digest(self._key, name, password), now)
            return before, file.standing(name, network, now)

        counted = await self._ask(count, now)
        if counted is None:
            return CLEAR
        before, after = (self._judged(standing, name, peer) for standing in counted)
        if before.objection is None and after.objection is not None:
            reached = after.objection
            maillog.guessing(reached.scope, reached.name, peer, reached.guesses)
        return after.standing

    async def right(self, account: str, peer: str, before: Look) -> None:
        """See Guard."""
        name, network, now = _name(account), network_of(peer).narrow, self._clock()
        if not network:
            return
        if self._limits.account and 2 * before.standing.here >= self._limits.account:
            await self._ask(lambda file: file.forgive(name, network), now)
        if self._logins.note(name, network, now) and self._noting is None:
            self._noting = asyncio.create_task(self._write_soon())

    async def close(self) -> None:
        """Write down what is gathered, and close the files."""
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.gather(self._noting, return_exceptions=True)
        await self._write_logins()
        await self._clerk.close()
        if self._reader is not None:
            self._reader.close()

    def _judged(self, standing: Standing, account: str, peer: str) -> Look:
        if self._is_shared(peer):
            standing = replace(standing, network=0, wide=0)
        return Look(standing, objection(self._limits, standing, account, network_of(peer)))

    def _is_shared(self, peer: str) -> bool:
        """Whether others log in from there, or from who knows where."""
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return True
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return any(address in shared for shared in self._shared)

    # Looking

    async def _open_reader(self, now: float) -> GuessFile | None:
        """None where the files cannot be used; then they are left alone for a while."""
        if abs(now - self._retry_at) < RETRY_AFTER:
            return None
        made = await self._ask(lambda _: self._connect(create=False, patience=0.0), now)
        if made is None:
            self._retry_at = now
        elif self._reader is None:
            self._reader = made
        else:  # another login was faster
            made.close()
        return self._reader

    def _close_reader(self, error: GuessesUnusable, now: float) -> None:
        maillog.guessing_failed(str(error))
        self._retry_at = now
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # Writing

    async def _write_soon(self) -> None:
        try:
            while self._logins.waiting:
                await asyncio.sleep(WRITE_AFTER)
                await self._write_logins()
        finally:
            self._noting = None

    async def _write_logins(self) -> None:
        logins = self._logins.take()
        if logins:
            await self._ask(lambda file: file.know(logins), self._clock())

    async def _ask(self, work: Callable[[GuessFile], T], now: float) -> T | None:
        """None where it cannot be had."""
        try:
            return await self._clerk.ask(work, now)
        except GuessesUnusable:
            return None  # the clerk has said so
        except Exception as error:  # noqa: BLE001 - a bug must not keep anybody out
            maillog.unplanned("guessing", error)
            return None

    def _opened(self) -> GuessFile:
        self._key = read_key(self._directory)
        return self._connect(create=True, patience=BUSY_TIMEOUT)

    def _connect(self, *, create: bool, patience: float) -> GuessFile:
        path = os.path.join(self._directory, FILE_NAME)
        return GuessFile.open(path, self._limits.window, create=create, patience=patience)


class _Logins:
    """Which accounts log in from where, gathered until it is written down."""

    def __init__(self) -> None:
        self._written: dict[int, float] = {}
        """Hashes of pairs, and when they were last to be written, the oldest first."""
        self.waiting: list[tuple[str, str, float]] = []
        """Account, network and time of what is to be written down."""

    def note(self, account: str, network: str, now: float) -> bool:
        """Whether this is to be written down."""
        pair = hash((account, network))
        if abs(now - self._written.get(pair, -NOTE_AGAIN)) < NOTE_AGAIN:
            return False
        if len(self._written) >= MAX_NOTED:
            self._written = dict(islice(self._written.items(), MAX_NOTED // 2, None))
        self._written.pop(pair, None)  # or else it would keep the place of an old one
        self._written[pair] = now
        self.waiting.append((account, network, now))
        return True

    def take(self) -> list[tuple[str, str, float]]:
        """All that waits to be written down."""
        taken, self.waiting = self.waiting, []
        return taken


def _name(account: str) -> str:
    """As SQLite can hold it."""
    return fold(account).encode("utf-8", "replace").decode()[:MAX_NAME]


def guard_of(settings: Settings) -> FileGuard:
    """The guard of an instance."""
    auth = settings.auth
    limits = Limits(
        account=auth.guess_account, network=auth.guess_network, window=auth.guess_window
    )
    return FileGuard(settings.path(settings.queue.root), limits, auth.guess_shared)

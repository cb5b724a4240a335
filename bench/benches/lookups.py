"""What a look-up costs, by how many mailboxes the directory has.

Asked through the directory and the router themselves, one look-up after another, for addresses
that are drawn at random from all there are; all of the database lies in memory.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path

from bench.arena import Arena, Bench
from bench.directories import (
    mariadb_urls,
    open_directory_engine,
    read_into_memory,
    sqlite_file,
)
from bench.population import Asked
from bench.processes import Component
from bench.rounds import Entrant, Turns
from restante.address import Address
from restante.config.tree import Routing
from restante.directory.lookups import SqlDirectory
from restante.routing.decision import Decision, Instructions, Mailbox, NoSuchUser
from restante.routing.router import Router

SIZES = (10_000_000, 1_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000_000, 1_000, 100_000)
LOOKUPS: Mapping[str, int] = {"sqlite": 20_000, "mariadb": 3_000}
"""By the database: a second of RCPTs. After a pause, no cache has anything of the tree, and a
twentieth of a second would measure that."""


class WrongAnswerError(Exception):
    """A look-up found something else than what is there."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Something that is asked."""

    title: str
    draw: Callable[[Asked], Address]
    decision: type[Decision] | None = None
    """What RCPT must find; None: a login asks, and must find the account."""
    times: int = 1
    """LOOKUPS in a round."""


KINDS: Mapping[str, Kind] = {
    "existing": Kind("RCPT for a mailbox", Asked.existing, Mailbox),
    "alias": Kind("RCPT for an alias", Asked.alias, Instructions),
    "caught": Kind("RCPT for an address that the catch-all takes", Asked.caught, Mailbox),
    "missing": Kind("RCPT for an address that nobody has", Asked.missing, NoSuchUser),
    "login": Kind("what a login asks", Asked.existing, times=3),
}
QUICK_KINDS = ("existing", "missing", "login")


def run(arena: Arena) -> None:
    """SQLite, and MariaDB unless Restante is measured without."""
    sizes = QUICK_SIZES if arena.options.quick else SIZES
    files = [sqlite_file(each) for each in sizes]
    _measure(arena, "sqlite", sizes, [f"sqlite:///{file}" for file in files], files=files)
    if not arena.options.sqlite:
        component = arena.components.new("mariadb")
        with mariadb_urls(sizes, component) as urls:
            _measure(arena, "mariadb", sizes, urls, [component])


def _measure(
    arena: Arena,
    database: str,
    sizes: Sequence[int],
    urls: Sequence[str],
    components: Sequence[Component] = (),
    files: Sequence[Path] = (),
) -> None:
    """A row for each kind of look-up; of ``files``, each is read into memory before its rounds."""
    with asyncio.Runner() as runner:
        directories = [SqlDirectory(open_directory_engine(url)) for url in urls]
        for kind in QUICK_KINDS if arena.options.quick else KINDS:
            count = LOOKUPS[database] * KINDS[kind].times
            series = []
            for size, directory, file in zip_longest(sizes, directories, files):
                asker = Asker(directory, Asked(size, random.Random(size)), KINDS[kind], file)
                series.append(
                    Entrant(
                        f"{size:,} mailboxes",
                        (ThisProcess(), *components),
                        arena.generator,
                        partial(_asked, runner, asker),
                        partial(asker.prepare, count),
                    )
                )
            suffix = "" if kind == "existing" else f"-{kind}"
            arena.measure(
                f"lookups/{database}{suffix}",
                f"{KINDS[kind].title}, accounts in {database}",
                series,
                Turns(count, arena.options.rounds, warm_up=count // 3),
                unit="look-ups/s",
                judged=max(sizes) == max(SIZES),
            )
        for directory in directories:
            runner.run(directory.close())


def _asked(runner: asyncio.Runner, asker: Asker, count: int) -> float:
    return runner.run(asker.ask(count))


@dataclass(slots=True)
class Asker:
    """Asks one directory."""

    directory: SqlDirectory
    asked: Asked
    kind: Kind
    file: Path | None = None
    """What it asks, if the kernel alone keeps that in memory."""
    _router: Router = field(default_factory=lambda: Router(Routing(), "mail.bench.test"))
    _addresses: list[Address] = field(default_factory=list)

    def prepare(self, count: int) -> None:
        """Draw the addresses of a round; none of them waits for the disk."""
        if self.file is not None:
            read_into_memory(self.file)
        self._addresses = [self.kind.draw(self.asked) for _ in range(count)]

    async def ask(self, count: int) -> float:
        """Seconds for so many look-ups, one after another; raises WrongAnswerError."""
        addresses = self._addresses[:count]
        if self.kind.decision is None:
            return await self._logins(addresses)
        return await self._decisions(addresses, self.kind.decision)

    async def _decisions(self, addresses: Sequence[Address], wanted: type[Decision]) -> float:
        """All that RCPT asks, as the receiver does it."""
        router = self._router
        began = time.monotonic()
        for address in addresses:
            lookups = await self.directory.prefetch(router.wanted(address))
            accepted = await router.accepts(address.domain, lookups)
            decision = await router.route(address, lookups)
            if not accepted or not isinstance(decision, wanted):
                raise WrongAnswerError(f"{address}: {decision}")
        return time.monotonic() - began

    async def _logins(self, addresses: Sequence[Address]) -> float:
        """The account and its password."""
        logins = [str(each) for each in addresses]
        began = time.monotonic()
        for login in logins:
            found = await self.directory.credentials(login)
            if found is None or found.account.name != login:
                raise WrongAnswerError(f"{login}: {found}")
        return time.monotonic() - began


class ThisProcess:
    """The component that is the bench itself."""

    name = "restante"

    @property
    def prefix(self) -> list[str]:
        """Nothing is started."""
        return []

    def adopt(self, pid: int) -> None:
        """It is there already."""

    def seconds(self) -> float:
        """Processor time used so far."""
        return time.process_time()

    def pids(self) -> list[int]:
        """This one."""
        return [os.getpid()]


BENCHES = (Bench("lookups", "the cost of a look-up, by the number of mailboxes", run),)

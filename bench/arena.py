"""Where the benches of one run meet their systems: those are started when first asked for."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench.accounts import Accounts
from bench.certificates import rsa_pair
from bench.figures import Better, Row
from bench.goals import judge
from bench.processes import Component, Components, components
from bench.programs import MissingError
from bench.rounds import Entrant, Turns, take_turns
from bench.systems.dovecot import Variant, dovecot
from bench.systems.exim import exim
from bench.systems.mariadb import Database, mariadb
from bench.systems.postfix import DIRECT, PROXY, postfix
from bench.systems.restante import restante
from bench.systems.system import System
from bench.table import show
from restante.tls.certificate import PairFiles

SCRATCH = "/var/tmp"
"""On a disk, as a rule: what waits for a file system in memory says nothing."""

CROWD = 50
"""So many sessions are many."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    rounds: int
    workers: int
    """Of Restante."""
    messages: int
    """In a round of the benches that send many, see ``messages_by``."""
    against: Sequence[str]
    """The peers."""
    quick: bool = False
    """Fewer rows."""
    only: Sequence[str] = ()
    """Keys of rows: of a bench that has some here, no others are measured."""
    sqlite: bool = False
    """Restante has its accounts in SQLite, and stands alone."""
    crowded: int | None = None
    """In a round by CROWD sessions or more; None: as many as by others."""

    def messages_by(self, sessions: int) -> int:
        """In a round by so many sessions; one alone takes its time."""
        if sessions == 1:
            return self.messages // 2
        return self.crowded or self.messages if sessions >= CROWD else self.messages


@dataclass
class Arena:
    """One run."""

    options: Options
    scratch: Path
    components: Components
    report: Callable[[Row], None]
    """Is told of every row as soon as it is there."""
    _stack: ExitStack
    _systems: dict[tuple[str, PairFiles | None], System] = field(default_factory=dict)
    accounts: Accounts = field(default_factory=Accounts)

    @cached_property
    def generator(self) -> Component:
        """All that makes work or watches it."""
        return self.components.new("generator")

    @cached_property
    def database(self) -> Database | None:
        """The MariaDB server; None where Restante runs with SQLite."""
        if self.options.sqlite:
            return None
        return self._stack.enter_context(mariadb(self.components, self.scratch, self.accounts))

    @cached_property
    def certificate(self) -> PairFiles:
        """What all systems show to clients who come by TLS."""
        directory = self.scratch / "tls"
        directory.mkdir()
        return rsa_pair(directory)

    def directory(self, name: str) -> Path:
        """A path for a system that does not exist yet."""
        number = 1
        while (path := self.scratch / f"{name}-{number}").exists():
            number += 1
        return path

    def restante(self, certificate: PairFiles | None = None) -> System:
        """Restante as everybody would run it."""
        return self._kept(
            "restante",
            certificate,
            lambda: restante(
                self.components,
                self.directory("restante"),
                self.accounts,
                self.database,
                workers=self.options.workers,
                certificate=certificate,
            ),
        )

    def mail_hosts(self) -> list[System]:
        """Who takes mail: Restante first, and the peers that were asked for."""
        peers = []
        if self.database and "postfix" in self.options.against:
            peers += [self._postfix(self.database, maps) for maps in (DIRECT, PROXY)]
        if self.database and "exim" in self.options.against:
            peers.append(self._exim(self.database))
        return [self.restante(), *peers]

    def tls_mail_hosts(self) -> list[System]:
        """Who takes mail over STARTTLS: Restante first, and Postfix."""
        own = self.restante(self.certificate)
        if self.database is None or "postfix" not in self.options.against:
            return [own]
        database = self.database
        return [own, *(self._postfix(database, maps, self.certificate) for maps in (DIRECT, PROXY))]

    def pop3_hosts(
        self, variants: Sequence[Variant], certificate: PairFiles | None = None
    ) -> list[System]:
        """Who serves mail, all from the same Maildirs: Restante first, and Dovecot so and so.

        With a ``certificate`` they are others, which serve it over TLS as well.
        """
        own = self.restante(certificate)
        if self.database is None or "dovecot" not in self.options.against:
            return [own]
        database = self.database
        return [
            own,
            *(self._dovecot(database, own.mail, variant, certificate) for variant in variants),
        ]

    def measure(
        self,
        key: str,
        title: str,
        entrants: Sequence[Entrant],
        turns: Turns,
        *,
        unit: str,
        note: str = "",
        judged: bool = True,
    ) -> None:
        """A row of the results: all entrants take turns."""
        if not self.wants(key):
            return
        series, machine = take_turns(entrants, turns)
        better = Better.LESS if turns.seconds_for else Better.MORE
        self.add(Row(key, title, unit, better, series, machine, note, judged))

    def wants(self, key: str) -> bool:
        """Whether a row was asked for."""
        bench, _, _ = key.partition("/")
        chosen = [each for each in self.options.only if each.startswith(f"{bench}/")]
        return not chosen or key in chosen

    def add(self, row: Row) -> None:
        """A row that was measured in another way."""
        if not self.wants(row.key):
            return
        show(row, judge(row))
        self.report(row)

    def entrant(
        self,
        system: System,
        work: Callable[[int], float],
        prepare: Callable[[], object] = lambda: None,
    ) -> Entrant:
        """A system that does such work."""
        return Entrant(system.name, system.components, self.generator, work, prepare)

    def _postfix(
        self, database: Database, maps: str, certificate: PairFiles | None = None
    ) -> System:
        return self._kept(
            f"postfix {maps}",
            certificate,
            lambda: postfix(
                self.components,
                self.directory("postfix"),
                database,
                maps,
                certificate=certificate,
            ),
        )

    def _exim(self, database: Database) -> System:
        return self._kept(
            "exim", None, lambda: exim(self.components, self.directory("exim"), database)
        )

    def _dovecot(
        self, database: Database, mail: Path, variant: Variant, certificate: PairFiles | None
    ) -> System:
        return self._kept(
            variant.name,
            certificate,
            lambda: dovecot(
                self.components,
                self.directory("dovecot"),
                database,
                mail,
                variant,
                certificate,
            ),
        )

    def _kept(
        self,
        name: str,
        certificate: PairFiles | None,
        start: Callable[[], AbstractContextManager[System]],
    ) -> System:
        """Started once, with this certificate; it ends with the run."""
        if (name, certificate) not in self._systems:
            self._systems[name, certificate] = self._stack.enter_context(start())
        return self._systems[name, certificate]


@contextlib.contextmanager
def arena(options: Options, report: Callable[[Row], None]) -> Iterator[Arena]:
    """For one run; all that was started ends with it. Raises MissingError."""
    if os.geteuid() != 0 and not options.sqlite and options.against:
        peers = " and ".join(options.against)
        raise MissingError(f"root alone can start {peers}; --against none: Restante by itself")
    with (
        tempfile.TemporaryDirectory(prefix="restante-bench-", dir=SCRATCH) as scratch,
        components() as made,
        ExitStack() as stack,
    ):
        os.chmod(scratch, 0o755)
        yield Arena(options, Path(scratch), made, report, stack)


@dataclass(frozen=True, slots=True)
class Bench:
    """One of the things that can be asked for by name."""

    name: str
    summary: str
    run: Callable[[Arena], None]

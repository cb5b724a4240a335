"""Why routing decided as it did: the questions asked, their answers, and the steps taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from restante.directory import Account, DotQmail, Lookups
from restante.errors import RestanteError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the rules, and what it came to."""

    label: str
    """``1``, ``2a``, ``3``: the decision and its step as the rules number them."""
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """One question to the directory, and its answer."""

    table: str
    key: str
    rows: tuple[str, ...]
    """What was found, one text a row; empty for nothing."""
    milliseconds: float
    failure: str = ""
    """Why there is no answer; empty when there is one."""


class Notes(Protocol):
    """Where the router notes its steps."""

    def note(self, label: str, text: str, *parts: object) -> None:
        """Step ``label`` came to ``text % parts``."""
        ...


class NoNotes:
    """Notes that nobody reads: nothing is formatted."""

    def note(self, label: str, text: str, *parts: object) -> None:
        """Nothing."""


NO_NOTES = NoNotes()


@dataclass(slots=True)
class Trace:
    """Steps and questions in the order in which they happened."""

    entries: list[Step | Question] = field(default_factory=list)

    def note(self, label: str, text: str, *parts: object) -> None:
        """Step ``label`` came to ``text % parts``."""
        self.entries.append(Step(label, text % parts))


class TracedLookups:
    """Look-ups that write every question into a trace; ``clock`` counts seconds."""

    def __init__(self, inner: Lookups, trace: Trace, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._trace = trace
        self._clock = clock

    async def accepts_domain(self, domain: str) -> bool:
        """As Lookups has it."""
        return await self._ask(
            "rcpthosts",
            f"host={domain}",
            self._inner.accepts_domain(domain),
            lambda found: (domain,) if found else (),
        )

    async def account(self, name: str) -> Account | None:
        """As Lookups has it."""
        return await self._ask(
            "mailbox", f"username={name}", self._inner.account(name), _account_rows
        )

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        """As Lookups has it."""
        key = f"{local}@{domain}" if local else f"(catch-all)@{domain}"
        return await self._ask("virtual", key, self._inner.owners(local, domain), tuple)

    async def knows_domain(self, domain: str) -> bool:
        """As Lookups has it."""
        return await self._ask(
            "virtual",
            f"any@{domain}",
            self._inner.knows_domain(domain),
            lambda found: (domain,) if found else (),
        )

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        """As Lookups has it."""
        key = f"username={user} alias={extension or '(empty)'}"
        return await self._ask("alias", key, self._inner.instructions(user, extension), tuple)

    async def system_user(self, name: str) -> Account | None:
        """As Lookups has it."""
        return await self._ask("passwd", name, self._inner.system_user(name), _account_rows)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """As Lookups has it."""
        key = f"{account.home} extension={extension or '(none)'}"
        answer = self._inner.dot_qmail(account, extension)
        return await self._ask(".qmail", key, answer, _dot_qmail_rows)

    async def _ask(
        self,
        table: str,
        key: str,
        answer: Awaitable[_T],
        rows: Callable[[_T], tuple[str, ...]],
    ) -> _T:
        start = self._clock()
        try:
            found = await answer
        except RestanteError as error:
            self._write(table, key, (), start, str(error) or type(error).__name__)
            raise
        self._write(table, key, rows(found), start, "")
        return found

    def _write(
        self, table: str, key: str, rows: tuple[str, ...], start: float, failure: str
    ) -> None:
        spent = (self._clock() - start) * 1000
        self._trace.entries.append(Question(table, key, rows, spent, failure))


def _dot_qmail_rows(found: DotQmail | None) -> tuple[str, ...]:
    if found is None:
        return ()
    if not found.lines:
        return (f"{found.path} (empty)",)
    return tuple(f"{found.path}:{number} {line}" for number, line in enumerate(found.lines, 1))


def _account_rows(account: Account | None) -> tuple[str, ...]:
    if account is None:
        return ()
    return (f"{account.name} uid={account.uid} gid={account.gid} home={account.home}",)

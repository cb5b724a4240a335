"""The directory on SQL: one statement for all that some addresses need, and single questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from restante.address import fold
from restante.directory import (
    Account,
    Credentials,
    DotQmail,
    Lookups,
    NoSystemFiles,
    SystemFiles,
    sql,
)
from restante.directory.engine import Engine, NothingChanged, Row, Statement
from restante.directory.question import Question, questions
from restante.directory.rows import (
    account_of,
    checked_owners,
    chosen,
    credentials_of,
    each_once,
    line_of,
    text_of,
)
from restante.errors import CannotKnow

Pair = tuple[str, str]


class SqlDirectory:
    """The rows of the qmail/MySQL tables, through any engine, and the system's files behind."""

    def __init__(self, engine: Engine, system: SystemFiles | None = None) -> None:
        self._engine = engine
        self._dialect = engine.dialect
        self._system = system or NoSystemFiles()

    async def accepts_domain(self, domain: str) -> bool:
        """Whether ``rcpthosts`` has the domain; raises CannotKnow."""
        rows = await self._engine.fetch(sql.accepts_domain(self._dialect), (domain,))
        return _has(rows, domain)

    async def account(self, name: str) -> Account | None:
        """The row of ``mailbox`` with this user name; raises CannotKnow and BadRow."""
        rows = await self._engine.fetch(sql.account(self._dialect), (name,))
        row = chosen(row for row in rows if fold(text_of(row[0])) == fold(name))
        return None if row is None else account_of(row)

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        """The users to whom ``virtual`` gives this address; raises CannotKnow, BadRow."""
        rows = await self._engine.fetch(sql.owners(self._dialect), (domain, local))
        wanted = (fold(domain), fold(local))
        found = (text_of(row[2]) for row in rows if _folded(row) == wanted)
        return checked_owners(found, local, domain)

    async def knows_domain(self, domain: str) -> bool:
        """Whether ``virtual`` has any row for the domain; raises CannotKnow."""
        rows = await self._engine.fetch(sql.knows_domain(self._dialect), (domain,))
        return _has(rows, domain)

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        """The lines that ``alias`` has for this user and extension; raises CannotKnow."""
        rows = await self._engine.fetch(sql.instructions(self._dialect), (user, extension))
        wanted = (fold(user), fold(extension))
        return each_once(line_of(row[2], row[3]) for row in rows if _folded(row) == wanted)

    async def system_user(self, name: str) -> Account | None:
        """See SystemFiles."""
        return await self._system.user(name)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        return await self._system.dot_qmail(account, extension)

    async def prefetch(self, addresses: Sequence[Pair]) -> Lookups:
        """Look-ups that already know the answers for these addresses; raises CannotKnow."""
        found = Prefetched(self)
        for question in questions(addresses):
            text = sql.prefetch(self._dialect, question.shape)
            found.add(question, await self._engine.fetch(text, question.parameters))
        return found

    async def credentials(self, login: str) -> Credentials | None:
        """Whom this login names; raises CannotKnow and BadRow.

        Where ``virtual`` names several accounts, it is the first of them by name.
        """
        local, at, domain = login.rpartition("@")
        with_domain = bool(at and local and domain)
        parameters = (login, domain, local) if with_domain else (login,)
        text = sql.credentials(self._dialect, with_domain=with_domain)
        rows = await self._engine.fetch(text, parameters)
        row = _named(rows, login) or _owning(rows, local, domain)
        return None if row is None else credentials_of(row)

    async def replace_password(self, credentials: Credentials, password: str) -> bool:
        """See PasswordKeeper; other columns of the row stay as they are."""
        name, old = credentials.account.name, credentials.password
        if not old:
            return False
        statements = (
            Statement(
                sql.replace_password(self._dialect),
                (password, name, name, old, old),
                secrets=frozenset({0, 3, 4}),
                must_change=True,
            ),
            # A trigger, or a column that cuts values short, is found out before the commit.
            Statement(
                sql.touch_password(self._dialect),
                (name, name, password, password),
                secrets=frozenset({2, 3}),
                must_change=True,
            ),
        )
        try:
            await self._engine.transaction(statements)
        except NothingChanged:
            text = sql.credentials(self._dialect, with_domain=False)
            row = _named(await self._engine.fetch(text, (name,)), name)
            if row is not None and credentials_of(row).password == old:
                raise CannotKnow(
                    f"the new hash of {name} did not stay in mailbox.password as it was written"
                ) from None
            return False
        return True

    async def owns_in(self, user: str, domain: str) -> bool:
        """Whether ``virtual`` gives the user any address of the domain; raises CannotKnow."""
        rows = await self._engine.fetch(sql.owns_in(self._dialect), (user, domain))
        wanted = (fold(user), fold(domain))
        return any(_folded(row) == wanted for row in rows)

    async def ping(self) -> None:
        """Raise CannotKnow unless the database answers now."""
        await self._engine.fetch(sql.PING)

    async def close(self) -> None:
        """Give all connections back."""
        await self._engine.close()


class Prefetched:
    """What some addresses need, answered from memory; anything else is passed on."""

    def __init__(self, directory: SqlDirectory) -> None:
        self._directory = directory
        self._accepted: dict[str, bool] = {}
        self._known: dict[str, bool] = {}
        self._owners: dict[Pair, set[str]] = {}
        self._accounts: dict[str, list[Row]] = {}
        self._lines: dict[Pair, dict[str, None]] = {}

    def add(self, question: Question, rows: Iterable[Row]) -> None:
        """Take up the rows that answer ``question``."""
        self._expect(question)
        by_tag: dict[object, list[Row]] = {}
        for row in rows:
            by_tag.setdefault(row[0], []).append(row[1:])
        # Owners first: they say whose accounts and instructions the joins were asked for.
        for row in by_tag.get("v", ()):
            self._take_owner(row)
        for row in by_tag.get("k", ()):
            self._take_known(question.domains[int(text_of(row[1]))], row)
        for row in by_tag.get("r", ()):
            self._take_accepted(row)
        for row in by_tag.get("m", ()):
            self._take_account(row)
        for row in by_tag.get("a", ()):
            self._take_line(row)

    async def accepts_domain(self, domain: str) -> bool:
        """Whether ``rcpthosts`` has the domain."""
        known = self._accepted.get(fold(domain))
        return await self._directory.accepts_domain(domain) if known is None else known

    async def account(self, name: str) -> Account | None:
        """The row of ``mailbox`` with this user name; raises BadRow."""
        rows = self._accounts.get(fold(name))
        if rows is None:
            return await self._directory.account(name)
        row = chosen(rows)
        return None if row is None else account_of(row)

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        """The users to whom ``virtual`` gives this address."""
        found = self._owners.get((fold(local), fold(domain)))
        if found is None:
            return await self._directory.owners(local, domain)
        return checked_owners(found, local, domain)

    async def knows_domain(self, domain: str) -> bool:
        """Whether ``virtual`` has any row for the domain."""
        known = self._known.get(fold(domain))
        return await self._directory.knows_domain(domain) if known is None else known

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        """The lines that ``alias`` has for this user and extension."""
        found = self._lines.get((fold(user), fold(extension)))
        if found is None:
            return await self._directory.instructions(user, extension)
        return tuple(found)

    async def system_user(self, name: str) -> Account | None:
        """See SystemFiles."""
        return await self._directory.system_user(name)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        return await self._directory.dot_qmail(account, extension)

    def _expect(self, question: Question) -> None:
        """Whatever was asked and is not found is not there."""
        for domain in question.domains:
            self._accepted.setdefault(domain, False)
            self._known.setdefault(domain, False)
            self._owners.setdefault(("", domain), set())
        for address in question.addresses:
            self._owners.setdefault(address, set())
        for name in question.names:
            self._expect_name(name)
        for extension in question.extensions:
            self._lines.setdefault((sql.ALIAS_USER, extension), {})
        for pair in question.pairs:
            self._lines.setdefault(pair, {})

    def _expect_name(self, name: str) -> None:
        self._accounts.setdefault(name, [])
        self._lines.setdefault((name, ""), {})

    def _take_owner(self, row: Row) -> None:
        domain, local = _folded(row)
        owners = self._owners.get((local, domain))
        if owners is None:
            return
        owner = text_of(row[2])
        owners.add(owner)
        self._known[domain] = True
        self._expect_name(fold(owner))
        self._lines.setdefault((sql.ALIAS_USER, fold(owner)), {})

    def _take_known(self, asked: str, row: Row) -> None:
        """The domain has rows, if it is not another that the database takes for the same."""
        if fold(text_of(row[0])) == asked:
            self._known[asked] = True
        elif not self._known.get(asked):
            self._known.pop(asked, None)

    def _take_accepted(self, row: Row) -> None:
        domain = fold(text_of(row[0]))
        if domain in self._accepted:
            self._accepted[domain] = True

    def _take_account(self, row: Row) -> None:
        rows = self._accounts.get(fold(text_of(row[0])))
        if rows is not None and row not in rows:
            rows.append(row)

    def _take_line(self, row: Row) -> None:
        lines = self._lines.get(_folded(row))
        if lines is not None:
            lines[line_of(row[2], row[3])] = None


def _has(rows: Iterable[Row], name: str) -> bool:
    return any(fold(text_of(row[0])) == fold(name) for row in rows)


def _folded(row: Row) -> Pair:
    return fold(text_of(row[0])), fold(text_of(row[1]))


def _named(rows: Iterable[Row], login: str) -> Row | None:
    """The row of ``mailbox`` with this user name."""
    return chosen(row[1:] for row in rows if row[0] == "m" and _has((row[1:],), login))


def _owning(rows: Iterable[Row], local: str, domain: str) -> Row | None:
    """The row of ``mailbox`` whose user ``virtual`` gives for the address."""
    wanted = (fold(domain), fold(local))
    return chosen(row[1:] for row in rows if row[0] == "v" and _folded(row[7:]) == wanted)

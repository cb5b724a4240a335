"""The directory on SQL: few statements for all that some addresses need, and single questions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Iterator, Sequence

from restante.address import fold
from restante.directory import (
    Account,
    Credentials,
    DotQmail,
    KnownLookups,
    Lookups,
    NoSystemFiles,
    SystemFiles,
    sql,
)
from restante.directory.answers import Answers, Prefetched, folded
from restante.directory.engine import (
    Engine,
    NothingChanged,
    Rejected,
    Row,
    Statement,
    Unfit,
)
from restante.directory.gathering import Gathering
from restante.directory.question import (
    MAX_ORDINARY,
    Pair,
    folded_pairs,
    in_all_forms,
    ordinary_question,
    padded,
    thorough_questions,
)
from restante.directory.rows import (
    account_of,
    checked_owners,
    chosen,
    credentials_of,
    each_once,
    key_of,
    line_of,
    text_of,
)
from restante.errors import CannotKnow
from restante.labels import MAX_FORMS, forms, name_forms

ASKED_SINGLY = 2
"""Questions beyond the ordinary that are asked one by one, for one address: each of them is far
cheaper than the thorough statement, but each is a round trip."""
PER_ADDRESS = 4
"""With several addresses, one question more is asked singly for so many of them."""


class SqlDirectory:
    """The rows of the qmail/MySQL tables, through any engine, and the system's files behind.

    Names are asked for in small letters; by single questions, as they are spelt first: a row in
    columns that tell capitals apart may have them as another row has them that led to it.
    """

    def __init__(self, engine: Engine, system: SystemFiles | None = None) -> None:
        self._engine = engine
        self._dialect = engine.dialect
        self._system = system or NoSystemFiles()
        self._gathering = Gathering(self._ask_ordinary, MAX_ORDINARY, engine.concurrency)

    async def accepts_domain(self, domain: str) -> bool:
        """Whether ``rcpthosts`` has the domain; raises CannotKnow."""
        rows = await self._of_domain(sql.accepts_domain(self._dialect), domain)
        return _has(rows, domain)

    async def account(self, name: str) -> Account | None:
        """The row of ``mailbox`` with this user name; raises CannotKnow and BadRow."""
        _, _, domain = name.rpartition("@")
        rows = await self._of_domain(sql.account(self._dialect), domain, (name,))
        small = fold(name)
        row = chosen(row for row in rows if key_of(row[0]) == small)
        if row is None:
            return None if name == small else await self.account(small)
        return account_of(row)

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        """The users to whom ``virtual`` gives this address; raises CannotKnow, BadRow."""
        rows = await self._of_domain(sql.owners(self._dialect), domain, (domain, local))
        wanted = (fold(domain), fold(local))
        found = [text_of(row[2]) for row in rows if folded(row) == wanted]
        if not found and (domain, local) != wanted:
            return await self.owners(fold(local), fold(domain))
        return checked_owners(found, local, domain)

    async def knows_domain(self, domain: str) -> bool:
        """Whether ``virtual`` has any row for the domain; raises CannotKnow."""
        some = await self._of_domain(sql.known(self._dialect), domain)
        if not some or _has((row[1:] for row in some), domain):
            return bool(some)
        # The database takes another for the same, and this one may stand behind it.
        rows = await self._engine.fetch(sql.knows_domain(self._dialect), (domain,))
        return _has(rows, domain)

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        """The lines that ``alias`` has for this user and extension; raises CannotKnow."""
        rows = await self._engine.fetch(sql.instructions(self._dialect), (user, extension))
        wanted = (fold(user), fold(extension))
        found = each_once(line_of(row[2], row[3]) for row in rows if folded(row) == wanted)
        if not found and (user, extension) != wanted:
            return await self.instructions(*wanted)
        return found

    async def system_user(self, name: str) -> Account | None:
        """See SystemFiles."""
        return await self._system.user(name)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        return await self._system.dot_qmail(account, extension)

    async def prefetch(self, addresses: Sequence[Pair]) -> KnownLookups:
        """Look-ups that already know the answers for these addresses; raises CannotKnow.

        If one of several is in the way of the others, they know little yet, and ask singly.
        """
        asked = folded_pairs(addresses)
        pairs = in_all_forms(asked)
        try:
            if 0 < len(pairs) <= MAX_ORDINARY:
                found = await self._gathering.ask(pairs)
            else:
                step = MAX_ORDINARY if pairs is asked else MAX_ORDINARY // MAX_FORMS
                found = await self._in_parts(asked, step)
        except Rejected:
            if len(pairs) > 1:
                return Prefetched(await self._known(pairs), self)
            raise
        return Prefetched(found, _Further(self, pairs))

    async def _known(self, pairs: Iterable[Pair]) -> Answers:
        """Which domains virtual has, before it is asked for their addresses.

        Asked after them, the first address that is written of a domain would be "no such user".
        """
        found = Answers()
        for domain in dict.fromkeys([domain for _, domain in pairs]):
            # A domain that the database rejects is asked for again by whoever needs it.
            with contextlib.suppress(Rejected):
                found.known[domain] = await self.knows_domain(domain)
        return found

    async def _in_parts(self, pairs: tuple[Pair, ...], step: int) -> Answers:
        """So many at a time, each with all of its forms."""
        found = Answers()
        for start in range(0, len(pairs), step):
            found.add(await self._gathering.ask(in_all_forms(pairs[start : start + step])))
        return found

    async def _ask_ordinary(self, pairs: tuple[Pair, ...]) -> Answers:
        """What ordinary addresses need: a statement, and another where a domain has no owner.

        The other asks whether virtual has the domain, and for the addresses there once more: one
        that came with its domain after the first statement must not be "no such user".
        """
        found = Answers()
        question = ordinary_question(pairs)
        text = sql.ordinary(self._dialect, question.shape)
        rows = await self._engine.fetch(text, question.parameters)
        if unowned := found.add_ordinary(question, rows):
            again = ordinary_question([pair for pair in pairs if pair[1] in unowned])
            domains = padded(unowned)
            text = sql.unowned(self._dialect, again.shape, len(domains))
            rows = await self._engine.fetch(text, (*again.places, *domains, *domains))
            found.add_unowned(domains, rows)
        return found

    async def thorough(self, pairs: tuple[Pair, ...]) -> Lookups:
        """Look-ups that know all that routing can ask about folded pairs; raises CannotKnow."""
        found = Answers()
        for question in thorough_questions(pairs):
            text = sql.thorough(self._dialect, question.shape)
            found.add_thorough(question, await self._engine.fetch(text, question.parameters))
        return Prefetched(found, self)

    async def credentials(self, login: str, *, in_full: bool = False) -> Credentials | None:
        """See Directory; raises CannotKnow and BadRow.

        Where ``virtual`` names several accounts, it is the first of them by name. The login as it
        is spelt, and the form in which it has its domain, go before others.
        """
        found: Row | None = None
        for question in self._questions(login):
            row = await question
            found = found or row
            if found and not in_full:
                break
        return credentials_of(found) if found else None

    def _questions(self, login: str) -> Iterator[Awaitable[Row | None]]:
        """All that is asked of whom nobody knows, each when the one before is answered."""
        for name in dict.fromkeys((login, *name_forms(fold(login)))):
            local, _, domain = name.rpartition("@")
            yield self._named(name, domain)
            if local and domain:
                yield self._owning(local, domain)

    async def _named(self, login: str, domain: str = "") -> Row | None:
        """The row of ``mailbox`` with this user name: what nearly every login is."""
        rows = await self._of_domain(sql.credentials(self._dialect), domain, (login,))
        return chosen(row for row in rows if _has((row,), login))

    async def _owning(self, local: str, domain: str) -> Row | None:
        """The row of ``mailbox`` whose user ``virtual`` gives for the address."""
        text = sql.owners_credentials(self._dialect)
        rows = await self._of_domain(text, domain, (domain, local))
        wanted = (fold(domain), fold(local))
        return chosen(
            row for row in rows if folded(row[6:]) == wanted and key_of(row[0]) == key_of(row[8])
        )

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
            row = await self._named(name)
            if row is not None and credentials_of(row).password == old:
                raise CannotKnow(
                    f"the new hash of {name} did not stay in mailbox.password as it was written"
                ) from None
            return False
        return True

    async def owns_in(self, user: str, domain: str) -> bool:
        """Whether ``virtual`` gives the user any address of the domain; raises CannotKnow."""
        small = fold(user)
        for form in forms(fold(domain)):
            rows = await self._of_domain(sql.owns_in(self._dialect), form, (user, form))
            if any(folded(row) == (small, form) for row in rows):
                return True
        return False if user == small else await self.owns_in(small, domain)

    async def _of_domain(
        self, text: str, domain: str, parameters: tuple[str, ...] = ()
    ) -> list[Row]:
        """The rows of a statement about a domain; none where no column could hold its name.

        A database may reject such a name (U-labels, and columns in latin1). That it is the name
        which is rejected, and not whatever it is compared with, is known when the same statement is
        answered for another.
        """
        try:
            return await self._engine.fetch(text, parameters or (domain,))
        except Unfit:
            if domain.isascii():
                raise
            await self._engine.fetch(text, tuple("x" for _ in parameters or (domain,)))
            return []

    async def close(self) -> None:
        """Give all connections back."""
        await self._engine.close()


class _Further:
    """What the ordinary answers do not settle: a few questions singly, then all at once."""

    def __init__(self, directory: SqlDirectory, pairs: tuple[Pair, ...]) -> None:
        self._directory = directory
        self._pairs = pairs
        self._left = ASKED_SINGLY + len(pairs) // PER_ADDRESS
        self._thorough: asyncio.Future[Lookups] | None = None

    async def accepts_domain(self, domain: str) -> bool:
        """See Lookups."""
        return await (await self._lookups()).accepts_domain(domain)

    async def account(self, name: str) -> Account | None:
        """See Lookups."""
        return await (await self._lookups()).account(name)

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        """See Lookups."""
        return await (await self._lookups()).owners(local, domain)

    async def knows_domain(self, domain: str) -> bool:
        """See Lookups."""
        return await (await self._lookups()).knows_domain(domain)

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        """See Lookups."""
        return await (await self._lookups()).instructions(user, extension)

    async def system_user(self, name: str) -> Account | None:
        """See SystemFiles."""
        return await self._directory.system_user(name)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        return await self._directory.dot_qmail(account, extension)

    async def _lookups(self) -> Lookups:
        if self._thorough is None:
            if self._left > 0:
                self._left -= 1
                return self._directory
            # Those that are routed side by side have one in common.
            self._thorough = asyncio.ensure_future(self._ask_thoroughly())
        thorough = self._thorough
        try:
            return await thorough
        except BaseException:
            if self._thorough is thorough:
                self._thorough = None
            raise

    async def _ask_thoroughly(self) -> Lookups:
        try:
            return await self._directory.thorough(self._pairs)
        except Rejected:  # MySQL before 8.0 and MariaDB before 10.2 have no WITH
            return self._directory


def _has(rows: Iterable[Row], name: str) -> bool:
    return any(key_of(row[0]) == fold(name) for row in rows)

"""The rows that answer a question about some addresses, at hand for routing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from restante.address import fold
from restante.directory import Account, BadRow, DotQmail, Lookups
from restante.directory.engine import Row
from restante.directory.question import OrdinaryQuestion, Pair, ThoroughQuestion
from restante.directory.rows import (
    account_of,
    checked_owners,
    chosen,
    key_of,
    line_of,
    text_of,
)
from restante.directory.sql import ALIAS_USER
from restante.labels import forms


class Answers:
    """What the rows said, by question; whatever was asked and is not found is not there.

    Several look-ups may share one: after it was filled, nobody changes it.
    """

    __slots__ = ("accepted", "accounts", "known", "lines", "owners")

    def __init__(self) -> None:
        self.accepted: dict[str, bool] = {}
        """By domain: whether rcpthosts has it."""
        self.known: dict[str, bool] = {}
        """By domain: whether virtual has it."""
        self.owners: dict[Pair, set[str]] = {}
        """By local part and domain."""
        self.accounts: dict[str, list[Row]] = {}
        """By user name: the rows of mailbox."""
        self.lines: dict[Pair, dict[str, None]] = {}
        """By user and extension: the instructions in their order."""

    def add(self, other: Answers) -> None:
        """Take up what another knows.

        A domain that either found nothing of stays unknown: the addresses that were asked then may
        have come with the domain since, and must not be "no such user". Of a domain whose catch-all
        has changed in between all addresses are to be asked anew: the new one may have come with
        some that were not there yet, and must not have their mail.
        """
        changed: set[str] = set()
        for pair, owners in other.owners.items():
            if self.owners.setdefault(pair, owners) != owners:
                changed.update(forms(pair[1]))
        if changed:
            self.owners = {pair: it for pair, it in self.owners.items() if pair[1] not in changed}
        self.accepted |= other.accepted
        for domain, known in other.known.items():
            self.known[domain] = known and self.known.get(domain, True)
        self.accounts |= other.accounts
        self.lines |= other.lines

    def add_ordinary(self, question: OrdinaryQuestion, rows: Sequence[Row]) -> list[str]:
        """Take up the rows of ``sql.ordinary``; returns the domains of which virtual has none.

        None for the addresses that were asked, that is: there may be others. A domain that has some
        in another form is not among them.
        """
        for pair in question.pairs:
            self.owners[pair] = set()
        if rows or not question.shape.one_domain:
            for domain in question.domains:
                self.accepted[domain] = False
        for row in rows:
            if row[0] is not None:
                self._take_owned(row)
            if row[11] is not None:
                self._take_accepted(row[11:])
        unowned = [domain for domain in question.domains if domain not in self.known]
        return [each for each in unowned if self.known.keys().isdisjoint(forms(each))]

    def add_unowned(self, domains: Sequence[str], rows: Iterable[Row]) -> None:
        """Take up the rows of ``sql.unowned`` for ``domains``."""
        for domain in domains:
            self.known[domain] = self.accepted[domain] = False
        for row in rows:
            if row[0] == "v":
                self._take_late_owner(row[1:])
            elif row[0] == "r":
                self._take_accepted(row[1:])
            else:
                self._take_known(domains[int(text_of(row[2]))], row[1:])

    def add_thorough(self, question: ThoroughQuestion, rows: Iterable[Row]) -> None:
        """Take up the rows of ``sql.thorough``."""
        self._expect(question)
        by_tag: dict[object, list[Row]] = {}
        for row in rows:
            by_tag.setdefault(row[0], []).append(row[1:])
        # Owners first: they say whose accounts and instructions the joins were asked for.
        for row in by_tag.get("v", ()):
            if owner := self._take_owner(row):
                self._expect_name(owner)
                self.lines.setdefault((ALIAS_USER, owner), {})
        for row in by_tag.get("k", ()):
            self._take_known(question.domains[int(text_of(row[1]))], row)
        for row in by_tag.get("r", ()):
            self._take_accepted(row)
        for row in by_tag.get("m", ()):
            self._take_account((*row[:3], row[4]))
        for row in by_tag.get("a", ()):
            self._take_line(row)

    def _take_owned(self, row: Row) -> None:
        """An owner, and what was joined to it."""
        owner = self._take_owner(row)
        if owner is None or row[2] is None:  # NULL joins nothing, and says nothing of the name ""
            return
        self.accounts.setdefault(owner, [])
        if row[3] is None:
            self.lines.setdefault((ALIAS_USER, owner), {})
        else:
            self.lines.setdefault((owner, ""), {})
            self._take_account(row[3:7])
        if row[7] is not None:
            self._take_line(row[7:])

    def _expect(self, question: ThoroughQuestion) -> None:
        for domain in question.domains:
            self.accepted.setdefault(domain, False)
            self.known.setdefault(domain, False)
            self.owners.setdefault(("", domain), set())
        for address in question.addresses:
            self.owners.setdefault(address, set())
        for name in question.names:
            self._expect_name(name)
        for extension in question.extensions:
            self.lines.setdefault((ALIAS_USER, extension), {})
        for pair in question.pairs:
            self.lines.setdefault(pair, {})

    def _expect_name(self, name: str) -> None:
        self.accounts.setdefault(name, [])
        self.lines.setdefault((name, ""), {})

    def _take_owner(self, row: Row) -> str | None:
        """Take up host, local part and owner; the owner folded, if the address was asked for."""
        domain = key_of(row[0])
        owners = self.owners.get((key_of(row[1]), domain))
        if owners is None:
            return None
        owners.add(text_of(row[2]))
        self.known[domain] = True
        return key_of(row[2])

    def _take_late_owner(self, row: Row) -> None:
        """An owner who was not there when others were; what was said of that name may be old."""
        owner = self._take_owner(row)
        if owner is not None:
            self.accounts.pop(owner, None)
            self.lines.pop((owner, ""), None)
            self.lines.pop((ALIAS_USER, owner), None)

    def _take_known(self, asked: str, row: Row) -> None:
        """The domain has rows, if it is not another that the database takes for the same."""
        if key_of(row[0]) == asked:
            self.known[asked] = True
        elif not self.known.get(asked):
            self.known.pop(asked, None)

    def _take_accepted(self, row: Row) -> None:
        domain = key_of(row[0])
        if domain in self.accepted:
            self.accepted[domain] = True

    def _take_account(self, row: Row) -> None:
        rows = self.accounts.get(key_of(row[0]))
        if rows is not None and row not in rows:
            rows.append(row)

    def _take_line(self, row: Row) -> None:
        lines = self.lines.get(folded(row))
        if lines is not None:
            lines[line_of(row[2], row[3])] = None


class Prefetched:
    """Look-ups out of answers that are at hand; what these do not tell is asked elsewhere."""

    __slots__ = ("_answers", "_elsewhere")

    def __init__(self, answers: Answers, elsewhere: Lookups) -> None:
        self._answers = answers
        self._elsewhere = elsewhere

    def is_accepted(self, domain: str) -> bool:
        """See KnownLookups."""
        return self._answers.accepted.get(fold(domain), False)

    def simply_owned(self, local: str, domain: str) -> tuple[str, Account] | None:
        """See KnownLookups."""
        answers = self._answers
        owners = answers.owners.get((fold(local), fold(domain)))
        if not owners or "" in owners:
            return None
        owner = min(owners)
        user = fold(owner)
        row = chosen(answers.accounts.get(user, ()))
        if row is None or answers.lines.get((user, ""), True):
            return None
        try:
            return owner, account_of(row)
        except BadRow:
            return None

    async def accepts_domain(self, domain: str) -> bool:
        """Whether ``rcpthosts`` has the domain."""
        known = self._answers.accepted.get(fold(domain))
        return await self._elsewhere.accepts_domain(domain) if known is None else known

    async def account(self, name: str) -> Account | None:
        """The row of ``mailbox`` with this user name; raises BadRow."""
        rows = self._answers.accounts.get(fold(name))
        if rows is None:
            return await self._elsewhere.account(name)
        row = chosen(rows)
        return None if row is None else account_of(row)

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        """The users to whom ``virtual`` gives this address."""
        found = self._answers.owners.get((fold(local), fold(domain)))
        if found is None:
            return await self._elsewhere.owners(local, domain)
        return checked_owners(found, local, domain)

    async def knows_domain(self, domain: str) -> bool:
        """Whether ``virtual`` has any row for the domain."""
        known = self._answers.known.get(fold(domain))
        return await self._elsewhere.knows_domain(domain) if known is None else known

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        """The lines that ``alias`` has for this user and extension."""
        found = self._answers.lines.get((fold(user), fold(extension)))
        if found is None:
            return await self._elsewhere.instructions(user, extension)
        return tuple(found)

    async def system_user(self, name: str) -> Account | None:
        """See SystemFiles."""
        return await self._elsewhere.system_user(name)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        return await self._elsewhere.dot_qmail(account, extension)


def folded(row: Row) -> Pair:
    """The first two columns of a row, folded."""
    return key_of(row[0]), key_of(row[1])

"""A ``directory.Directory`` out of plain tables, which counts what it is asked and can be away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from restante.address import fold
from restante.directory import Account, Credentials, DotQmail, KnownLookups, SystemFiles
from restante.errors import CannotKnow, TemporaryError
from restante.labels import forms, name_forms

_Key = tuple[str, ...]
_Alias = tuple[str, str, str, str]


@dataclass(slots=True)
class Tables:
    """Rows as the database holds them."""

    rcpthosts: list[str] = field(default_factory=list)
    mailbox: list[Account] = field(default_factory=list)
    virtual: list[tuple[str, str, str]] = field(default_factory=list)
    """(username, virtual_username, virtual_host)"""
    alias: list[_Alias] = field(default_factory=list)
    """(username, alias, alias_username, alias_host)"""
    passwd: list[Account] = field(default_factory=list)
    """Users of the system who have mail."""
    dot_qmail: dict[tuple[str, str], DotQmail] = field(default_factory=dict)
    """(home, extension) to the file that serves it."""
    passwords: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """User name to (password, password_type)."""


def account(name: str, home: str = "", uid: int = 1000, gid: int = 1000) -> Account:
    """An account whose home is ``/home/NAME`` unless told otherwise."""
    return Account(name, uid, gid, home or f"/home/{name}")


class MemoryDirectory:
    """Answers from ``tables``, which a test may change at any time.

    ``asked`` has every statement: a single question as its table and key, a bulk one as
    ``("prefetch", ...)``. ``fail_at`` is the index in ``asked`` of the one statement that
    fails; ``away`` fails all of them. ``failure`` is what they fail with.
    """

    def __init__(self, tables: Tables | None = None, system: SystemFiles | None = None) -> None:
        """``system`` answers for the system's files, instead of the tables."""
        self.tables = tables or Tables()
        self._system = system
        self.asked: list[_Key] = []
        self.away = False
        self.fail_at: int | None = None
        self.failure: TemporaryError = CannotKnow("the database is away")
        self.closed = False

    def _statement(self, *key: str) -> None:
        self.asked.append(key)
        if self.away or self.fail_at == len(self.asked) - 1:
            raise self.failure

    async def accepts_domain(self, domain: str) -> bool:
        """As Lookups has it."""
        self._statement("rcpthosts", domain)
        return _accepts_domain(self.tables, domain)

    async def account(self, name: str) -> Account | None:
        """As Lookups has it."""
        self._statement("mailbox", name)
        return _account(self.tables, name)

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        """As Lookups has it."""
        self._statement("virtual", local, domain)
        return _owners(self.tables, local, domain)

    async def knows_domain(self, domain: str) -> bool:
        """As Lookups has it."""
        self._statement("virtual", domain)
        return _knows_domain(self.tables, domain)

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        """As Lookups has it."""
        self._statement("alias", user, extension)
        return _instructions(self.tables, user, extension)

    async def system_user(self, name: str) -> Account | None:
        """As Lookups has it; the passwd file distinguishes case."""
        self._statement("passwd", name)
        if self._system:
            return await self._system.user(name)
        return next((user for user in self.tables.passwd if user.name == name), None)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """As Lookups has it."""
        self._statement(".qmail", account.home, extension)
        if self._system:
            return await self._system.dot_qmail(account, extension)
        return self.tables.dot_qmail.get((account.home, extension))

    async def prefetch(self, addresses: Sequence[tuple[str, str]]) -> KnownLookups:
        """As Directory has it: one statement, however many addresses."""
        self._statement("prefetch", *(f"{local}@{domain}" for local, domain in addresses))
        return _Prefetched(self, addresses)

    async def credentials(self, login: str, *, in_full: bool = False) -> Credentials | None:
        """As Directory has it."""
        self._statement("credentials", login)
        for name in name_forms(fold(login)):
            local, at, domain = name.rpartition("@")
            owners = _owners(self.tables, local, domain) if at else ()
            for user in (name, *owners[:1]):
                if found := _account(self.tables, user):
                    password = self.tables.passwords.get(found.name, (None, None))
                    return Credentials(found, *password)
        return None

    async def owns_in(self, user: str, domain: str) -> bool:
        """As Directory has it."""
        self._statement("virtual", user, domain)
        rows = self.tables.virtual
        wanted = [_key(user, form) for form in forms(fold(domain))]
        return any(_key(owner, host) in wanted for owner, _, host in rows)

    async def close(self) -> None:
        """As Directory has it."""
        self.closed = True


class _Prefetched:
    """What one bulk statement fetched, as the tables were then; the rest is asked singly."""

    def __init__(self, directory: MemoryDirectory, addresses: Sequence[tuple[str, str]]) -> None:
        tables = directory.tables
        self._directory = directory
        self._domains = {fold(domain): _accepts_domain(tables, domain) for _, domain in addresses}
        self._known = {fold(domain): _knows_domain(tables, domain) for _, domain in addresses}
        wanted = [*addresses, *(("", domain) for _, domain in addresses)]
        self._owners = {_key(*pair): _owners(tables, *pair) for pair in wanted}
        owners = dict.fromkeys(name for names in self._owners.values() for name in names)
        names = [*owners, *(local for local, _ in addresses)]
        self._accounts = {fold(name): _account(tables, name) for name in names}
        keys = [("alias", name) for name in owners]
        keys += [("alias", whole) for pair in addresses for whole in _wholes(*pair)]
        keys += [(name, "") for name in names] + [("alias", "")]
        rows: dict[_Key, list[_Alias]] = {}
        for row in tables.alias:
            rows.setdefault(_key(*row[:2]), []).append(row)
        self._instructions = {(known := _key(*key)): _lines(rows.get(known, [])) for key in keys}

    def is_accepted(self, domain: str) -> bool:
        return self._domains.get(fold(domain), False)

    def simply_owned(self, local: str, domain: str) -> tuple[str, Account] | None:
        owners = self._owners.get(_key(local, domain), ())
        account = self._accounts.get(fold(owners[0])) if owners else None
        if account is None or self._instructions[_key(owners[0], "")]:
            return None
        return owners[0], account

    async def accepts_domain(self, domain: str) -> bool:
        key = fold(domain)
        if key in self._domains:
            return self._domains[key]
        return await self._directory.accepts_domain(domain)

    async def account(self, name: str) -> Account | None:
        key = fold(name)
        if key in self._accounts:
            return self._accounts[key]
        return await self._directory.account(name)

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        key = _key(local, domain)
        if key in self._owners:
            return self._owners[key]
        return await self._directory.owners(local, domain)

    async def knows_domain(self, domain: str) -> bool:
        key = fold(domain)
        if key in self._known:
            return self._known[key]
        return await self._directory.knows_domain(domain)

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        key = _key(user, extension)
        if key in self._instructions:
            return self._instructions[key]
        return await self._directory.instructions(user, extension)

    async def system_user(self, name: str) -> Account | None:
        return await self._directory.system_user(name)

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        return await self._directory.dot_qmail(account, extension)


def _wholes(local: str, domain: str) -> list[str]:
    """The extensions of the alias user that a local part may mean, and their owners."""
    names = (local, f"{local}-owner")
    return [*names, *(f"{name}@{domain}" for name in names if domain)]


def _key(*parts: str) -> _Key:
    return tuple(map(fold, parts))


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted, without names that differ in ASCII case alone."""
    first: dict[str, str] = {}
    for name in sorted(names):
        first.setdefault(fold(name), name)
    return tuple(first.values())


def _accepts_domain(tables: Tables, domain: str) -> bool:
    return fold(domain) in map(fold, tables.rcpthosts)


def _account(tables: Tables, name: str) -> Account | None:
    wanted = fold(name)
    return next((row for row in tables.mailbox if fold(row.name) == wanted), None)


def _owners(tables: Tables, local: str, domain: str) -> tuple[str, ...]:
    wanted = _key(local, domain)
    return _distinct(user for user, *key in tables.virtual if _key(*key) == wanted)


def _knows_domain(tables: Tables, domain: str) -> bool:
    return any(fold(host) == fold(domain) for _, _, host in tables.virtual)


def _instructions(tables: Tables, user: str, extension: str) -> tuple[str, ...]:
    wanted = _key(user, extension)
    return _lines(row for row in tables.alias if _key(*row[:2]) == wanted)


def _lines(rows: Iterable[_Alias]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"&{name}@{host}" if host else name for _, _, name, host in rows))

"""Administration: domains, mailboxes and aliases are added, listed and removed.

Every change is one transaction, in which what it depends on is checked again:
it is done wholly, or refused with an OperatorError that says what to do.
A domain is found in either of its forms, and what is added bears it in the form
that ``rcpthosts`` has; where it is typed in neither (capitals beyond ASCII), in U-labels.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from restante.address import Address, AddressSyntaxError, check_domain, dash_prefixes, fold
from restante.address_syntax import join_mailbox
from restante.directory import MAX_ID, Account, BadRow, schema
from restante.directory.conditions import (
    Condition,
    absent,
    all_of,
    equals,
    insert,
    is_extended,
    present,
)
from restante.directory.engine import Engine, Row, Value
from restante.directory.lookups import SqlDirectory
from restante.directory.rows import account_of, chosen, distinct, line_of, text_of
from restante.directory.sql import ALIAS_USER
from restante.directory.tables import Tables
from restante.errors import OperatorError
from restante.labels import forms, in_own_form, name_forms, name_in_a_labels

_FOREIGN_DOTS = frozenset("\u3002\uff0e\uff61")
"""What UTS 46 has besides the full stop; between labels they have become one in a domain's form."""
_SECRET = "password"  # noqa: S105 - its column
"""What no log has of a row of ``mailbox``."""
MAX_HOME = 1024
"""Characters in the path of a home (the width of its column)."""


@dataclass(frozen=True, slots=True, order=True)
class AliasEntry:
    """An address and one of those its mail is forwarded to."""

    address: str
    """``@domain`` is the domain's catch-all."""
    target: str
    """An address, or an instruction line of a row written by hand."""


@dataclass(frozen=True, slots=True)
class AccountHome:
    """A row of ``mailbox``, and where it says that its mail lies."""

    name: str
    home: str


@dataclass(frozen=True, slots=True)
class Mailboxes:
    """Some accounts by name, and what is wrong with the rows that are none."""

    accounts: tuple[Account, ...]
    problems: tuple[str, ...]


class Administration:
    """Changes the tables through an engine; raises OperatorError, CannotKnow and BadRow."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tables = Tables(engine)
        self._directory = SqlDirectory(engine)

    async def create_schema(self) -> None:
        """Make the tables that are missing; those that are there stay as they are."""
        await self._engine.transaction(await schema.definitions(self._engine))

    async def add_domain(self, name: str) -> None:
        """Accept mail for a domain."""
        domain = in_own_form(_domain(name))
        if not _FOREIGN_DOTS.isdisjoint(domain):
            raise OperatorError(f"{name!r} is no domain: the domain is malformed")
        if there := await self._hosted(domain):
            raise OperatorError(f"the domain {there} is there already: nothing to do")
        await self._tables.change(
            f"the domain {domain}",
            insert("rcpthosts", {"host": domain}, (absent("rcpthosts", host=domain),)),
        )

    async def domains(self) -> list[str]:
        """The domains for which mail is accepted, folded and sorted."""
        found = {fold(text_of(row[0])) async for row in self._tables.walk("rcpthosts")}
        return sorted(found)

    async def remove_domain(self, name: str) -> None:
        """Accept no more mail for a domain that has no addresses left."""
        domain = await self._hosted(_domain(name))
        if not domain:
            raise OperatorError(
                f"the domain {name} is not hosted here: restante domain list shows those that are"
            )
        stored = await self._tables.rows("rcpthosts", host=domain)
        addresses = 0
        own_forms = await self._tables.fitting("virtual", "virtual_host", forms(domain))
        for form in own_forms:
            async for _ in self._tables.walk("virtual", virtual_host=form):
                addresses += 1
        if addresses:
            rows = "1 row" if addresses == 1 else f"{addresses} rows"
            raise OperatorError(
                f"the domain {domain} still has {rows} in virtual: remove its mailboxes and "
                "aliases first"
            )
        unused = tuple(absent("virtual", virtual_host=form) for form in own_forms)
        await self._tables.change(
            f"the domain {domain}",
            *(self._tables.delete("rcpthosts", row, unused) for row in set(stored)),
        )

    async def add_mailbox(
        self, address: Address, account: Account, password: str, password_type: str
    ) -> None:
        """Make an account and give it the address; ``password`` is the hash to be stored.

        The account bears the address as its name, as ``hosted`` has it.
        """
        checked = _address(address.local, address.domain)
        name = str(checked)
        _check_account(account, name)
        host = await self._need_domain(checked.domain)
        await self._need_free(checked)
        columns: dict[str, Value] = {
            "username": name,
            "uid": account.uid,
            "gid": account.gid,
            "home": account.home,
            "password": _hash(password),
            "password_type": password_type,
        }
        own = _address_columns(name, checked.local, checked.domain)
        conditions = (
            present("rcpthosts", host=host),
            absent("mailbox", username=name),
            absent("virtual", virtual_host=checked.domain, virtual_username=checked.local),
            absent("alias", is_extended("alias", checked), username=ALIAS_USER),
        )
        await self._tables.change(
            f"the mailbox {name}",
            insert("mailbox", columns, conditions, secret=_SECRET),
            insert("virtual", own),
        )

    async def mailboxes(self, domain: str | None = None) -> AsyncIterator[Mailboxes]:
        """The accounts: all, or those named for the domain or with an address in it."""
        wanted = None if domain is None else await self._members(_domain(domain))
        columns = schema.TABLES["mailbox"][:4]
        async for rows in self._tables.pages("mailbox", columns):
            by_name: dict[str, list[Row]] = {}
            for row in rows:
                name = fold(text_of(row[0]))
                if wanted is None or wanted(name):
                    by_name.setdefault(name, []).append(row)
            if by_name:
                yield _mailboxes(by_name)

    async def mailbox(self, address: Address) -> Account | None:
        """The account of this name."""
        for name in name_forms(str(address)):
            if found := await self._directory.account(name):
                return found
        return None

    async def hosted(self, address: Address) -> Address:
        """The address, its domain as ``rcpthosts`` has it if it does."""
        domain = in_own_form(address.domain)
        return Address(address.local, await self._hosted(domain) or domain)

    async def addresses_of(self, name: str) -> list[str]:
        """The addresses that ``virtual`` gives to an account, sorted; catch-alls as ``@domain``."""
        rows = await self._tables.rows("virtual", username=name)
        return list(distinct(f"{text_of(row[1])}@{text_of(row[2])}" for row in rows))

    async def homes_of_others(self, address: Address) -> AsyncIterator[list[AccountHome]]:
        """All other rows of ``mailbox`` that name a home, also those that are no account."""
        own = fold(str(address))
        async for rows in self._tables.pages("mailbox", ("username", "home")):
            named = sorted({(text_of(name), text_of(home)) for name, home in rows})
            yield [AccountHome(name, home) for name, home in named if home and fold(name) != own]

    async def set_password(self, address: Address, password: str, password_type: str) -> None:
        """Store another hash."""
        _, stored = await self._need_mailbox(address)
        columns = {"password": _hash(password), "password_type": password_type}
        await self._tables.change(
            f"the mailbox {address}",
            *(
                self._tables.update("mailbox", row, columns, secret=_SECRET)
                for row in {row[:1] for row in stored}
            ),
        )

    async def remove_mailbox(self, address: Address) -> list[AliasEntry]:
        """Remove the account, its addresses and its instructions; its mail stays where it lies.

        Whoever gets the name later has none of them. Returned are the aliases whose target is gone.
        """
        address, stored = await self._need_mailbox(address)
        owned = await self._tables.rows("virtual", username=str(address))
        extended = await self._extended("virtual", "username", address)
        instructions = await self._instructions_of(address)
        # Whoever hears of a failure may rely on it that nothing was changed: this is asked before.
        pointing = [
            row
            for form in await self._tables.fitting("alias", "alias_host", forms(address.domain))
            for local in {address.local, _quoted(address.local)}
            async for row in self._tables.walk("alias", alias_username=local, alias_host=form)
            if row not in instructions
        ]
        await self._tables.change(
            f"the mailbox {address}",
            *(self._tables.delete("mailbox", row) for row in {row[:1] for row in stored}),
            *(self._tables.delete("virtual", row) for row in set(owned)),
            *(self._tables.delete("alias", row) for row in instructions),
            *[
                self._tables.delete(
                    "virtual", row, await self._unserved(text_of(row[0])), may_stay=True
                )
                for row in set(extended)
            ],
        )
        return sorted({_entry(row) for row in pointing})

    async def add_alias(self, address: tuple[str, str], target: Address) -> None:
        """Forward mail for ``(local part, domain)`` to one more target.

        An empty local part is the domain's catch-all.
        """
        local, domain = _alias_address(address)
        goal = _address(target.local, target.domain)
        if _key(str(goal)) == _key(f"{local}@{domain}"):
            name = f"{local}@{domain}"
            raise OperatorError(f"the alias {name} cannot forward to itself: name another target")
        host = await self._need_domain(domain)
        domain = await self._need_alias_or_nothing(local, domain) or host
        name = f"{local}@{domain}"
        await self._need_no_extension(local, domain)
        line = {"username": ALIAS_USER, "alias": name} | _target_columns(goal)
        for form in await self._tables.fitting("alias", "alias_host", forms(goal.domain)):
            if await self._tables.rows("alias", **line | {"alias_host": form}):
                raise OperatorError(f"the alias {name} forwards to {goal} already: nothing to do")
        own = _address_columns(name, local, domain)
        conditions = (
            present("rcpthosts", host=host),
            *(absent("mailbox", username=f"{user}@{domain}") for user, _ in dash_prefixes(local)),
            await self._tables.absent("alias", **line),
        )
        owned = await self._tables.rows("virtual", **own)
        unowned = await self._tables.absent("virtual", **own)
        await self._tables.change(
            f"the alias {name}",
            insert("alias", line, conditions),
            insert("virtual", own, (unowned,), must_change=not owned),
        )

    async def aliases(self, domain: str | None = None) -> AsyncIterator[list[AliasEntry]]:
        """Every row of ``alias``, or those for addresses in the domain."""
        wanted = None if domain is None else forms(_domain(domain))
        async for rows in self._tables.pages("alias", schema.TABLES["alias"]):
            yield [
                entry
                for entry in sorted({_entry(row) for row in rows})
                if wanted is None or fold(entry.address.rpartition("@")[2]) in wanted
            ]

    async def remove_alias(self, entry: AliasEntry) -> None:
        """Forward to this target no more; with the last target of an alias its address goes too.

        An entry is what ``aliases`` lists, in whatever case an address in it is written.
        """
        names = (entry.address, *name_forms(fold(entry.address))[1:])
        for name in await self._tables.fitting("alias", "alias", names):
            lines = _lines_of(
                entry, await self._tables.rows("alias", username=ALIAS_USER, alias=name)
            )
            if lines:
                break
        else:
            lines = {row async for row in self._tables.walk("alias") if _is(_entry(row), entry)}
            name = min((_entry(row).address for row in lines), default="")
        if not lines:
            raise OperatorError(
                f"no alias {entry.address} forwards to {entry.target}: restante alias list shows "
                "them"
            )
        local, _, domain = name.rpartition("@")
        owned = await self._tables.rows("virtual", **_address_columns(name, local, domain))
        users = {(ALIAS_USER, name), *((text_of(line[0]), text_of(line[1])) for line in lines)}
        unused = (
            *[await self._tables.absent("alias", username=user, alias=ext) for user, ext in users],
            await self._tables.absent("mailbox", username=name),
        )
        await self._tables.change(
            f"the alias {name}",
            *(self._tables.delete("alias", row) for row in lines),
            *(self._tables.delete("virtual", row, unused, may_stay=True) for row in set(owned)),
        )

    async def _instructions_of(self, address: Address) -> set[Row]:
        """The rows of ``alias`` that are an account's own; those of the alias user are aliases."""
        if fold(str(address)) == ALIAS_USER:
            return set()
        return set(await self._tables.rows("alias", username=str(address)))

    async def _extended(
        self, table: str, column: str, address: Address, **wanted: str
    ) -> list[Row]:
        """The rows whose column is the address with an extension, ``name-extension@domain``.

        None for a name without a domain, which users of the system may have with extensions.
        """
        if not address.domain:
            return []
        begin, end = fold(f"{address.local}-"), fold(f"@{address.domain}")
        place = schema.TABLES[table].index(column)
        like = all_of((is_extended(column, address), equals(**wanted)))
        rows = await self._tables.select(table, like, **wanted)
        found = ((fold(text_of(row[place])), row) for row in rows)
        return [row for name, row in found if name.startswith(begin) and name.endswith(end)]

    async def _unserved(self, owner: str) -> Sequence[Condition]:
        """That no account has an owner's mail, and that there are no instructions for it."""
        local, at, domain = owner.rpartition("@")
        users = [f"{user}{at}{domain}" for user, _ in dash_prefixes(local)]
        return (
            await self._tables.absent("alias", username=ALIAS_USER, alias=owner),
            *[await self._tables.absent("mailbox", username=user) for user in users],
        )

    async def _members(self, domain: str) -> Callable[[str], bool]:
        """Whether a folded name is one of those with an address in the domain, or named for it."""
        suffixes = tuple(f"@{form}" for form in forms(domain))
        owners: set[str] = set()
        for form in await self._tables.fitting("virtual", "virtual_host", forms(domain)):
            async for row in self._tables.walk("virtual", virtual_host=form):
                owners.add(fold(text_of(row[0])))
        return lambda name: name in owners or name.endswith(suffixes)

    async def _hosted(self, domain: str) -> str:
        """The domain in the form that ``rcpthosts`` has; empty: it has none."""
        for form in forms(domain):
            if await self._directory.accepts_domain(form):
                return form
        return ""

    async def _need_domain(self, domain: str) -> str:
        host = await self._hosted(domain)
        if not host:
            raise _unknown_domain(domain)
        return host

    async def _need_mailbox(self, address: Address) -> tuple[Address, list[Row]]:
        """The rows of the account, and the form of the address that is its name."""
        for name in await self._tables.fitting("mailbox", "username", name_forms(str(address))):
            if rows := await self._tables.rows("mailbox", username=name):
                return Address.from_stored(name), rows
        raise _unknown_mailbox(address)

    async def _need_free(self, address: Address) -> None:
        if there := await self.mailbox(address):
            raise OperatorError(f"the mailbox {there.name} exists: restante mailbox show prints it")
        owners = [
            owner
            for form in forms(address.domain)
            for owner in await self._directory.owners(address.local, form)
        ]
        if {_key(owner) for owner in owners} == {_key(str(address))}:
            raise OperatorError(f"{address} is an alias and cannot be a mailbox: remove it first")
        if owners:
            raise OperatorError(
                f"the address {address} belongs to {', '.join(owners)}: remove that alias or "
                "mailbox first"
            )
        taken = await self._extended("alias", "alias", address, username=ALIAS_USER)
        if taken:
            raise OperatorError(
                f"the mailbox {address} would get the mail of the alias "
                f"{min(text_of(row[1]) for row in taken)} as well: remove that first"
            )

    async def _need_alias_or_nothing(self, local: str, domain: str) -> str:
        """The domain in the form that the alias has already; empty: there is none yet."""
        found = ""
        names = name_forms(f"{local}@{domain}")
        for name in await self._tables.fitting("mailbox", "username", names):
            if await self._tables.rows("mailbox", username=name):
                raise OperatorError(f"{name} is a mailbox and cannot be an alias: remove it first")
        for form in forms(domain):
            name = f"{local}@{form}"
            owners = await self._directory.owners(local, form)
            if others := [owner for owner in owners if fold(owner) != fold(name)]:
                raise OperatorError(
                    f"the address {name} belongs to {', '.join(others)} and cannot be an alias: "
                    "remove that row of virtual first"
                )
            found = found or (form if owners else "")
        return found

    async def _need_no_extension(self, local: str, domain: str) -> None:
        """That no account has the mail of an owner of this name (decision 3 of the rules)."""
        for user, extension in dash_prefixes(local):
            for row in await self._tables.rows("mailbox", username=f"{user}@{domain}"):
                raise OperatorError(
                    f"the mailbox {text_of(row[0])} has the mail of {local}@{domain}, as its "
                    f"extension {extension!r}: write rows for that one (docs/tables.md has them)"
                )


def _mailboxes(by_name: Mapping[str, Sequence[Row]]) -> Mailboxes:
    accounts, problems = [], []
    for name in sorted(by_name):
        try:
            accounts += [account_of(row) for row in [chosen(by_name[name])] if row is not None]
        except BadRow as error:
            problems.append(str(error))
    return Mailboxes(tuple(accounts), tuple(problems))


def _address_columns(owner: str, local: str, domain: str) -> dict[str, str]:
    return {"username": owner, "virtual_username": local, "virtual_host": domain}


def _target_columns(target: Address) -> dict[str, str]:
    """The columns together are an instruction line's address."""
    return {"alias_username": _quoted(target.local), "alias_host": target.domain}


def _quoted(local: str) -> str:
    """A local part with quotes if it needs any (RFC 5321 §4.1.2, Quoted-string)."""
    return join_mailbox(local, "")


def _entry(row: Sequence[Value]) -> AliasEntry:
    """The entry of a row of ``alias``; ``user-extension`` for rows of users with an account."""
    user, extension = text_of(row[0]), text_of(row[1])
    target = line_of(row[2], row[3])
    if fold(user) == ALIAS_USER:
        return AliasEntry(extension, target.removeprefix("&"))
    local, at, domain = user.partition("@")
    dash = "-" if extension else ""
    return AliasEntry(f"{local}{dash}{extension}{at}{domain}", target.removeprefix("&"))


def _lines_of(asked: AliasEntry, rows: Iterable[Row]) -> set[Row]:
    return {row for row in rows if _is(_entry(row), asked)}


def _is(shown: AliasEntry, asked: AliasEntry) -> bool:
    """Whether an entry is the one that is asked for; programs and paths have no other case."""
    if _key(shown.address) != _key(asked.address):
        return False
    if shown.target == asked.target:
        return True
    is_address = "@" in shown.target and not shown.target.startswith(("|", ".", "/"))
    return is_address and _key(_unquoted(shown.target)) == _key(_unquoted(asked.target))


def _unquoted(target: str) -> str:
    """An address as ``str(Address)``, in whichever way it is written; anything else as it is."""
    try:
        return str(Address.parse(target))
    except AddressSyntaxError:
        return target


def _key(name: str) -> str:
    """The same for all forms of one address."""
    return name_in_a_labels(fold(name))


def _address(local: str, domain: str) -> Address:
    """The checked address, as a row has it; raises OperatorError."""
    address = Address(local, domain)
    try:
        checked = Address.parse(address.to_mailbox())
    except AddressSyntaxError as error:
        raise OperatorError(f"{str(address)!r} is no address: {error}") from None
    if not checked.domain:
        raise OperatorError(f"{str(address)!r} has no domain: write name@domain")
    return Address(checked.local, in_own_form(checked.domain))


def _alias_address(address: tuple[str, str]) -> tuple[str, str]:
    local, domain = address
    if not local:
        return "", in_own_form(_domain(domain))
    checked = _address(local, domain)
    return checked.local, checked.domain


def _domain(name: str) -> str:
    try:
        return check_domain(name)
    except AddressSyntaxError as error:
        raise OperatorError(f"{name!r} is no domain: {error}") from None


def _check_account(account: Account, name: str) -> None:
    if fold(account.name) != fold(name):
        raise OperatorError(f"the account of {name} must bear that name, not {account.name!r}")
    for kind, number in (("uid", account.uid), ("gid", account.gid)):
        if not 0 < number <= MAX_ID:
            raise OperatorError(f"{kind} {number} cannot own mail: choose one from 1 to {MAX_ID}")
    home = account.home
    if not home.startswith("/") or not home.isprintable() or ".." in home.split("/"):
        raise OperatorError(f"the home {home!r} is no plain absolute path: name another")
    if len(home) > MAX_HOME:
        raise OperatorError(f"the home is longer than {MAX_HOME} characters: name another")


def _hash(password: str) -> str:
    if not password:
        raise OperatorError("the password is empty: choose one")
    return password


def _unknown_domain(domain: str) -> OperatorError:
    return OperatorError(f"the domain {domain} is not hosted here: restante domain add {domain}")


def _unknown_mailbox(address: Address) -> OperatorError:
    return OperatorError(f"there is no mailbox {address}: restante mailbox list shows them")

"""Decision 4: what is to be done with the message.

Rows of ``alias`` come first, then ``.qmail`` files, then the default delivery. A subaddress is
an extension of its own where rows or a file say something of it; where nothing does, the
message is delivered as for the name without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from restante.address import VERP, Address
from restante.directory import Account, DotQmail, Lookups, NoHome
from restante.routing.decision import (
    Destination,
    Instruction,
    Instructions,
    Mailbox,
    NoSuchUser,
    ToForward,
    ToMaildir,
    ToProgram,
)
from restante.routing.instructions import BadInstruction, instruction_line, resolve_path
from restante.routing.lists import ListReader
from restante.routing.ownership import Owner
from restante.routing.trace import Notes
from restante.routing.users import NO_ALIAS_ACCOUNT, User, find_alias_account

_OWNER = "-owner"
_DEFAULT = "-default"


@dataclass(frozen=True, slots=True)
class ActionRules:
    """What decision 4 takes from the settings."""

    default: tuple[Instruction, ...]
    """``routing.defaultdelivery``, parsed."""
    delimiter: str
    """``routing.subaddress_delimiter``."""
    system_files: bool
    """``routing.system_files``."""
    reader: ListReader
    """By ``routing.max_alias_targets``."""


async def find_actions(
    address: Address, owner: Owner, user: User, lookups: Lookups, notes: Notes, rules: ActionRules
) -> Mailbox | Instructions | NoSuchUser:
    """Decision 4; raises BadInstruction and what the look-ups raise."""
    notes.note("4", "what is to be done with the message?")
    search = _Search(owner, user, lookups, notes, rules)
    return (
        await search.by_tag_rows()
        or await search.by_rows()
        or await search.by_files()
        or search.by_default(address)
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """An extension of the user, and the address that delivers to it."""

    extension: str
    delivered_to: str

    def new_sender(self, *, variable: bool) -> str:
        """Whom reports about what is sent on from here go to (dot-qmail(5))."""
        local, at, host = self.delivered_to.rpartition("@")
        if variable:
            return f"{local}{_OWNER}-{at}{host}{VERP}"
        return f"{local}{_OWNER}{at}{host}"


@dataclass(frozen=True, slots=True)
class _Search:
    owner: Owner
    user: User
    lookups: Lookups
    notes: Notes
    rules: ActionRules

    async def by_tag_rows(self) -> Instructions | None:
        place = self._tag_place()
        if place and (lines := await self._ask(place.extension)):
            return await self._by_lines(lines, place)
        return None

    async def by_rows(self) -> Instructions | None:
        """Rows for the extension, else for the user's catch-all."""
        lines = await self._ask(self.user.extension)
        if not lines and self.user.extension:
            lines = await self._ask("")
        return await self._by_lines(lines, self._place()) if lines else None

    async def by_files(self) -> Mailbox | Instructions | None:
        """The file for the subaddress, else the one for the extension."""
        account = await self._account_with_files()
        if account is None:
            return None
        if (place := self._tag_place()) and (file := await self._tag_file(account, place)):
            return await self._by_file(account, file, place)
        if file := await self.lookups.dot_qmail(account, self.user.extension):
            return await self._by_file(account, file, self._place())
        return None

    def by_default(self, address: Address) -> Mailbox | Instructions | NoSuchUser:
        account, extension = self.user.account, self.user.extension
        if account is None or extension:
            self.notes.note("4", "nothing is set for the extension %r", extension)
            why = f"user {self.user.name} has no instructions for extension {extension!r}"
            return NoSuchUser(address, why)
        self.notes.note("4", "no instructions: setting routing.defaultdelivery")
        return self._default(account, self._place(), "routing.defaultdelivery")

    def _place(self) -> _Place:
        return _Place(self.user.extension, self.owner.delivered_to)

    def _tag_place(self) -> _Place | None:
        """The subaddress. The alias user has none: its extensions are other addresses."""
        if not (self.owner.tag and self.user.account):
            return None
        extension = "-".join(filter(None, (self.user.extension, self.owner.tag)))
        local, at, domain = self.owner.delivered_to.rpartition("@")
        return _Place(extension, f"{local}{self.rules.delimiter}{self.owner.tag}{at}{domain}")

    async def _ask(self, extension: str) -> tuple[str, ...]:
        lines = await self.lookups.instructions(self.user.name, extension)
        if lines:
            self.notes.note(
                "4", "alias has %d instructions for %s, %r", len(lines), self.user.name, extension
            )
        return lines

    async def _account_with_files(self) -> Account | None:
        if not self.rules.system_files:
            return None
        return self.user.account or await find_alias_account(self.lookups, system_files=True)

    async def _tag_file(self, account: Account, place: _Place) -> DotQmail | None:
        """The file for the subaddress, unless it is a ``-default`` that serves the name as well."""
        try:
            file = await self.lookups.dot_qmail(account, place.extension)
        except NoHome:
            return None
        return file if file and len(file.default) <= len(self.owner.tag) else None

    async def _by_lines(self, lines: tuple[str, ...], place: _Place) -> Instructions:
        actions = await self.rules.reader.read(lines)
        account = self.user.account
        if account is None and not all(isinstance(action, ToForward) for action in actions):
            account = await find_alias_account(self.lookups, system_files=self.rules.system_files)
            if account is None and not any(isinstance(action, ToForward) for action in actions):
                raise BadInstruction(f"{instruction_line(actions[0])!r}: {NO_ALIAS_ACCOUNT}")
        new_sender = await self._owner_by_rows(place) if _sends_on(actions) else ""
        destination = Destination(self.user.name, place.extension, new_sender=new_sender)
        return Instructions(account, place.delivered_to, actions, destination)

    async def _owner_by_rows(self, place: _Place) -> str:
        if not await self._ask(self._owners_extension(place, _OWNER)):
            return ""
        variable = await self._ask(self._owners_extension(place, _OWNER + _DEFAULT))
        return place.new_sender(variable=bool(variable))

    def _owners_extension(self, place: _Place, suffix: str) -> str:
        """The extension whose rows stand for the file ``.qmail-EXT`` + suffix."""
        if self.user.account is None and self.owner.from_virtual and "@" in place.extension:
            # The extension is a whole address; its owner is at the same domain.
            local, at, domain = place.extension.rpartition("@")
            return f"{local}{suffix}{at}{domain}"
        return f"{place.extension}{suffix}".removeprefix("-")

    async def _by_file(
        self, account: Account, file: DotQmail, place: _Place
    ) -> Mailbox | Instructions:
        if not file.lines:
            self.notes.note("4", "%s is empty: setting routing.defaultdelivery", file.path)
            new_sender = _owner_by_file(file, place, self.rules.default)
            return self._default(account, place, file.path, file.default, new_sender)
        actions = await self.rules.reader.read(file.lines, file.path)
        self.notes.note("4", "the file %s, default stands for %r", file.path, file.default)
        new_sender = _owner_by_file(file, place, actions)
        destination = Destination(self.user.name, place.extension, file.default, new_sender)
        return Instructions(account, place.delivered_to, actions, destination, file.path)

    def _default(
        self,
        account: Account,
        place: _Place,
        source: str,
        default: str = "",
        new_sender: str = "",
    ) -> Mailbox | Instructions:
        match self.rules.default:
            case (ToMaildir(path),):
                return Mailbox(account, place.delivered_to, resolve_path(account.home, path))
        destination = Destination(self.user.name, place.extension, default, new_sender)
        return Instructions(account, place.delivered_to, self.rules.default, destination, source)


def _owner_by_file(file: DotQmail, place: _Place, actions: tuple[Instruction, ...]) -> str:
    if file.has_owner and _sends_on(actions):
        return place.new_sender(variable=file.has_owner_default)
    return ""


def _sends_on(actions: tuple[Instruction, ...]) -> bool:
    """Whether anything is done that a new sender matters to: a forward, or NEWSENDER."""
    return any(isinstance(action, ToForward | ToProgram) for action in actions)

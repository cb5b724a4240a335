"""Who exists: the rows of the SQL database, and behind them the files of the system.

This module is the contract. Every method raises CannotKnow when the answer
cannot be had; "not found" is only ever said by a database that was asked.
Names are compared by ``restante.address.fold``: ASCII case is ignored and
nothing else, whatever the collation of the database would ignore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from restante.errors import CannotKnow, TemporaryError
from restante.records import record

MAX_ID = 2**32 - 2
"""The largest uid or gid; the one above it means "none" to chown(2) and setresuid(2)."""


def objection_to_ids(uid: int, gid: int, minimum_uid: int, minimum_gid: int) -> str:
    """Why nobody gets the rights of this uid and gid, or an empty string."""
    return objection_to_id("uid", uid, minimum_uid) or objection_to_id("gid", gid, minimum_gid)


def objection_to_id(kind: str, number: int, minimum: int) -> str:
    """The same of one, ``uid`` or ``gid``; root's is never one, whatever the minimum."""
    least = max(minimum, 1)
    if number < least:
        return f"{kind} {number} is below the minimum {least} (mail.minimum_{kind})"
    return f"{kind} {number} is none" if number > MAX_ID else ""


class BadRow(TemporaryError):
    """A row exists and cannot be used; the text names table, key and column.

    It is not "no such user": mail waits until an operator mends the row.
    """


@record
class Account:
    """A row of ``mailbox``: somebody whose mail lies here."""

    name: str
    """The POP3 login, ``name`` or ``name@domain``, as the row writes it."""
    uid: int
    gid: int
    home: str
    """An absolute path; the Maildir is ``home/Maildir``."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an account's login is checked against."""

    account: Account
    password: str | None = field(repr=False)
    """The hash, or the password itself; None or empty never authenticates."""
    password_type: str | None
    """``MySQL-Password`` (also when NULL), ``Crypt-Password`` or ``Password``."""
    is_row: bool = True
    """They stand in ``mailbox``; false for a user of the system, whose hash is not ours."""
    closed: str = ""
    """Why nobody may log in, whatever the password; empty if nothing speaks against it."""


@dataclass(frozen=True, slots=True)
class DotQmail:
    """A ``.qmail`` file that says what is to be done (dot-qmail(5)); checked, and safe to obey."""

    path: str
    lines: tuple[str, ...]
    """All of them, comments and blank ones too: an index here is a line number less one.

    None at all: the file is empty, and asks for the default delivery.
    """
    default: str
    """The part of the extension that ``default`` in the file's name stands for (DEFAULT)."""
    has_owner: bool
    """``.qmail-EXT-owner`` exists: reports about forwards go to it."""
    has_owner_default: bool
    """``.qmail-EXT-owner-default`` exists too: variable envelope return paths."""


class SystemFiles(Protocol):
    """What is asked where SQL has no answer; both raise CannotKnow and BadFile."""

    async def user(self, name: str) -> Account | None:
        """The user in the passwd file, as NSS sees it (decision 3; qmail-getpw(8)).

        None as well for one who has no mail here: uid 0 or below the minimum, or a home
        that is missing or another's.
        """
        ...

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """The file that serves the extension, ``-default`` included (decision 4).

        Raises BadFile where there is one that must not be obeyed, and NoHome where an
        extension is asked for and the home is missing. Without an extension a missing home has
        no file: it is made when mail is delivered to it.
        """
        ...


class NoHome(CannotKnow):
    """The home is missing: not made yet, or on a file server that is away."""


class SystemPasswords(Protocol):
    """The passwords of the system's users (decision 5)."""

    async def credentials(self, name: str) -> Credentials | None:
        """None where ``SystemFiles.user`` is None; raises CannotKnow where no hash can be read."""
        ...


class BadFile(TemporaryError):
    """A file of a user's exists and must not be obeyed; the text names it and says why."""


class NoSystemFiles:
    """For a site whose accounts are rows alone."""

    async def user(self, name: str) -> Account | None:
        """None."""

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """None."""


class Lookups(Protocol):
    """The questions that routing asks."""

    async def accepts_domain(self, domain: str) -> bool:
        """Whether ``rcpthosts`` has the domain (decision 1)."""
        ...

    async def account(self, name: str) -> Account | None:
        """The row of ``mailbox`` with this user name (decisions 2a and 3); raises BadRow."""
        ...

    async def owners(self, local: str, domain: str) -> tuple[str, ...]:
        """The users to whom ``virtual`` gives this address, without repetition, sorted.

        An empty ``local`` asks for the domain's catch-all (decision 2).
        """
        ...

    async def knows_domain(self, domain: str) -> bool:
        """Whether ``virtual`` has any row for the domain (decision 2, step 6)."""
        ...

    async def instructions(self, user: str, extension: str) -> tuple[str, ...]:
        """The lines that ``alias`` has for exactly this user and extension (decision 4).

        A row with a host is the line ``&alias_username@alias_host``; repeated rows are one line.
        They come in the order in which the database has them: SQLite, InnoDB and MyISAM keep the
        one in which they were added, as long as none is removed.
        """
        ...

    async def system_user(self, name: str) -> Account | None:
        """As ``SystemFiles.user``."""
        ...

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """As ``SystemFiles.dot_qmail``."""
        ...


class KnownLookups(Lookups, Protocol):
    """Look-ups that have answers at hand; those are told without waiting."""

    def is_accepted(self, domain: str) -> bool:
        """Whether it is at hand that ``rcpthosts`` has the domain; no: it may have it yet."""
        ...

    def simply_owned(self, local: str, domain: str) -> tuple[str, Account] | None:
        """The first owner in ``virtual`` of this very address, and the mailbox of that name.

        None where there is more to it: an answer that is not at hand, rows that cannot be used,
        instructions for that user, no row at all. Whoever wants to know asks one by one.
        """
        ...


class PasswordKeeper(Protocol):
    """Where an account's hash can be replaced by a better one."""

    async def replace_password(self, credentials: Credentials, password: str) -> bool:
        """Store another hash where the row still holds the one of ``credentials``; whether it did.

        It stands there whole, or nothing has changed. Raises CannotKnow when it cannot be
        written: the database is away, the right to is missing, the column is too short.
        """
        ...


class Directory(Lookups, Protocol):
    """A database of accounts, asked row by row or for many addresses at once."""

    async def prefetch(self, addresses: Sequence[tuple[str, str]]) -> KnownLookups:
        """Look-ups that already know all that these (local part, domain) pairs will need.

        One statement and one round trip (bounded in size; more for very many). Questions
        beyond what was fetched are asked of the database when they come.
        """
        ...

    async def credentials(self, login: str, *, in_full: bool = False) -> Credentials | None:
        """Whom this login names (decision 5): ``mailbox.username``, else the owner in ``virtual``.

        ``in_full``: whoever is found is asked for as one is whom nobody knows, so that the time it
        takes tells nothing. Raises BadRow.
        """
        ...

    async def owns_in(self, user: str, domain: str) -> bool:
        """Whether ``virtual`` gives the user any address of the domain, or its catch-all."""
        ...

    async def close(self) -> None:
        """Give all connections back."""
        ...

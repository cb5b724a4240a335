"""The passwd file and .qmail files, asked in this process.

Both may lie behind a network: look-ups are done in threads, so many at a time, and each
is given up after a while. One that hangs keeps its place until it ends; those in homes of another
machine have places of their own, so that a file server that hangs holds up nobody else.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from weakref import WeakValueDictionary

from restante.address import fold
from restante.config.tree import Settings
from restante.directory import (
    Account,
    BadFile,
    Credentials,
    DotQmail,
    NoSystemFiles,
    SystemFiles,
    objection_to_id,
)
from restante.directory.dotqmail import check_missing_home, read_dot_qmail
from restante.directory.passwd import PasswdEntry, passwd_entry
from restante.directory.shadow import ShadowEntry, system_password
from restante.directory.sql import ALIAS_USER
from restante.directory.threads import Threads
from restante.errors import CannotKnow, reason_of
from restante.mounts import FarPlaces
from restante.rights import RightsRefused, owners_rights

PATIENCE = 5.0
"""Seconds for one look-up: an SMTP peer that asks for several still hears within its timeout."""
MAX_LOOKUPS = 16
"""Look-ups at once, in threads; others wait for their turn, within their patience."""
MAX_LOOKUPS_FAR = 4
"""Those in homes on one file system that may hang."""
MAX_FAR = 16
"""Such file systems that have threads of their own at once; others share MAX_LOOKUPS."""


EntryOf = Callable[[str], PasswdEntry | None]
"""Finds the password entry of a user; raises CannotKnow."""


def mail_user(name: str, minimum_uid: int, entry_of: EntryOf) -> Account | None:
    """The user of the system who has mail (qmail-getpw(8)); raises what SystemFiles.user does.

    Somebody who has a password entry, a uid above 0 and not below the minimum, and a home of
    their own; nobody whose name has upper case letters. The user ``alias`` serves all other
    addresses, and if there is one who cannot, that is an error: BadFile.
    """
    entry = _entry(name, entry_of)
    return None if entry is None else _user(entry, minimum_uid)


def _entry(name: str, entry_of: EntryOf) -> PasswdEntry | None:
    return entry_of(name) if fold(name) == name else None


def _user(entry: PasswdEntry, minimum_uid: int) -> Account | None:
    """See ``mail_user``; looks at the home."""
    why = _objection(entry, minimum_uid)
    if not why:
        return Account(entry.name, entry.uid, entry.gid, entry.home)
    if entry.name == ALIAS_USER:
        raise BadFile(f"passwd: user {entry.name} cannot have mail: {why}")
    return None


def _objection(entry: PasswdEntry, minimum_uid: int) -> str:
    why = objection_to_id("uid", entry.uid, minimum_uid)
    if why:
        return why
    if not entry.home.startswith("/"):
        return f"the home {entry.home!r} is no absolute path"
    try:
        home = os.stat(entry.home)
    except (FileNotFoundError, NotADirectoryError):
        return f"the home {entry.home} is missing"
    except (OSError, ValueError) as error:
        raise CannotKnow(
            f"passwd: {entry.name}: cannot see {entry.home}: {reason_of(error)}"
        ) from error
    if not stat.S_ISDIR(home.st_mode):
        return f"the home {entry.home} is no directory"
    if home.st_uid != entry.uid:
        return f"the home {entry.home} belongs to uid {home.st_uid}, not to {entry.uid}"
    return ""


class _Lookups:
    """The threads in which look-ups are done. Belongs to one event loop."""

    def __init__(self, patience: float, places: FarPlaces | None) -> None:
        self._patience = patience
        self._places = places or FarPlaces()
        self.near = Threads(MAX_LOOKUPS, patience)
        self._far = Threads(MAX_LOOKUPS, patience)
        # Threads are kept as long as somebody is in them, for whom they may never answer.
        self._of_place: WeakValueDictionary[str, Threads] = WeakValueDictionary()

    def at(self, home: str) -> Threads:
        """Those for a home."""
        place = self._places.of(home)
        if not place:
            return self.near
        threads = self._of_place.get(place)
        if threads is None:
            if len(self._of_place) >= MAX_FAR:
                return self._far
            threads = self._of_place[place] = Threads(MAX_LOOKUPS_FAR, self._patience)
        return threads


def system_files(settings: Settings) -> SystemFiles:
    """What is asked after SQL, by a process that does it itself."""
    if not settings.routing.system_files:
        return NoSystemFiles()
    return HostFiles(settings.mail.minimum_uid, settings.mail.minimum_gid)


class HostFiles:
    """``SystemFiles`` by this process itself: with the owner's rights as root, else with its own.

    Belongs to one event loop.
    """

    def __init__(
        self,
        minimum_uid: int,
        minimum_gid: int,
        entry_of: EntryOf = passwd_entry,
        patience: float = PATIENCE,
        places: FarPlaces | None = None,
    ) -> None:
        self._minimum_uid = minimum_uid
        self._entry_of = entry_of
        self._ways = owners_rights(minimum_uid, minimum_gid)
        self._lookups = _Lookups(patience, places)

    async def user(self, name: str) -> Account | None:
        """See SystemFiles."""
        what = f"passwd: {name}"
        entry = await self._lookups.near.run(what, lambda: _entry(name, self._entry_of))
        if entry is None:
            return None
        return await self._lookups.at(entry.home).run(
            f"{what}: {entry.home}", lambda: _user(entry, self._minimum_uid)
        )

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        return await self._lookups.at(account.home).run(
            f".qmail files in {account.home}", lambda: self._dot_qmail(account, extension)
        )

    def _dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        own = os.geteuid()
        if own not in (0, account.uid):
            raise CannotKnow(
                f".qmail files of {account.name}: its uid is {account.uid}, "
                f"this process runs as {own}"
            )
        try:
            way = self._ways(account)
        except FileNotFoundError:
            check_missing_home(account, extension)
            return None
        except RightsRefused as error:
            raise BadFile(f".qmail files of {account.name}: {error}") from error
        with contextlib.closing(way), way.rights():
            return read_dot_qmail(account, extension, way.path)


class HostPasswords:
    """``SystemPasswords`` by this process itself, which may read the shadow file.

    Belongs to one event loop.
    """

    def __init__(
        self,
        minimum_uid: int,
        entry_of: EntryOf = passwd_entry,
        password_of: Callable[[PasswdEntry], ShadowEntry] = system_password,
        clock: Callable[[], float] = time.time,
        places: FarPlaces | None = None,
    ) -> None:
        self._minimum_uid = minimum_uid
        self._entry_of = entry_of
        self._password_of = password_of
        self._clock = clock
        self._lookups = _Lookups(PATIENCE, places)

    async def credentials(self, name: str) -> Credentials | None:
        """See SystemPasswords."""
        what = f"shadow: {name}"
        entry = await self._lookups.near.run(what, lambda: _entry(name, self._entry_of))
        if entry is None:
            return None
        return await self._lookups.at(entry.home).run(what, lambda: self._find(entry))

    def _find(self, entry: PasswdEntry) -> Credentials | None:
        account = _user(entry, self._minimum_uid)
        if account is None:
            return None
        found = self._password_of(entry)
        closed = found.objection(self._clock())
        return Credentials(account, found.password, "Crypt-Password", is_row=False, closed=closed)

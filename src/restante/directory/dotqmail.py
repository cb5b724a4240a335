"""``.qmail`` files (dot-qmail(5)): which one serves an extension, and whether it may be obeyed.

All of it is plain file work with the rights that the thread or process has, which should be
the owner's. A home is under its owner's control, and so is what it holds: links are followed
as far as the owner may go, and every size has a bound.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from restante.address import fold
from restante.directory import Account, BadFile, DotQmail, NoHome
from restante.errors import CannotKnow

MAX_SIZE = 512 * 1024
"""Octets of a file: well above a mailing list of the most targets that an alias may have."""
MAX_LINES = 20_000
"""Lines of a file, comments and blank ones too."""
MAX_FILE_NAME = 255
"""Octets in a file name (NAME_MAX); no file has a longer one."""

_DEFAULT = "default"
_HOME = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Nothing that lies in a home holds a reader up: neither a FIFO nor a lease."""
_OWNERS_MATTER = (errno.EACCES, errno.EPERM, errno.ELOOP)
"""Errors that the owner has to mend; any other may be gone at the next try."""


def read_dot_qmail(account: Account, extension: str, home: str = "") -> DotQmail | None:
    """What ``SystemFiles.dot_qmail`` answers; raises the same.

    ``home``: how to get into the account's home, if not by its own name.
    """
    try:
        place = os.open(home or account.home, _HOME)
    except FileNotFoundError:
        check_missing_home(account, extension)
        return None
    except NotADirectoryError:
        raise BadFile(f"{account.home} is no directory") from None
    except OSError as error:
        raise CannotKnow(f"cannot enter {account.home}: {error.strerror}") from error
    try:
        return _Home(account, place).find(extension)
    finally:
        os.close(place)


def check_missing_home(account: Account, extension: str) -> None:
    """Raise NoHome where a missing home leaves open what there is; otherwise there is no file."""
    if extension:
        raise NoHome(f"the home {account.home} of {account.name} is missing")


def file_names(extension: str) -> Iterator[tuple[str, str]]:
    """The files that may serve an extension, in their order, each with its DEFAULT.

    ``a-B.c`` is served by ``.qmail-a-b:c``, ``.qmail-a-default`` and ``.qmail-default``.
    """
    if not extension:
        yield ".qmail", ""
        return
    safe = _safe(extension)
    yield f".qmail-{safe}", extension[-len(_DEFAULT) :] if safe.endswith(_DEFAULT) else ""
    for end in range(len(safe), -1, -1):
        if not end or safe[end - 1] == "-":
            yield f".qmail-{safe[:end]}{_DEFAULT}", extension[end:]


def _safe(extension: str) -> str:
    return fold(extension).replace(".", ":")


class _Home:
    """An open home; every file is reached from its descriptor."""

    def __init__(self, account: Account, place: int) -> None:
        self._account = account
        self._place = place

    def find(self, extension: str) -> DotQmail | None:
        self._check_home()
        for name, default in file_names(extension):
            file = self._open(name)
            if file is None:
                continue
            try:
                text = self._read(name, file)
            finally:
                os.close(file)
            if text is not None:
                return self._found(name, text, extension, default)
        return None

    def _found(self, name: str, lines: tuple[str, ...], extension: str, default: str) -> DotQmail:
        owner = f".qmail-{_safe(extension)}-owner" if extension else ".qmail-owner"
        has_owner = self._exists(owner)
        has_owner_default = has_owner and self._exists(f"{owner}-{_DEFAULT}")
        return DotQmail(self._path(name), lines, default, has_owner, has_owner_default)

    def _check_home(self) -> None:
        home = os.fstat(self._place)
        what = f"the home {self._account.home}"
        self._check_rights(home, what)
        if home.st_mode & stat.S_ISVTX:
            raise BadFile(f"{what} has the sticky bit set: its owner is editing .qmail files")

    def _check_rights(self, found: os.stat_result, what: str) -> None:
        """Nobody but the account and root may decide what is done with its rights."""
        account = self._account
        if found.st_uid not in (account.uid, 0):
            raise BadFile(f"{what} belongs to uid {found.st_uid}, not to {account.uid}")
        if found.st_mode & stat.S_IWOTH:
            raise BadFile(f"{what} can be written to by everybody")
        if found.st_mode & stat.S_IWGRP and found.st_gid != account.gid:
            raise BadFile(f"{what} can be written to by another group, gid {found.st_gid}")

    def _open(self, name: str) -> int | None:
        if not _can_be(name):
            return None
        try:
            return os.open(_octets(name), _READ, dir_fd=self._place)
        except FileNotFoundError:
            if self._is_there(name):
                raise BadFile(f"{self._path(name)} is a link to nothing") from None
            return None
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise self._irregular(name) from None
            raise self._failure(name, error) from error

    def _read(self, name: str, file: int) -> tuple[str, ...] | None:
        """The lines of an open file; None for a directory, which is no .qmail file at all."""
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise self._irregular(name)
        self._check_rights(found, self._path(name))
        try:
            text = _contents(file)
        except OSError as error:
            raise self._failure(name, error) from error
        if len(text) > MAX_SIZE:
            raise BadFile(f"{self._path(name)} is longer than {MAX_SIZE} octets")
        lines = text.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
        if len(lines) > MAX_LINES:
            raise BadFile(f"{self._path(name)} has more than {MAX_LINES} lines")
        if not text:
            return ()
        self._check_lines(name, lines, forwards_only=bool(found.st_mode & stat.S_IXUSR))
        return tuple(lines)

    def _check_lines(self, name: str, lines: list[str], *, forwards_only: bool) -> None:
        """Refuse what an unfinished file looks like, and deliveries where only forwards may be."""
        if not lines[0].strip():
            raise BadFile(f"{self._path(name)}:1: the first line is blank")
        why = "the file is executable"
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if text == "+list":
                forwards_only, why = True, f"+list stands in line {number}"
            elif forwards_only and text.startswith((".", "/", "|")):
                raise BadFile(f"{self._path(name)}:{number}: only forwards may be here, as {why}")

    def _exists(self, name: str) -> bool:
        """Whether a name leads to anything."""
        if not _can_be(name):
            return False
        try:
            os.stat(_octets(name), dir_fd=self._place)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._failure(name, error) from error
        return True

    def _is_there(self, name: str) -> bool:
        try:
            os.lstat(_octets(name), dir_fd=self._place)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._failure(name, error) from error
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self._account.home, name)

    def _irregular(self, name: str) -> BadFile:
        return BadFile(f"{self._path(name)} is no regular file")

    def _failure(self, name: str, error: OSError) -> BadFile | CannotKnow:
        kind = BadFile if error.errno in _OWNERS_MATTER else CannotKnow
        return kind(f"cannot read {self._path(name)}: {error.strerror}")


def _can_be(name: str) -> bool:
    """Whether a directory can hold the name; what comes from an address may be anything."""
    return "/" not in name and "\0" not in name and len(_octets(name)) <= MAX_FILE_NAME


def _octets(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _contents(file: int) -> bytes:
    """All of the file, or just more than MAX_SIZE octets."""
    text = b""
    while len(text) <= MAX_SIZE and (block := os.read(file, MAX_SIZE + 1 - len(text))):
        text += block
    return text

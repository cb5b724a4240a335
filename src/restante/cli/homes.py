"""Where accounts' mail lies: whose it is, under which path, how much there is, and its removal."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

from restante.address import Address, fold
from restante.config.tree import Settings
from restante.directory import objection_to_ids
from restante.errors import OperatorError

if TYPE_CHECKING:
    from restante.directory.admin import AccountHome

_MAX_COMPONENT = 230
"""Octets in a file name of a home: NAME_MAX is 255, and ``delete_home`` needs some."""
_IN_USE_ON_NFS = ".nfs"
"""How names begin that its client gives to files that are removed while they are open there."""
_USUAL_USERS = ("vmail", "nobody")
"""To whom the mail belongs where root makes an instance: the first that the system has."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The uid and gid that new accounts get."""

    uid: int
    gid: int


def mail_owner(settings: Settings) -> Owner:
    """Whose the files of new accounts are; raises OperatorError if that cannot or must not be."""
    mail = settings.mail
    owner = _named_owner(mail.user) if mail.user else _starter(settings)
    if owner.uid == 0:
        raise OperatorError(
            "accounts must not belong to root: set mail.user to another user of this system"
        )
    why = objection_to_ids(owner.uid, owner.gid, mail.minimum_uid, mail.minimum_gid)
    if why:
        raise OperatorError(
            f"new accounts would get no mail, as their {why}: change mail.user or this"
        )
    return owner


def initial_mail_user() -> str:
    """What ``init`` sets mail.user to: nothing, unless root runs it or the environment says it."""
    named = os.environ.get("RESTANTE_MAIL__USER", "")
    if named or os.geteuid() != 0:
        return named
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((user for user in _USUAL_USERS if user in known), "")


def _named_owner(user: str) -> Owner:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise OperatorError(f"mail.user: there is no user {user!r} on this system") from None
    return Owner(entry.pw_uid, entry.pw_gid)


def _starter(settings: Settings) -> Owner:
    """To whom alone a server can deliver that is not root's."""
    from restante.service.user import starting_uid

    starter = starting_uid(settings)
    if starter in (0, os.geteuid()):
        return Owner(os.geteuid(), os.getegid())
    try:
        return Owner(starter, pwd.getpwuid(starter).pw_gid)
    except KeyError:  # as in containers
        return Owner(starter, os.stat(settings.directory).st_gid)


def home_of(settings: Settings, address: Address) -> str:
    """The home of a new account: ROOT/DOMAIN/NAME, in lower case, each a single safe component."""
    root = settings.path(settings.mail.root)
    return os.path.join(root, _component(address.domain), _component(address.local))


def _component(text: str) -> str:
    """A file name for any text: ``/``, ``%`` and whatever is unusual as ``%2F``.

    A leading dot is encoded too: ``..`` would leave the directory, and dot files are hidden. What
    would be too long ends in a digest of it, behind a comma, which no other component has.
    """
    encoded = quote(fold(text), safe="!#$&'*+=?^_`{|}~-.[]:@")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if len(encoded) <= _MAX_COMPONENT:
        return encoded
    return f"{encoded[:180]},{sha256(encoded.encode()).hexdigest()[:32]}"


def has_something(home: str) -> bool:
    """Whether anything lies in a home, as far as it can be looked into."""
    try:
        return bool(os.listdir(home))
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Holding:
    """How much mail lies in a home."""

    messages: int
    octets: int


def measure(home: str) -> Holding:
    """The mail in a home's Maildir and its subfolders; raises OperatorError if it is unreadable."""
    sizes = []
    try:
        for folder in _folders(os.path.join(home, "Maildir")):
            for name in ("new", "cur"):
                sizes += list(_message_sizes(os.path.join(folder, name)))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return Holding(0, 0)  # nothing can lie there
        raise OperatorError(f"{error.filename} cannot be read: {error.strerror}") from None
    return Holding(len(sizes), sum(sizes))


def _folders(maildir: str) -> Iterator[str]:
    """The Maildir itself and its Maildir++ subfolders."""
    yield maildir
    try:
        names = os.listdir(maildir)
    except FileNotFoundError:
        return
    for name in names:
        if name.startswith("."):
            yield os.path.join(maildir, name)


def _message_sizes(folder: str) -> Iterator[int]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # read or deleted meanwhile
                    yield entry.stat(follow_symlinks=False).st_size


def deletable_home(settings: Settings, home: str, others: Iterable[AccountHome]) -> str:
    """The path of a home that ``delete_home`` may remove; raises OperatorError.

    What can be known to stand in the way is told here, while nothing has changed. ``others`` are
    all that are to keep their mail: several accounts may share a home, and a home may hold others.
    """
    root = os.path.realpath(settings.path(settings.mail.root))
    real = os.path.realpath(home)
    if not _holds(root, real) or real == root:
        raise OperatorError(
            f"nothing was removed: the mail in {home} is not below mail.root, {root}; "
            "delete it by hand, then remove the mailbox without --delete-mail"
        )
    resolved = path_resolver()
    for other in others:
        if _is_path(other.home) and _holds(real, resolved(other.home)):
            raise OperatorError(
                f"nothing was removed: {home} holds the mail of {other.name} too; give one of the "
                "two another home first (column home of table mailbox), and move its mail there"
            )
    parent = os.path.dirname(real)
    if os.path.lexists(real) and not os.access(parent, os.W_OK | os.X_OK):
        raise OperatorError(
            f"nothing was removed: {home} cannot be deleted: {parent} is not writable"
        )
    return real


def path_resolver() -> Callable[[str], str]:
    """As os.path.realpath, for many paths that share directories: these are looked at once.

    Only the file system knows whether two homes are one: links may lead from any to any.
    """
    real_directory = cache(os.path.realpath)

    def resolved(path: str) -> str:
        directory, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        place = os.path.join(real_directory(directory), name)
        return os.path.realpath(place) if os.path.islink(place) else place

    return resolved


def _is_path(home: str) -> bool:
    """Whether mail can lie there at all; rows may hold anything."""
    return home.startswith("/") and "\0" not in home


def _holds(directory: str, path: str) -> bool:
    """Whether the path is the directory's own, or leads to something below it; both are real."""
    return f"{path}/".startswith(os.path.join(directory, ""))


def delete_home(real: str) -> None:
    """Remove a home whose account is gone, and all that is in it.

    The account goes first, so that no failure parts an account from its mail. Each of these
    states is left by an end in between, and by nothing else:

    1. The account and its home, as before.
    2. No account; its home as it was. What a worker was about to deliver may still come.
    3. No account; what is left of its home bears another name, which ``home_of`` gives to nobody
       (capitals): who is given the same address later does not find this mail, and nothing is
       delivered into it.
    4. Neither.

    Raises OperatorError in the states 2 and 3, with the place where the mail is; Ctrl-C is one of
    the ways there.
    """
    directory, name = os.path.split(real)
    aside = f"{name}.REMOVED-{os.getpid()}"
    place = real
    try:
        if not os.path.lexists(real):
            return
        with _held(directory) as parent:
            os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
            place = os.path.join(directory, aside)
            os.fsync(parent)  # or a power cut could bring state 2 back, in part
            _remove_all(place, parent)
    except (OSError, KeyboardInterrupt) as error:
        why = "interrupted"
        if isinstance(error, OSError):
            why = f"{error.filename or place}: {error.strerror}"
        raise OperatorError(
            f"the account is gone, but mail of it is still in {place}, which you can delete by "
            f"hand: {why}"
        ) from None


def _remove_all(place: str, parent: int) -> None:
    """A directory, with what it holds; raises the first failure, behind which it has gone on.

    Raises OperatorError where all that is left is in use on this machine: NFS gives such files
    other names, and their directories cannot go before them.
    """
    name = os.path.basename(place)
    failures: list[BaseException] = []
    shutil.rmtree(name, dir_fd=parent, onerror=lambda _, __, failure: failures.append(failure[1]))
    if not failures:
        return
    walk = os.fwalk(name, dir_fd=parent, onerror=_raise)  # what cannot be listed may hold mail
    left = [file for _, _, files, _ in walk for file in files]
    if not left:  # they were closed meanwhile
        shutil.rmtree(name, dir_fd=parent)
        return
    if all(file.startswith(_IN_USE_ON_NFS) for file in left):
        raise OperatorError(
            f"the account and its mail are gone, but a session has files open in {place}: delete "
            "that by hand when it has ended"
        )
    raise failures[0]


def _raise(error: OSError) -> NoReturn:
    raise error


@contextmanager
def _held(real: str) -> Iterator[int]:
    """A directory by its names alone: whoever owns one of those on the way may have put a link
    there since the path was resolved, which must not lead root elsewhere. Raises OSError."""
    passing = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as opened:

        def step(name: str, place: int | None, flags: int = passing) -> int:
            below = os.open(name, flags, dir_fd=place)
            opened.callback(os.close, below)
            return below

        place = step("/", None)
        for name in filter(None, real.split("/")):
            place = step(name, place)
        yield step(".", place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

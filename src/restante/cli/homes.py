"""Where accounts' mail lies: whose it is, under which path, how much there is, and its removal."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

from restante.address import Address, fold
from restante.config.tree import Settings
from restante.errors import OperatorError

_USUAL_USERS = ("vmail", "nobody")
"""To whom the mail belongs where root makes an instance: the first that the system has."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The uid and gid that new accounts get."""

    uid: int
    gid: int


def mail_owner(settings: Settings) -> Owner:
    """Whose the files of new accounts are; raises OperatorError if that cannot or must not be."""
    owner = _named_owner(settings.mail.user) if settings.mail.user else _own()
    if owner.uid == 0:
        raise OperatorError(
            "accounts must not belong to root: set mail.user to another user of this system"
        )
    if owner.uid < settings.mail.minimum_uid or owner.gid < settings.mail.minimum_gid:
        raise OperatorError(
            f"new accounts would get uid {owner.uid} and gid {owner.gid}, less than "
            f"mail.minimum_uid or mail.minimum_gid: change mail.user or these"
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


def _own() -> Owner:
    return Owner(os.geteuid(), os.getegid())


def home_of(settings: Settings, address: Address) -> str:
    """The home of a new account: ROOT/DOMAIN/NAME, in lower case, each a single safe component."""
    root = settings.path(settings.mail.root)
    return os.path.join(root, _component(address.domain), _component(address.local))


def _component(text: str) -> str:
    """A file name for any text: ``/``, ``%`` and whatever is unusual as ``%2F``.

    A leading dot is encoded too: ``..`` would leave the directory, and dot files are hidden.
    """
    encoded = quote(fold(text), safe="!#$&'*+=?^_`{|}~-.[]:@")
    return "%2E" + encoded[1:] if encoded.startswith(".") else encoded


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
                yield entry.stat(follow_symlinks=False).st_size


@contextmanager
def mail_set_aside(settings: Settings, home: str) -> Iterator[None]:
    """Remove a home and all that is in it, once the block has succeeded.

    Before the block it gets another name, so that what cannot be removed is noticed while
    nothing has changed; if the block fails it gets its own again. Raises OperatorError.
    """
    root = os.path.realpath(settings.path(settings.mail.root))
    real = os.path.realpath(home)
    if os.path.commonpath([root, real]) != root or real == root:
        raise OperatorError(
            f"nothing was removed: the mail in {home} is not below mail.root, {root}; "
            "delete it by hand, then remove the mailbox without --delete-mail"
        )
    aside = f"{real}.removed-{os.getpid()}"
    try:
        os.rename(real, aside)
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise OperatorError(
            f"nothing was removed: {home} cannot be deleted: {error.strerror}"
        ) from None
    try:
        yield
    except BaseException:
        os.rename(aside, real)
        raise
    try:
        shutil.rmtree(aside)
    except OSError as error:
        raise OperatorError(
            f"the account is gone, but some of its mail is still in {aside}: "
            f"{error.filename}: {error.strerror}"
        ) from None

"""The drop directory as the server makes it: who may do what in it, and what it tells programs."""

from __future__ import annotations

import contextlib
import os
import stat

from restante.config import Settings
from restante.drop import DropPaths
from restante.drop.site import Site, write_site
from restante.errors import OperatorError
from restante.labels import in_a_labels

ROOM = 64 * 1024
"""Octets of a program's message beyond ``smtp.databytes``, and of its header beyond
``smtp.max_header``: what SMTP took at these limits has some fields more when a program hands it on.
"""


def prepare(settings: Settings) -> DropPaths:
    """Make the drop directory, durably, with the rights that the settings ask for; publish the
    site. Raises OperatorError.
    """
    paths = DropPaths.of(settings.directory)
    everyone = settings.sendmail.users == "everyone"
    try:
        make_directory(paths.root, 0o711 if everyone else 0o700)
        # Sticky and without the right to list: a file can be left there, and only its owner and
        # the server can remove it or know that it is there.
        make_directory(paths.incoming, 0o1733 if everyone else 0o700)
        make_directory(paths.claimed, 0o700)
        make_bad(paths.bad)
        _make_fifo(paths.wake, 0o622 if everyone else 0o600)
        write_site(paths.site, site_of(settings))
    except OSError as error:
        raise OperatorError(
            f"the drop directory {paths.root} cannot be used: {error.strerror}"
        ) from error
    return paths


def site_of(settings: Settings) -> Site:
    """What programs are told of an instance with these settings.

    Domains are in A-labels: what becomes whole by them may go to hosts without SMTPUTF8.
    """
    own, smtp, me = settings.sendmail, settings.smtp, settings.hostname
    defaultdomain = in_a_labels(own.defaultdomain) or _parent(me)
    return Site(
        me,
        in_a_labels(own.defaulthost) or me,
        defaultdomain,
        in_a_labels(own.plusdomain) or defaultdomain,
        most_octets(settings),
        most_in_header(settings),
        smtp.max_text_line,
        smtp.max_received,
        _control(settings),
    )


def most_octets(settings: Settings) -> int:
    """In a message of a program; 0: no limit."""
    databytes = settings.smtp.databytes
    return databytes + ROOM if databytes else 0


def most_in_header(settings: Settings) -> int:
    """Octets in the header of a program's message."""
    return settings.smtp.max_header + ROOM


def _control(settings: Settings) -> str:
    """As far as a line can hold its name."""
    control = settings.control
    if control is None or not control.alone or not control.directory.isprintable():
        return ""
    return control.directory


def _parent(host: str) -> str:
    """``example.com`` for ``mx.example.com``, and for itself."""
    parent = host.partition(".")[2]
    return parent if "." in parent else host


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: str, mode: int) -> None:
    """Make it if it is not there, durably, with these rights; raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        sync_directory(os.path.dirname(path))
    if stat.S_IMODE(os.stat(path).st_mode) != mode:
        os.chmod(path, mode)


def make_bad(path: str) -> None:
    """Make the place for what is no message; one that is another user's, root's say, may do."""
    try:
        make_directory(path, 0o700)
    except PermissionError:
        if not os.path.isdir(path):
            raise


def _make_fifo(path: str, mode: int) -> None:
    """In the place of a file, too, as whoever writes to one that is not there yet makes it."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISFIFO(os.lstat(path).st_mode):
            os.unlink(path)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    os.chmod(path, mode)

"""Large bodies: files next to the queue's database, durable before the row that names them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable

from restante.envelope import Content
from restante.errors import reason_of
from restante.queue import DuplicateMessage, QueueFailed, QueueUnusable

IN_ROW = 64 * 1024
"""Bodies of more octets than this lie in a file."""

LEFT = "bodies.left"
"""Beside the queues: what was mail once and no row names, set aside."""
LEFT_FOR = 30 * 86400.0
"""Seconds for which it is kept there."""

_NEW, _ACCEPTED = 0o700, 0o600
"""Modes of a body whose row may not be committed yet, so that nobody was told that it is kept; and
of one whose row was."""
_LINK_REFUSED = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Bodies:
    """The folder of large bodies. Every method blocks: none is for the event loop."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def path(self, queue_id: str) -> str:
        """Where the body of this message lies, if it is a large one.

        Raises QueueUnusable for what is no queue id: it is what a database says, and root may ask.
        """
        if "/" in queue_id or queue_id in ("", ".", ".."):
            raise QueueUnusable(f"{queue_id!r} is no queue id")
        return os.path.join(self._directory, queue_id)

    def keep(self, queue_id: str, content: Content) -> None:
        """Make the body a durable file of the queue's own.

        Raises DuplicateMessage, and QueueFailed (a full disk) with no file left behind.
        """
        path = self.path(queue_id)
        try:
            _put(content, path)
        except FileExistsError as error:
            raise DuplicateMessage(f"the queue has a body for {queue_id} already") from error
        except OSError as error:
            raise QueueFailed(f"the body {path} cannot be kept: {reason_of(error)}") from error
        try:
            os.chmod(path, _NEW)
            _sync(path)
            _sync(self._directory)
        except OSError as error:
            self.discard(queue_id)
            raise QueueFailed(
                f"the body {path} cannot be made durable: {reason_of(error)}"
            ) from error

    def accept(self, queue_id: str) -> None:
        """Note that its row is committed; where a crash comes before, the next start does it."""
        with contextlib.suppress(OSError):  # the message may be gone by now
            os.chmod(self.path(queue_id), _ACCEPTED)

    def discard(self, queue_id: str) -> None:
        """Remove a body that no row names any more; one that stays is removed at the next start."""
        try:
            os.unlink(self.path(queue_id))
        except (OSError, QueueUnusable):
            return

    def settle(self, is_named: Callable[[str], bool], left: str) -> int:
        """Put in order what the last owner left; how many bodies were set aside in ``left``.

        What no row names is removed if it was never accepted. Anything else was mail, and is still
        where the database is an older copy: it waits there for one that names it, and is removed
        when it has waited for long. Raises OSError.
        """
        _bring_back(left, self._directory, is_named)
        unnamed = []
        with os.scandir(self._directory) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):  # an operator has removed its message
                    is_new = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) == _NEW
                    if is_named(entry.name):
                        if is_new:
                            self.accept(entry.name)
                    elif is_new:
                        self.discard(entry.name)
                    else:
                        unnamed.append(entry.name)
        return _set_aside(self._directory, left, unnamed) if unnamed else 0


def _set_aside(directory: str, left: str, names: Iterable[str]) -> int:
    """Move bodies; how many. One that cannot be moved, to another disk say, stays where it is."""
    make_durable_directory(left)
    moved = 0
    for name in names:
        with contextlib.suppress(OSError):
            os.rename(os.path.join(directory, name), os.path.join(left, name))
            moved += 1
    _sync(left)
    return moved


def _bring_back(left: str, directory: str, is_named: Callable[[str], bool]) -> None:
    """Have what is named by a row again where it belongs; remove what nobody has asked for."""
    with contextlib.suppress(FileNotFoundError), os.scandir(left) as found:
        for entry in found:
            with contextlib.suppress(OSError):  # another worker is faster, or it is no file
                if is_named(entry.name):
                    os.rename(entry.path, os.path.join(directory, entry.name))
                # When it was moved here: nobody can set this time.
                elif time.time() - entry.stat(follow_symlinks=False).st_ctime > LEFT_FOR:
                    os.unlink(entry.path)


def read_small(content: Content) -> bytes:
    """The body of a content that fits in a row; raises QueueFailed if its file cannot be read."""
    try:
        return b"".join(content.body_chunks())
    except OSError as error:
        raise QueueFailed(
            f"the body {content.body!r} cannot be read: {reason_of(error)}"
        ) from error


def _put(content: Content, path: str) -> None:
    if isinstance(content.body, str):
        try:
            os.link(content.body, path)
        except OSError as error:
            if error.errno not in _LINK_REFUSED:
                raise
        else:
            return
    _write(content, path)


def _write(content: Content, path: str) -> None:
    with open(os.open(path, _NEW_FILE, 0o600), "wb") as target:
        try:
            target.writelines(content.body_chunks())
            target.flush()
        except OSError:
            os.unlink(path)
            raise


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durable_directory(path: str) -> None:
    """Make ``path``, mode 0700, and what leads to it, so that a power cut cannot take it away."""
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        make_durable_directory(parent)
        with contextlib.suppress(FileExistsError):  # another worker was faster
            os.mkdir(path, 0o700)
        _sync(parent)
    _sync(path)

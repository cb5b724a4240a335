"""Leaves messages in the drop directory, durably."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from restante.drop import DropPaths, new_names
from restante.drop.record import Head, Record, encode, encode_head

PRIVATE, READABLE = 0o600, 0o644


class Deposit:
    """A message on its way into the drop directory; every method raises OSError.

    It counts as dropped when ``finish`` returns that was given it, and leaves nothing behind if
    ``discard`` is called instead.
    """

    def __init__(self, paths: DropPaths, record: Record) -> None:
        self._paths = paths
        names = new_names()
        self._unfinished, self._finished = (os.path.join(paths.incoming, name) for name in names)
        envelope = encode(record)
        self._envelope_size = len(envelope)
        self._content_size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._unfinished, flags, PRIVATE)
        try:
            os.fchmod(self._file, _mode_for(paths.incoming))
            self._append(encode_head(self._head) + envelope)
        except OSError:
            self.discard()
            raise

    @property
    def _head(self) -> Head:
        return Head(self._envelope_size, self._content_size)

    def write(self, content: bytes) -> None:
        """Append to the content, whose lines end in LF."""
        self._append(content)
        self._content_size += len(content)

    def sync(self) -> None:
        """Make the file durable, which says how long it is."""
        os.pwrite(self._file, encode_head(self._head), 0)
        self.sync_again()

    def sync_again(self) -> None:
        """Make durable what has changed since."""
        os.fsync(self._file)

    def show(self) -> None:
        """Give it the name that the server looks for."""
        os.rename(self._unfinished, self._finished)

    def close(self) -> None:
        """Nothing is left to be done."""
        os.close(self._file)

    def discard(self) -> None:
        """Remove what has been written, also where ``finish`` came half its way."""
        with contextlib.suppress(OSError):
            os.close(self._file)
        for path in (self._unfinished, self._finished):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _append(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(self._file, rest) :]


def finish(paths: DropPaths, deposits: Sequence[Deposit]) -> None:
    """Make the messages durable, then show them to the server, durably, and wake that.

    It sees none before all are on the disk: whoever is told of a failure leaves them all again.
    """
    for deposit in deposits:
        deposit.sync()
    for deposit in deposits:
        deposit.show()
    _sync_names(paths, deposits)
    for deposit in deposits:
        deposit.close()
    wake(paths)


def _sync_names(paths: DropPaths, deposits: Sequence[Deposit]) -> None:
    """Who cannot list a directory cannot open it to sync it.

    A file has changed with its name, so that syncing it again makes file systems with a journal
    (ext4, XFS, Btrfs) write the change of the name as well.
    """
    try:
        directory = os.open(paths.incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        for deposit in deposits:
            deposit.sync_again()
        return
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def wake(paths: DropPaths) -> None:
    """Have the server look at once; one that is not there looks when it starts."""
    with contextlib.suppress(OSError):
        descriptor = os.open(paths.wake, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"\n")
        finally:
            os.close(descriptor)


def _mode_for(incoming: str) -> int:
    """Root reads every file, and a server reads its own user's; others' must be readable for it."""
    server = os.stat(incoming).st_uid
    return PRIVATE if server in {0, os.geteuid()} else READABLE

"""The files of the drop directory: which are claimed for which queue, and what a crash leaves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from restante import maillog
from restante.config import Settings
from restante.drop import DropPaths, is_finished, is_unfinished
from restante.pickup import TakingQueue
from restante.pickup.place import make_bad, sync_directory
from restante.threads import in_thread

ABANDONED = 24 * 3600.0
"""Seconds after which an unfinished file is the trace of a program that was killed."""
MAX_BAD = 1000
"""Files that are kept for the operator to look at; more are removed."""


def claimed_by(paths: DropPaths, slot: int) -> str:
    """Where files lie that go into the queue of ``slot``; it is the queue's owner's."""
    return os.path.join(paths.claimed, str(slot))


def look(paths: DropPaths, most: int) -> list[str]:
    """The names of at most so many files that may be letters; raises OSError. Blocks."""
    with os.scandir(paths.incoming) as entries:
        return [each.name for each in islice(filter(_is_letter, entries), most)]


def claim(paths: DropPaths, claimed: str, names: Iterable[str]) -> list[str]:
    """Move files out of everybody's reach, durably; the names of those that were there still.

    Raises OSError. Another generation of workers may be faster with any of them. Blocks.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(claimed, 0o700)
        sync_directory(paths.claimed)
    moved = [
        name
        for name in names
        if _move(os.path.join(paths.incoming, name), os.path.join(claimed, name))
    ]
    if moved:
        sync_directory(claimed)  # first: without a journal each is written for itself
        sync_directory(paths.incoming)
    return moved


def _move(path: str, to: str) -> bool:
    """Whether it was still there, and no directory that its owner keeps; raises OSError."""
    try:
        os.rename(path, to)
    except FileNotFoundError:
        return False
    except PermissionError:
        if not _is_directory(path):
            raise
        return False
    return True


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def put_aside(paths: DropPaths, path: str, why: str) -> None:
    """Out of the way, for the operator to look at; raises OSError with it in place.

    A directory that its owner has swapped in may be immovable: it stays where it is.
    """
    facts = os.lstat(path)
    make_bad(paths.bad)  # whoever has looked at what was in it may have removed it
    _move_aside(paths, path, is_directory=stat.S_ISDIR(facts.st_mode))
    maillog.drop_refused(os.path.basename(path), facts.st_uid, why)


def _move_aside(paths: DropPaths, path: str, *, is_directory: bool) -> None:
    # A directory with the file's name may be there by now: its owner's, like the file.
    with contextlib.suppress(OSError if is_directory else IsADirectoryError):
        if len(os.listdir(paths.bad)) < MAX_BAD:
            os.rename(path, os.path.join(paths.bad, os.path.basename(path)))
            return
    if not is_directory:
        os.unlink(path)


def _is_letter(entry: os.DirEntry[str]) -> bool:
    """Directories cannot be moved, being their owners'; whatever else it is is found out later."""
    if is_unfinished(entry.name):
        _remove_abandoned(entry)
        return False
    return is_finished(entry.name) and not entry.is_dir(follow_symlinks=False)


def _remove_abandoned(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):
        # Or it was begun while the clock was ahead.
        age = abs(time.time() - entry.stat(follow_symlinks=False).st_mtime)
        if age > ABANDONED:
            os.unlink(entry.path)


async def settle(settings: Settings, slot: int, queue: TakingQueue) -> None:
    """Put in order what the last owner of the queue of ``slot`` was picking up when it ended.

    Before anybody collects into this queue. Raises TemporaryError and OSError.
    """
    paths = DropPaths.of(settings.directory)
    taken = await queue.taken()
    await in_thread(_settle, paths, claimed_by(paths, slot), taken)
    if taken:
        await queue.forget_taken(taken)


def _settle(paths: DropPaths, claimed: str, taken: Collection[str]) -> None:
    """Remove what is taken, and give the rest back, durably."""
    try:
        names = os.listdir(claimed)
    except FileNotFoundError:
        return
    with _alone(paths):
        for name in names:
            path = os.path.join(claimed, name)
            if name in taken:
                os.unlink(path)
            elif not _is_directory(path):  # which is no message, and may be immovable
                _give_back(paths, path)
    sync_directory(paths.incoming)
    sync_directory(claimed)
    with contextlib.suppress(OSError):  # it is made anew when it is needed
        os.rmdir(claimed)


def _give_back(paths: DropPaths, path: str) -> None:
    """Put a claimed file back; raises OSError.

    Its owner may have put a directory in its place. If it cannot be put aside then, it stays.
    """
    try:
        os.rename(path, os.path.join(paths.incoming, os.path.basename(path)))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # see ``forget_second_names``: rename(2) leaves both
    except IsADirectoryError:
        try:
            put_aside(paths, path, "there is a directory where it was")
        except OSError as error:
            maillog.drop_failed(paths.root, str(error))


@contextlib.contextmanager
def _alone(paths: DropPaths) -> Iterator[None]:
    """Among those who decide which of two names goes: they could remove one each."""
    claimed = os.open(paths.claimed, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(claimed, fcntl.LOCK_EX)
        yield
    finally:
        os.close(claimed)


def forget_second_names(paths: DropPaths) -> None:
    """Files that are claimed, for whichever queue, have no name in ``incoming``; raises OSError.

    A power cut may have left both, on file systems without a journal. Before anybody claims: it
    would be claimed a second time, and would then be a file with other names, as of its owner.
    """
    with _alone(paths):
        for slot in os.listdir(paths.claimed):
            claimed = os.path.join(paths.claimed, slot)
            with contextlib.suppress(OSError):  # whoever settles it has to say so
                for name in os.listdir(claimed):
                    _forget_second_name(paths, os.path.join(claimed, name))
    sync_directory(paths.incoming)


def _forget_second_name(paths: DropPaths, claimed: str) -> None:
    path = os.path.join(paths.incoming, os.path.basename(claimed))
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.lstat(path), os.lstat(claimed)):
            os.unlink(path)


def settle_orphans(paths: DropPaths, queues: str) -> None:
    """Give back what was claimed for queues that are no more: nobody else will.

    Raises OSError, also where nobody can say: what a queue has taken would come twice.
    """
    for slot in os.listdir(paths.claimed):
        if not _is_queue(os.path.join(queues, slot)):
            _settle(paths, os.path.join(paths.claimed, slot), frozenset())


def _is_queue(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False

"""One reading of a Maildir's directories: no message is opened, and none is stat'ed."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from restante.store import StoredMessage, files, names, sizes

FOLDERS = ("new", "cur")
"""Read in this order: a message that is moved to ``cur`` meanwhile is not missed."""


class MessageFile(NamedTuple):
    """A message file as a directory names it; a tuple, for there may be 100,000 of them."""

    folder: str
    name: str
    inode: int

    @property
    def base(self) -> str:
        """The part of the name that stays."""
        return names.base(self.name)


def message_files(maildir: str) -> list[MessageFile]:
    """Every message, in order of arrival; raises OSError.

    What is seen in both directories, because it is moved just now, is listed once.
    """
    found: dict[tuple[str, int], MessageFile] = {}
    for folder in FOLDERS:
        for file in _folder(maildir, folder):
            found[file.base, file.inode] = file
    return sorted(found.values(), key=_order)


def listing(maildir: str) -> tuple[list[MessageFile], list[StoredMessage]]:
    """The messages and what the client is told of them; raises OSError.

    Messages whose names have no size are read, once: see ``sizes``.
    """
    with _no_collections():
        found = message_files(maildir)
        uids = list(_uids(found))
        told = [names.wire_size(file.name) for file in found]
    _add_sizes(maildir, found, uids, told)
    with _no_collections():
        messages = [
            StoredMessage(uid, size)
            for uid, size in zip(uids, told, strict=True)
            if size is not None
        ]
    if len(messages) < len(found):
        pairs = zip(found, told, strict=True)
        found = [file for file, size in pairs if size is not None]
    return found, messages


def _add_sizes(
    maildir: str, found: Sequence[MessageFile], uids: Sequence[str], wanted: list[int | None]
) -> None:
    """Fill in those that names do not tell; what stays None is no message, or gone."""
    known = sizes.load(maildir)
    used: dict[str, int] = {}
    for place in [place for place, size in enumerate(wanted) if size is None]:
        uid = uids[place]
        size = known[uid] if uid in known else _measure(maildir, found[place])
        if size is not None:
            wanted[place] = used[uid] = size
    if not used.keys() <= known.keys() or len(used) < len(known) // 2:
        sizes.save(maildir, used)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Let nobody search a growing listing for reference cycles, over and over: it has none.

    The collector is the whole process's. Threads that list at the same time may turn it on
    again for each other, which costs time, and never leave it off.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def relocate(maildir: str, snapshot: Sequence[MessageFile | None]) -> list[MessageFile | None]:
    """Where the messages of the snapshot are now, None for those that are gone; raises OSError."""
    present: dict[str, list[MessageFile]] = {}
    for file in message_files(maildir):
        present.setdefault(file.base, []).append(file)
    taken = {(file.base, file.inode) for file in snapshot if file is not None}
    return [file and _same(file, present.get(file.base, ()), taken) for file in snapshot]


def _same(
    file: MessageFile, candidates: Iterable[MessageFile], taken: set[tuple[str, int]]
) -> MessageFile | None:
    """The same file under another name, or one that took its place and is no other message."""
    for candidate in candidates:
        if candidate.inode == file.inode:
            return candidate
    for candidate in candidates:
        if (candidate.base, candidate.inode) not in taken:
            taken.add((candidate.base, candidate.inode))
            return candidate
    return None


def _folder(maildir: str, folder: str) -> list[MessageFile]:
    with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(maildir, folder)) as found:
        return [
            MessageFile(folder, entry.name, entry.inode())
            for entry in found
            if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
        ]
    return []


def _order(file: MessageFile) -> tuple[int, str, int]:
    return names.arrival(file.name), file.base, file.inode


def _uids(found: Iterable[MessageFile]) -> Iterable[str]:
    """A UID for each, all different, whatever the names are."""
    seen: set[str] = set()
    for file in found:
        copy = 0
        while (uid := names.uid(file.base, copy)) in seen:
            copy += 1
        seen.add(uid)
        yield uid


def _measure(maildir: str, file: MessageFile) -> int | None:
    """The wire size from the content, None if the message is gone.

    A message that cannot be read is listed all the same, so that the others can be had.
    """
    with contextlib.suppress(FileNotFoundError):
        return _measure_here(maildir, file)
    moved = relocate(maildir, [file])[0]
    if moved is None:
        return None
    with contextlib.suppress(FileNotFoundError):
        return _measure_here(maildir, moved)
    return None


def _measure_here(maildir: str, file: MessageFile) -> int | None:
    path = os.path.join(maildir, file.folder, file.name)
    try:
        return files.wire_size(path)
    except FileNotFoundError:
        raise
    except files.NotRegular:
        return None
    except OSError:
        return os.lstat(path).st_size

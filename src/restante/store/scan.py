"""One reading of a Maildir's directories: no message is opened, and none is stat'ed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
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
    found = message_files(maildir)
    known = sizes.load(maildir)
    used: dict[str, int] = {}
    listed, messages = [], []
    for file, uid in zip(found, _uids(found), strict=True):
        size = names.wire_size(file.name)
        if size is None:
            size = known[uid] if uid in known else _measure(maildir, file)
            if size is None:
                continue
            used[uid] = size
        listed.append(file)
        messages.append(StoredMessage(uid, size))
    if not used.keys() <= known.keys() or len(used) < len(known) // 2:
        sizes.save(maildir, used)
    return listed, messages


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

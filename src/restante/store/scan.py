"""One reading of a Maildir's directories: no message is opened, and none is stat'ed.

A place is where a message lies in its Maildir: ``new/NAME`` or ``cur/NAME``. There may be a
million: names stay the octets that they are, and nothing here is made for each of them that the
garbage collector would have to look at.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field

from restante.store import Messages, Strings, entries, files, names, sizes
from restante.store.columns import Column
from restante.store.entries import Entries
from restante.store.unwaiting import Stamp

FOLDERS = (b"new/", b"cur/")
"""Read in this order: a message that is moved to ``cur`` meanwhile is not missed."""
GONE = b""
"""The place of a message that is gone."""
PER_LISTING = 1000
"""Octets that even an empty one takes."""


@dataclass(frozen=True, slots=True)
class Found:
    """Messages in order of arrival: the bases of their names, and their places."""

    bases: list[bytes] = field(default_factory=list)
    places: list[bytes] = field(default_factory=list)
    inodes: dict[int, int] = field(default_factory=dict)
    """By index; only of those that share their base with others, and are told apart by nothing
    else."""
    stamps: tuple[Stamp, ...] = ()
    """Of the FOLDERS, before they were read; empty where they are worth nothing."""

    def add(self, base: bytes, place: bytes) -> None:
        """One more message."""
        self.bases.append(base)
        self.places.append(place)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a session keeps of its Maildir."""

    messages: Messages
    places: Strings
    inodes: Mapping[int, int]
    stamps: tuple[Stamp, ...]
    """See Found for both."""
    octets: int
    """What it takes in memory, about."""


NOTHING = Listing(Messages(), (), {}, (), 0)


def listing(maildir: bytes, *, thorough: bool = False) -> Listing:
    """The messages and what the client is told of them; raises OSError.

    Messages whose names have no size are read, once: see ``sizes``. ``thorough``: look, too,
    whether those whose sizes are remembered are still there.
    """
    found = look(maildir)
    uids = _uids(found)
    told = list(map(names.wire_size, found.bases))
    if thorough or None in told:
        _add_sizes(maildir, found, uids, told)
        there = [index for index, size in enumerate(told) if size is not None]
        if len(there) < len(told):
            found, uids = _only(found, there), [uids[index] for index in there]
    columns, places = Column(uids), Column(found.places)
    known = array("Q", (size for size in told if size is not None))
    octets = PER_LISTING + columns.octets + places.octets + len(known) * known.itemsize
    return Listing(Messages(columns, known), places, found.inodes, found.stamps, octets)


def look(maildir: bytes) -> Found:
    """Every message; raises OSError.

    What is seen in both directories, because it is moved just now, is listed once.
    """
    found: dict[bytes, bytes] = {}
    rivals: dict[bytes, list[bytes]] = {}
    stamps: list[Stamp | None] = []
    for folder in FOLDERS:
        read = _read(maildir, folder)
        stamps.append(read.stamp)
        for name in read.names:
            base = names.base(name)
            if base in found:
                rivals.setdefault(base, [found[base]]).append(folder + name)
            found[base] = folder + name
    bases = names.in_order(found)
    if rivals:
        return _told_apart(maildir, bases, found, rivals)
    known = tuple(stamp for stamp in stamps if stamp is not None)
    return Found(
        bases,
        [found[base] for base in bases],
        stamps=known if len(known) == len(FOLDERS) else (),
    )


def relocate(maildir: bytes, snapshot: Iterable[bytes], inodes: Mapping[int, int]) -> list[bytes]:
    """The places now of the messages that were at those of the snapshot; raises OSError.

    ``inodes``: of the snapshot, see Found. What cannot be told from others is gone.
    """
    now = look(maildir)
    present = dict(zip(now.bases, now.places, strict=True))
    apart = {(now.bases[index], inode): now.places[index] for index, inode in now.inodes.items()}
    shared = {base for base, _ in apart}

    def place_of(index: int, base: bytes) -> bytes:
        if base in shared:
            return apart.get((base, inodes.get(index, 0)), GONE)
        place = present.get(base, GONE)
        if place and index in inodes and _inode(maildir, place) != inodes[index]:
            return GONE
        return place

    return [
        place and place_of(index, names.base(place.partition(b"/")[2]))
        for index, place in enumerate(snapshot)
    ]


def _read(maildir: bytes, folder: bytes) -> Entries:
    try:
        return entries.read(os.path.join(maildir, folder))
    except FileNotFoundError:
        return Entries([], None)


def _told_apart(
    maildir: bytes,
    bases: Iterable[bytes],
    places: Mapping[bytes, bytes],
    rivals: Mapping[bytes, Sequence[bytes]],
) -> Found:
    """``rivals`` are the places of a base that there is more than once."""
    found = Found()
    for base in bases:
        by_inode = {
            inode: place
            for place in rivals.get(base, ())
            if (inode := _inode(maildir, place)) is not None
        }
        if len(by_inode) < 2:  # it was moved just now, or has two names
            found.add(base, next(iter(by_inode.values()), places[base]))
            continue
        for inode, place in sorted(by_inode.items()):
            found.inodes[len(found.bases)] = inode
            found.add(base, place)
    return found


def _inode(maildir: bytes, place: bytes) -> int | None:
    """None if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(os.path.join(maildir, place)).st_ino
    return None


def _only(found: Found, indexes: Sequence[int]) -> Found:
    """Some of the messages."""
    return Found(
        [found.bases[index] for index in indexes],
        [found.places[index] for index in indexes],
        {now: found.inodes[index] for now, index in enumerate(indexes) if index in found.inodes},
    )


def _uids(found: Found) -> list[bytes]:
    """A UID for each, all different, whatever the names are."""
    if not found.inodes and names.are_uids(found.bases):
        return found.bases
    seen: dict[bytes, None] = {}
    for base in found.bases:
        copy = 0
        while (uid := names.uid(base, copy)) in seen:
            copy += 1
        seen[uid] = None
    return list(seen)


def _add_sizes(
    maildir: bytes, found: Found, uids: Sequence[bytes], wanted: MutableSequence[int | None]
) -> None:
    """Fill in those that names do not tell; what stays None is no message, or gone."""
    known = sizes.load(maildir)
    used: dict[bytes, int] = {}
    for index in [index for index, size in enumerate(wanted) if size is None]:
        uid = uids[index]
        size = known[uid] if uid in known else _measure(maildir, found, index)
        if size is not None:
            wanted[index] = used[uid] = size
    if not used.keys() <= known.keys() or len(used) < len(known) // 2:
        sizes.save(maildir, used)


def _measure(maildir: bytes, found: Found, index: int) -> int | None:
    """The wire size from the content, None if the message is gone.

    A message that cannot be read is listed all the same, so that the others can be had.
    """
    place = found.places[index]
    with contextlib.suppress(FileNotFoundError):
        return _measure_here(os.path.join(maildir, place))
    inodes = {0: found.inodes[index]} if index in found.inodes else {}
    moved = relocate(maildir, [place], inodes)[0]
    if moved == GONE:
        return None
    with contextlib.suppress(FileNotFoundError):
        return _measure_here(os.path.join(maildir, moved))
    return None


def _measure_here(path: bytes) -> int | None:
    try:
        return files.wire_size(path)
    except FileNotFoundError:
        raise
    except files.NotRegular:
        return None
    except OSError:
        return os.lstat(path).st_size

"""One reading of a Maildir's directories: no message is opened, and none is stat'ed.

There may be a million: nothing here is made for each of them that the garbage collector would
have to look at, and as little as can be in the interpreter's own steps.
"""

from __future__ import annotations

import contextlib
import operator
import os
import time
from array import array
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice

from restante.store import Messages, Strings, entries, files, names, sizes
from restante.store.columns import Column
from restante.store.entries import Entries
from restante.store.places import Ends, Places, apart, place, rows
from restante.store.unwaiting import Stamp

FOLDERS = ("new", "cur")
"""Read in this order: a message that is moved to ``cur`` meanwhile is not missed."""
GONE = b""
"""The place of a message that is gone."""
LOOKS = 5
"""How often is looked for messages that other programs move while they are measured, all of them at
once, or while ``cur`` is read; what is missed so often is gone."""
FEW = 100
"""Messages whose names tell no sizes that may be read in passing: those since the last session."""
PER_LISTING = 1000
"""Octets that even an empty one takes."""


class TakesLong(Exception):
    """More than a FEW messages have to be read for their sizes."""


@dataclass(frozen=True, slots=True)
class Found:
    """Messages in the order of their names: the bases of these, and the ends of their places."""

    bases: list[str] = field(default_factory=list)
    ends: Ends = field(default_factory=Ends)
    inodes: dict[int, int] = field(default_factory=dict)
    """By index; only of those that share their base with others, and are told apart by nothing
    else."""
    stamps: tuple[Stamp, ...] = ()
    """Of the FOLDERS, before they were read; empty where they are worth nothing."""

    def add(self, base: str, end: str) -> None:
        """One more message."""
        self.bases.append(base)
        self.ends.extend((end,))

    def place(self, index: int) -> bytes:
        """Where a message is."""
        return place(self.bases[index].encode("latin-1"), self.ends[index])

    def only(self, indexes: Sequence[int]) -> Found:
        """Some of the messages, or all in another order."""
        return Found(
            [self.bases[index] for index in indexes],
            Ends(self.ends[index] for index in indexes),
            {now: self.inodes[index] for now, index in enumerate(indexes) if index in self.inodes},
            self.stamps,
        )


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


def listing(maildir: bytes, *, thorough: bool = False, may_last: bool = True) -> Listing:
    """The messages and what the client is told of them; raises OSError.

    Messages whose names have no size are read, once: see ``sizes``. ``thorough``: look, too,
    whether those whose sizes are remembered are still there. Raises TakesLong unless it
    ``may_last``.
    """
    found = look(maildir)
    told, are_plain = names.wire_sizes(found.bases)
    if not are_plain and not names.are_of_our_time(found.bases):
        order = names.order_of_arrival(found.bases)
        found, told = found.only(order), [told[index] for index in order]
    uids = _uids(found)
    if thorough or (not are_plain and None in told):
        are_true = _add_sizes(maildir, found, uids, told, may_last=may_last)
        if not are_true:
            found = replace(found, stamps=())
        there = [index for index, size in enumerate(told) if size is not None]
        if len(there) < len(told):
            found, uids = found.only(there), [uids[index] for index in there]
    return _listing(found, uids, [size for size in told if size is not None])


def _listing(found: Found, uids: list[str], told: list[int]) -> Listing:
    bases = Column.of_text(found.bases)
    shown = bases if uids == found.bases else Column.of_text(uids)
    octets = PER_LISTING + bases.octets + found.ends.octets
    if shown is not bases:
        octets += shown.octets
    known = array("Q", told)
    octets += len(known) * known.itemsize
    places = Places(bases, found.ends)
    return Listing(Messages(shown, known), places, found.inodes, found.stamps, octets)


def look(maildir: bytes) -> Found:
    """Every message; raises OSError.

    What is seen in both directories, because it is moved just now, is listed once.
    """
    found: list[str] = []
    stamps: list[Stamp | None] = []
    began = time.time()
    for folder in FOLDERS:
        read = _read(maildir, folder)
        found += rows(folder, read.names)
        stamps.append(read.stamp)
    new, *_ = stamps
    if new is not None and _is_changed(maildir, new, began):
        # Mutt moves a message back that is to be new again: it may have been in neither.
        found += set(rows("new", _read(maildir, "new").names)).difference(found)
    found.sort()
    bases, ends = apart(found)
    # The order of rows is that of their bases, but for a base that is the beginning of another.
    if not all(map(operator.lt, bases, islice(bases, 1, None))):
        return _told_apart(maildir, Found(bases, ends))
    known = tuple(each for each in stamps if each is not None)
    return Found(bases, ends, stamps=known if len(known) == len(stamps) else ())


def relocate(maildir: bytes, snapshot: Iterable[bytes], inodes: Mapping[int, int]) -> list[bytes]:
    """The places now of the messages that were at those of the snapshot; raises OSError.

    ``inodes``: of the snapshot, see Found. What cannot be told from others is gone.
    """
    now = look(maildir)
    present = {base: index for index, base in enumerate(now.bases)}
    told = {(now.bases[index], inode): now.place(index) for index, inode in now.inodes.items()}
    shared = {base for base, _ in told}

    def place_of(index: int, base: str) -> bytes:
        if base in shared:
            return told.get((base, inodes.get(index, 0)), GONE)
        if base not in present:
            return GONE
        place = now.place(present[base])
        if index in inodes:
            status = _status(maildir, place)
            if status is None or status.st_ino != inodes[index]:
                return GONE
        return place

    return [
        place and place_of(index, names.base(place.partition(b"/")[2].decode("latin-1")))
        for index, place in enumerate(snapshot)
    ]


def _read(maildir: bytes, folder: str) -> Entries:
    directory = os.path.join(maildir, folder.encode())
    try:
        # In ``new`` nothing is renamed: what comes and goes there keeps no other from being read.
        return entries.read(directory) if folder == "new" else _read_whole(directory)
    except FileNotFoundError:
        return Entries([], None)


def _is_changed(maildir: bytes, new: Stamp, began: float) -> bool:
    """Whether ``new`` may be another since its stamp was taken."""
    with contextlib.suppress(FileNotFoundError):
        changed = os.stat(os.path.join(maildir, b"new")).st_ctime_ns
        return changed != new.changed or abs(began - changed / 1e9) < entries.TICK
    return False


def _read_whole(directory: bytes) -> Entries:
    """What is in it while other programs set flags; at worst all names that were seen meanwhile."""
    seen: set[str] = set()
    for _ in range(LOOKS):
        read = entries.read(directory)
        if read.is_whole:
            return read
        seen.update(read.names)
    return Entries(sorted(seen), None)


def _told_apart(maildir: bytes, seen: Found) -> Found:
    """The same where a base is there more than once, or the order is not that of the bases.

    Of several names of one file, one in ``cur`` counts, and in the same folder the last in order.
    Of several files with one base, the one that was written first comes first: so it keeps its UID
    when another comes.
    """
    bases = seen.bases
    found = Found()
    for base, group in groupby(sorted(range(len(bases)), key=bases.__getitem__), bases.__getitem__):
        rivals = [(seen.place(index), seen.ends[index]) for index in group]
        rivals.sort(key=lambda rival: rival[0].startswith(b"cur/"))
        by_inode = {
            status.st_ino: (status.st_mtime_ns, end)
            for place, end in rivals
            if len(rivals) > 1 and (status := _status(maildir, place)) is not None
        }
        if len(by_inode) < 2:  # it was moved just now, or has two names
            found.add(base, rivals[-1][1] if not by_inode else by_inode.popitem()[1][1])
            continue
        for _, inode, end in sorted((at, inode, end) for inode, (at, end) in by_inode.items()):
            found.inodes[len(found.bases)] = inode
            found.add(base, end)
    return found


def _status(maildir: bytes, place: bytes) -> os.stat_result | None:
    """None if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(os.path.join(maildir, place))
    return None


def _uids(found: Found) -> list[str]:
    """A UID for each, all different, whatever the names are."""
    if not found.inodes and names.are_uids(found.bases):
        return found.bases
    seen: dict[str, None] = {}
    copies: dict[str, int] = {}
    for base in found.bases:
        copy = copies.get(base, 0)
        while (uid := names.uid(base, copy)) in seen:
            copy += 1
        seen[uid] = None
        copies[base] = copy + 1
    return list(seen)


def _add_sizes(
    maildir: bytes,
    found: Found,
    uids: Sequence[str],
    wanted: MutableSequence[int | None],
    *,
    may_last: bool,
) -> bool:
    """Fill in those that names do not tell; what stays None is no message, or gone.

    Whether all of them are true.
    """
    known = sizes.load(maildir)
    untold = [index for index, size in enumerate(wanted) if size is None]
    unknown = [index for index in untold if uids[index] not in known]
    if len(unknown) > FEW and not may_last:
        raise TakesLong
    measured = _measure(maildir, found, unknown)
    used: dict[str, int] = {}
    for index in untold:
        uid = uids[index]
        size = wanted[index] = known[uid] if uid in known else measured.exact.get(index)
        if size is not None:
            used[uid] = size
    for index, size in measured.guessed.items():
        wanted[index] = size
    if not used.keys() <= known.keys() or len(used) < len(known) // 2:
        sizes.save(maildir, used)
    return not measured.guessed


@dataclass(frozen=True, slots=True)
class _Measured:
    """Sizes on the wire by index."""

    exact: dict[int, int] = field(default_factory=dict)
    guessed: dict[int, int] = field(default_factory=dict)
    """Of messages that cannot be read now: they are listed, so that the others can be had."""


def _measure(maildir: bytes, found: Found, indexes: Iterable[int]) -> _Measured:
    """The sizes of messages by their contents; none of what is gone or is no message."""
    measured = _Measured()
    missing = _measure_at(maildir, ((index, found.place(index)) for index in indexes), measured)
    for _ in range(LOOKS):
        if not missing:
            break
        inodes = {
            now: found.inodes[index] for now, index in enumerate(missing) if index in found.inodes
        }
        moved = relocate(maildir, map(found.place, missing), inodes)
        there = [(index, where) for index, where in zip(missing, moved, strict=True) if where]
        missing = _measure_at(maildir, there, measured)
    return measured


def _measure_at(
    maildir: bytes, places: Iterable[tuple[int, bytes]], measured: _Measured
) -> list[int]:
    """Measure messages where they should be; the indexes of those that are not there any more."""
    missing = []
    rest = iter(places)
    while some := list(islice(rest, files.TOGETHER)):
        told = files.wire_sizes([b"%b/%b" % (maildir, where) for _, where in some])
        for (index, where), size in zip(some, told, strict=True):
            if isinstance(size, int):
                measured.exact[index] = size
            elif isinstance(size, FileNotFoundError):
                missing.append(index)
            elif not isinstance(size, files.NotRegular):
                guess = _size_on_disk(maildir, where)
                if guess is None:
                    missing.append(index)
                else:
                    measured.guessed[index] = guess
    return missing


def _size_on_disk(maildir: bytes, place: bytes) -> int | None:
    """None if it is gone; 0 where nobody can say, as the inode is damaged."""
    try:
        status = _status(maildir, place)
    except OSError:
        return 0
    return None if status is None else status.st_size

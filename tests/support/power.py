"""A file system on a disk with a volatile cache, and what power cuts would have left of it.

Below the file system is a loop device, below that the one file of a FUSE file system, which the
process that this module is (``python -m tests.support.power``) serves by the kernel's own protocol.
What is written waits there for a flush; at random moments a cut is taken: what was flushed, and
any part of the rest. For root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FUSE_DEVICE = "/dev/fuse"
LOOP_DEVICES = "/dev/loop-control"
PROGRAMS = ("mount", "umount")
BLOCK = 4096
"""Octets that the disk writes wholly or not at all, as ext4 takes for granted."""
SHARES = (0.0, 0.3, 0.5, 0.8, 1.0)
"""Of the blocks that wait in the cache, so many survive a cut."""
WRITES_BETWEEN = 25
"""Writes from one cut to the next, on average."""
PATIENCE = 20.0
"""Seconds within which the disk is there, and is let go."""

# linux/fuse.h: what the structures hold, in the host's order of octets.
_IN_HEADER = struct.Struct("=IIQQIIIHH")
_OUT_HEADER = struct.Struct("=IiQ")
_ATTRIBUTES = struct.Struct("=6Q10I")
_ATTRIBUTES_OUT = struct.Struct("=QII")
_ENTRY_OUT = struct.Struct("=4Q2I")
_OPEN_OUT = struct.Struct("=QII")
_INIT_OUT = struct.Struct("=4I2H2I2HI7I")
_SPAN_IN = struct.Struct("=QQI")
"""How fuse_read_in and fuse_write_in begin: the handle, the offset, the size."""
_WRITE_IN = struct.Struct("=QQIIQII")
_WRITE_OUT = struct.Struct("=II")
_STATFS_OUT = struct.Struct("=5Q4I6I")
MAJOR, MINOR = 7, 31
"""The version of the protocol that is spoken."""
ASYNC_READ, BIG_WRITES = 1 << 0, 1 << 5
"""Flags of fuse_init_out."""
MAX_WRITE = 1 << 17
REQUEST_SIZE = MAX_WRITE + 4096
"""Octets of the largest request."""
FOR_LONG = 60
"""Seconds for which the kernel may believe what it was told about the file."""
ROOT, IMAGE = 1, 2
"""The nodes: a directory with one file."""
IMAGE_NAME = "image"


_Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A kind of file system; the image is the last word of each of its commands."""

    name: str
    size: int
    """MiB of the disk."""
    make: _Command
    before: Sequence[_Command] = ()
    """After a cut, before the file system is mounted."""
    after: Sequence[_Command] = ()
    """After that: all must be in order."""
    options: str = "loop"
    committing: int = 0
    """The request of ioctl(2) that has a transaction committed; 0: fsync(2) of any file does."""

    def __str__(self) -> str:
        return f"{self.name}, no journal" if "^has_journal" in self.make else self.name

    @property
    def programs(self) -> set[str]:
        """All that it takes."""
        return {command[0] for command in (self.make, *self.before, *self.after)}

    def commit(self, fd: int) -> None:
        """Have whatever was changed before written, but for the octets of other files."""
        os.fsync(fd)
        if self.committing:
            fcntl.ioctl(fd, self.committing, bytes(8))


_E2FSCK = ("sh", "-c", 'e2fsck -fy "$0" || test $? = 1')
"""1: it is in order by now."""
_MKFS_EXT4 = ("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-E", "lazy_itable_init=0")
EXT4 = FileSystem("ext4", 48, (*_MKFS_EXT4, "-J", "size=8"), before=[_E2FSCK])
EXT4_WITHOUT_JOURNAL = FileSystem("ext4", 48, (*_MKFS_EXT4, "-O", "^has_journal"), before=[_E2FSCK])
# The smallest that xfsprogs makes. Its image bears the name of one that may be mounted still.
XFS = FileSystem(
    "xfs", 300, ("mkfs.xfs", "-q"), after=[("xfs_repair", "-n", "-f")], options="loop,nouuid"
)
# Devices that are gone are forgotten: what is older than they were would be refused.
BTRFS = FileSystem(
    "btrfs",
    160,
    ("mkfs.btrfs", "-q"),
    before=[("sh", "-c", "btrfs device scan --forget")],
    after=[("btrfs", "check")],
    committing=0x80089418,  # BTRFS_IOC_START_SYNC of linux/btrfs.h
)


class Opcode(IntEnum):
    """enum fuse_opcode of linux/fuse.h."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    INTERRUPT = 36
    BATCH_FORGET = 42


UNANSWERED = (Opcode.FORGET, Opcode.INTERRUPT, Opcode.BATCH_FORGET)
"""Nobody waits for an answer to these."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a power cut would have left."""

    blocks: dict[int, bytes]
    """By their numbers, those that were written since the disk was new."""
    noted: int
    """Octets of the note at that moment."""


class VolatileDisk:
    """Octets behind a cache: a write counts at once, and survives a cut from the next flush on."""

    def __init__(self, image: bytes, chance: random.Random) -> None:
        self._now = bytearray(image)
        self._chance = chance
        self._safe: dict[int, bytes] = {}
        self._waiting: dict[int, list[bytes]] = {}

    @property
    def size(self) -> int:
        """Octets."""
        return len(self._now)

    def read(self, offset: int, size: int) -> bytes:
        """What was written last."""
        return bytes(self._now[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Change octets within the disk; each version of a block may be what survives."""
        end = offset + len(data)
        self._now[offset:end] = data
        for block in range(offset // BLOCK, -(-end // BLOCK)):
            version = self.read(block * BLOCK, BLOCK)
            self._waiting.setdefault(block, []).append(version)

    def flush(self) -> None:
        """Bring everything to where cuts do not reach."""
        self._safe |= {block: versions[-1] for block, versions in self._waiting.items()}
        self._waiting.clear()

    def cut(self, noted: int) -> Cut:
        """What would be left now, by chance; the disk goes on."""
        share = self._chance.choice(SHARES)
        kept = {
            block: self._chance.choice(versions)
            for block, versions in self._waiting.items()
            if self._chance.random() < share
        }
        return Cut(self._safe | kept, noted)


class Cutter:
    """Takes cuts at random moments until there are enough, and files them then."""

    def __init__(self, disk: VolatileDisk, place: Place, wanted: int, chance: random.Random):
        self._disk = disk
        self._place = place
        self._wanted = wanted
        self._chance = chance
        self._cuts: list[Cut] = []
        self._writes_left = WRITES_BETWEEN

    def after_write(self) -> None:
        """Take a cut, if it is time."""
        self._writes_left -= 1
        if self._writes_left > 0 or len(self._cuts) == self._wanted:
            return
        self._writes_left = self._chance.randrange(1, 2 * WRITES_BETWEEN)
        self._cuts.append(self._disk.cut(os.path.getsize(self._place.note)))
        if len(self._cuts) == self._wanted:
            unfinished = self._place.cuts.with_suffix(".new")
            unfinished.write_bytes(pickle.dumps([astuple(cut) for cut in self._cuts]))
            unfinished.rename(self._place.cuts)


@dataclass(frozen=True, slots=True)
class _Request:
    opcode: int
    unique: int
    node: int
    body: bytes


class ImageServer:
    """Serves a disk as the one file of a file system, until that is unmounted."""

    def __init__(self, fd: int, disk: VolatileDisk, after_write: Callable[[], None]) -> None:
        self._fd = fd
        self._disk = disk
        self._after_write = after_write
        self._acts: dict[int, Callable[[_Request], bytes]] = {
            Opcode.INIT: _begin,
            Opcode.LOOKUP: self._look_up,
            Opcode.GETATTR: self._tell_attributes,
            Opcode.SETATTR: self._tell_attributes,
            Opcode.OPEN: _open,
            Opcode.OPENDIR: _open,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.FSYNC: self._flush,
            Opcode.STATFS: self._tell_size,
            Opcode.FLUSH: _nothing,  # of a descriptor that is closed, which is no flush of a disk
            Opcode.RELEASE: _nothing,
            Opcode.RELEASEDIR: _nothing,
        }

    def serve(self) -> None:
        """Answer every request."""
        while self.serve_one():
            pass

    def serve_one(self) -> bool:
        """Answer the next request; False once it is unmounted."""
        try:
            octets = os.read(self._fd, REQUEST_SIZE)
        except FileNotFoundError:
            return True  # who had asked is gone
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        self._answer(_request(octets))
        return True

    def _answer(self, request: _Request) -> None:
        if request.opcode in UNANSWERED:
            return
        number, body = 0, b""
        try:
            body = self._acts.get(request.opcode, _refuse)(request)
        except OSError as error:
            number = error.errno or errno.EIO
        head = _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -number, request.unique)
        with contextlib.suppress(FileNotFoundError):  # who had asked is gone
            os.write(self._fd, head + body)

    def _read(self, request: _Request) -> bytes:
        _, offset, size = _SPAN_IN.unpack_from(request.body)
        return self._disk.read(offset, size)

    def _write(self, request: _Request) -> bytes:
        _, offset, size = _SPAN_IN.unpack_from(request.body)
        self._disk.write(offset, request.body[_WRITE_IN.size :][:size])
        self._after_write()
        return _WRITE_OUT.pack(size, 0)

    def _flush(self, _: _Request) -> bytes:
        self._disk.flush()
        return b""

    def _look_up(self, request: _Request) -> bytes:
        if request.body.rstrip(b"\0") != IMAGE_NAME.encode():
            raise FileNotFoundError(errno.ENOENT, IMAGE_NAME)
        return _ENTRY_OUT.pack(IMAGE, 0, FOR_LONG, FOR_LONG, 0, 0) + self._attributes(IMAGE)

    def _tell_attributes(self, request: _Request) -> bytes:
        return _ATTRIBUTES_OUT.pack(FOR_LONG, 0, 0) + self._attributes(request.node)

    def _attributes(self, node: int) -> bytes:
        size, mode, links = (self._disk.size, 0o100600, 1) if node == IMAGE else (0, 0o040700, 2)
        times_and_parts, owner, device, flags = (0,) * 6, (0, 0), 0, 0
        return _ATTRIBUTES.pack(
            node, size, size // 512, *times_and_parts, mode, links, *owner, device, BLOCK, flags
        )

    def _tell_size(self, _: _Request) -> bytes:
        blocks = self._disk.size // BLOCK
        return _STATFS_OUT.pack(blocks, 0, 0, 1, 0, BLOCK, 255, BLOCK, 0, *(0,) * 6)


def begun(fd: int) -> None:
    """Answer the first request, and no other."""
    request = _request(os.read(fd, REQUEST_SIZE))
    assert request.opcode == Opcode.INIT
    body = _begin(request)
    os.write(fd, _OUT_HEADER.pack(_OUT_HEADER.size + len(body), 0, request.unique) + body)


def _request(octets: bytes) -> _Request:
    length, opcode, unique, node, *_ = _IN_HEADER.unpack_from(octets)
    return _Request(opcode, unique, node, octets[_IN_HEADER.size : length])


def _begin(_: _Request) -> bytes:
    flags = ASYNC_READ | BIG_WRITES
    background, congested, granularity = 12, 9, 1
    more = (0,) * 10
    return _INIT_OUT.pack(
        MAJOR, MINOR, BLOCK, flags, background, congested, MAX_WRITE, granularity, *more
    )


def _open(_: _Request) -> bytes:
    return _OPEN_OUT.pack(1, 0, 0)


def _nothing(_: _Request) -> bytes:
    return b""


def _refuse(request: _Request) -> bytes:
    raise OSError(errno.ENOSYS, str(request.opcode))


# The test's side


@dataclass(frozen=True, slots=True)
class Place:
    """Where the parts of a disk are: in memory, as each cut is written out whole."""

    root: Path

    @property
    def new(self) -> Path:
        """The image that the disk begins with."""
        return self.root / "new"

    @property
    def note(self) -> Path:
        """Where is noted what a cut may not take any more, one line for each, outside the disk."""
        return self.root / "note"

    @property
    def cuts(self) -> Path:
        """The cuts, there as soon as they are enough."""
        return self.root / "cuts"

    @property
    def fuse(self) -> Path:
        """Where the disk is mounted as a file ..."""
        return self.root / "fuse"

    @property
    def live(self) -> Path:
        """... and the file system on it."""
        return self.root / "live"

    @property
    def after(self) -> Path:
        """Where the file system after a cut is mounted."""
        return self.root / "after"


def missing(system: FileSystem) -> list[str]:
    """What root lacks here for such a disk."""
    devices = [each for each in (FUSE_DEVICE, LOOP_DEVICES) if not os.path.exists(each)]
    programs = {*PROGRAMS, *system.programs}
    return devices + sorted(each for each in programs if not shutil.which(each))


@contextlib.contextmanager
def place_in(directory: Path) -> Iterator[Place]:
    """A place on a tmpfs of its own, mounted at the directory."""
    directory.mkdir()
    with mounted("-t", "tmpfs", "power", directory):
        place = Place(directory)
        for each in (place.fuse, place.live, place.after):
            each.mkdir()
        place.note.touch()
        yield place


def make_file_system(place: Place, system: FileSystem, tree: Path) -> None:
    """Have the disk begin with one that holds a copy of the tree, owners and times included."""
    with place.new.open("wb") as file:
        file.truncate(system.size << 20)
    _run(*system.make, place.new)
    with mounted("-o", system.options, place.new, place.live):
        _run("cp", "--archive", f"{tree}/.", place.live)


@contextlib.contextmanager
def power(place: Place, system: FileSystem, wanted: int, seed: int) -> Iterator[None]:
    """The file system is mounted, and cuts are taken until there are as many as wanted."""
    with contextlib.ExitStack() as stack:
        server = _serve(place, wanted, seed)
        stack.callback(_end, server)
        stack.callback(_unmount, place.fuse)
        stack.enter_context(mounted("-o", system.options, place.fuse / IMAGE_NAME, place.live))
        yield


def _serve(place: Place, wanted: int, seed: int) -> subprocess.Popen[bytes]:
    fd = os.open(FUSE_DEVICE, os.O_RDWR)
    try:
        mount_fuse(fd, place.fuse)
        command = [sys.executable, "-m", __name__, str(fd), str(place.root), f"{wanted}", f"{seed}"]
        try:
            return subprocess.Popen(command, cwd=REPOSITORY, pass_fds=[fd])
        except BaseException:
            _unmount(place.fuse)
            raise
    finally:
        os.close(fd)  # it is the server's alone: nobody waits for one that has died


def mount_fuse(fd: int, where: Path, *options: bytes) -> None:
    """mount(2), as mount(8) would look for a program that serves."""
    libc = ctypes.CDLL(None, use_errno=True)
    said = b",".join([b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd, *options])
    if libc.mount(b"power", bytes(where), b"fuse", 0, said) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(where))


def _end(server: subprocess.Popen[bytes]) -> None:
    try:
        assert server.wait(PATIENCE) == 0, "the disk has failed"
    finally:
        server.kill()
        server.wait()


def cuts_of(place: Place) -> list[Cut]:
    """The cuts that were taken."""
    return [Cut(*fields) for fields in pickle.loads(place.cuts.read_bytes())]


@contextlib.contextmanager
def mounted_after(place: Place, system: FileSystem, cut: Cut) -> Iterator[Path]:
    """The file system as it is when power is back: the journal is replayed, and all is checked."""
    with tempfile.NamedTemporaryFile(dir=place.root) as left:
        _run("cp", "--sparse=always", place.new, left.name)
        for block, octets in cut.blocks.items():
            os.pwrite(left.fileno(), octets, block * BLOCK)
        for command in system.before:
            _run(*command, left.name)
        with mounted("-o", system.options, left.name, place.after):
            yield place.after
        for command in system.after:
            _run(*command, left.name)


@contextlib.contextmanager
def mounted(*what: str | Path) -> Iterator[None]:
    """Mounted as mount(8) is told, the last word of which is where."""
    _run("mount", *what)
    try:
        yield
    finally:
        _unmount(Path(what[-1]))


def _unmount(where: Path) -> None:
    """Unmount, as soon as the loop device above has let go."""
    deadline = time.monotonic() + PATIENCE
    while subprocess.run(["umount", where], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            _run("umount", "--lazy", where)
            raise AssertionError(f"{where} was still in use")
        time.sleep(0.05)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def _main(fd: int, root: Path, wanted: int, seed: int) -> None:
    place, chance = Place(root), random.Random(seed)
    disk = VolatileDisk(place.new.read_bytes(), chance)
    ImageServer(fd, disk, Cutter(disk, place, wanted, chance).after_write).serve()


if __name__ == "__main__":
    _main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

"""Adding to an mbox: its form, its locks, and what is left where something fails."""

from __future__ import annotations

import errno
import fcntl
import mailbox
import os
import re
import resource
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import NULL_REVERSE_PATH, Address
from restante.config.tree import Programs
from restante.envelope import Content, Envelope, HeaderFacts, memory_content
from restante.mda import MboxDelivery, mbox_lock
from restante.mda import mbox as mbox_module
from restante.mda.acts import Actor
from restante.mda.answers import Policy
from restante.mda.durable import Disk, LocalDisk
from restante.mda.mbox import append_letter
from restante.mda.mbox_lock import AHEAD, STALE_AFTER
from restante.mda.mboxrd import Letter, from_line, quoted
from restante.status import Delivered, Outcome, PermanentFailure, TemporaryFailure
from tests.support.contents import spooled_content
from tests.support.deliveries import BODY, CONTENT, GROUP, HOST, OWNER, TRACE, envelope
from tests.support.faulty_disk import FaultyDisk
from tests.support.owner import AS_ROOT, as_owner, owner, owners_home

DATE = "Tue Nov 14 22:13:20 2023"
FIRST = (
    f"From paul@example.org {DATE}\n"
    "Return-Path: <paul@example.org>\n"
    "Delivered-To: iain@example.com\n"
).encode()
EXPECTED = FIRST + TRACE + BODY + b"\n"


@pytest.fixture
def home() -> Iterator[Path]:
    with owners_home() as found:
        yield found


def mbox_of(home: Path, path: Path | None = None) -> MboxDelivery:
    return MboxDelivery(str(path or home / "Mailbox"), owner(home), ("iain@example.com",))


def append_here(
    mbox: MboxDelivery,
    content: Content = CONTENT,
    *,
    number: int = 0,
    again: bool = False,
    disk: Disk | None = None,
) -> Outcome:
    """In this process, which must be the owner's."""
    never = os.eventfd(0)
    acting = Actor(Policy(HOST, 100, 1), Programs(), False, disk or LocalDisk(), never)
    now = time.monotonic()
    outcome = acting.append(envelope(number), content, mbox, again=again, asked_at=now)
    os.close(never)
    return outcome


def append(
    mbox: MboxDelivery,
    content: Content = CONTENT,
    *,
    number: int = 0,
    again: bool = False,
    disk: Disk | None = None,
) -> Outcome:
    """As the owner."""
    return as_owner(lambda: append_here(mbox, content, number=number, again=again, disk=disk))


def test_a_home_is_made_for_it(home: Path) -> None:
    new = home / "example.com" / "iain"
    account = replace(owner(home), home=str(new))
    mbox = MboxDelivery(str(new / "Mailbox"), account, ("iain@example.com",))
    assert isinstance(append(mbox), Delivered)
    assert (new / "Mailbox").read_bytes() == EXPECTED


def test_a_name_of_any_octets(home: Path) -> None:
    outcome = append(mbox_of(home, home / "M\udcff"))
    assert outcome == Delivered(f"{home}/M\\udcff")
    assert os.listdir(os.fsencode(home)) == [b"M\xff"]
    assert "M\\udcff" in detail_of(append(mbox_of(home, home / "M\udcff" / "x")))


def detail_of(outcome: Outcome) -> str:
    assert isinstance(outcome, TemporaryFailure)
    return outcome.detail


def test_the_form(home: Path) -> None:
    mbox = mbox_of(home)
    assert append(mbox) == Delivered(mbox.path)
    found = Path(mbox.path)
    assert found.read_bytes() == EXPECTED
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    assert (found.stat().st_uid, found.stat().st_gid) == (OWNER, GROUP)
    assert os.listdir(home) == ["Mailbox"]
    append(mbox)
    assert found.read_bytes() == EXPECTED * 2


@pytest.mark.parametrize(
    ("sender", "written"),
    [
        (NULL_REVERSE_PATH, "MAILER-DAEMON"),
        (Address("a b\tc\nd", "example.org"), "a-b-c-d@example.org"),
        (Address("\u00fc", "b\u00fccher.example"), "\u00fc@b\u00fccher.example"),
    ],
)
def test_from_line(sender: Address, written: str) -> None:
    line = from_line(sender, 1_700_000_000.9)
    assert line == f"From {written} {DATE}\n".encode()


@pytest.mark.parametrize(
    ("body", "written"),
    [
        (b"a\n\nFrom x\n>From x\n>>From \nfrom x\nFromx\n From \n",
         b"a\n\n>From x\n>>From x\n>>>From \nfrom x\nFromx\n From \n"),
        (b"no end", b"no end\n"),
        (b"a\n\nFrom ", b"a\n\n>From \n"),
        (b"a\n\nFrom", b"a\n\nFrom\n"),
        (b"From here: header\n\n", b">From here: header\n\n"),
        (b"", b""),
    ],
)  # fmt: skip
def test_quoting(home: Path, body: bytes, written: bytes) -> None:
    mbox = mbox_of(home)
    append(mbox, memory_content(TRACE, body))
    assert Path(mbox.path).read_bytes() == FIRST + TRACE + written + b"\n"


TOKENS = st.lists(st.sampled_from([b"\n", b">", b"From ", b"F", b"ro", b"m ", b"x"])).map(b"".join)


@given(st.lists(TOKENS))
def test_quoting_across_pieces(pieces: list[bytes]) -> None:
    """However a text is cut, the same lines are quoted."""
    whole = b"".join(pieces)
    assert b"".join(quoted(pieces)) == re.sub(rb"(?m)^(>*From )", rb">\1", whole)


def test_a_spooled_body(home: Path) -> None:
    body = b"From here\n" + b">" * 700_000 + b"From \n" + b"x\n" * 100_000 + b"From there"
    spool = home.parent / "spool"
    spool.write_bytes(body)
    content = spooled_content(TRACE, str(spool), body.count(b"\n"), HeaderFacts())
    mbox = mbox_of(home)
    append(mbox, content)
    text = Path(mbox.path).read_bytes()
    assert text.removeprefix(FIRST + TRACE) == re.sub(rb"(?m)^(>*From )", rb">\1", body) + b"\n\n"
    spool.write_bytes(body[:-1])
    assert "1 octets shorter than it was" in detail_of(append(mbox, content))
    assert Path(mbox.path).read_bytes() == text


def read_back(path: Path) -> list[bytes]:
    """All messages, by a reader of the form mboxrd that knows nothing of how they were written."""
    messages: list[list[bytes]] = []
    blank = True
    for line in path.read_bytes().splitlines(keepends=True):
        if blank and line.startswith(b"From "):
            messages.append([])
        elif line.startswith(b">") and line.lstrip(b">").startswith(b"From "):
            messages[-1].append(line[1:])
        else:
            messages[-1].append(line)
        blank = line == b"\n"
    for message in messages:
        assert message.pop() == b"\n"
    return [b"".join(message) for message in messages]


BODIES = st.lists(
    st.one_of(
        st.binary(max_size=60).map(lambda octets: octets.replace(b"\r", b"")),
        st.sampled_from([b"\n", b">From ", b"From ", b"From x\n", b"\n\n", b">>", b"From"]),
    ),
    max_size=8,
).map(b"".join)


@given(st.lists(BODIES, min_size=1, max_size=5))
def test_what_is_appended_is_read_back(bodies: list[bytes]) -> None:
    """Any list of messages comes back as it was, but for a missing line end at the end."""
    with owners_home() as home:
        mbox = mbox_of(home)

        def append_all() -> None:
            for number, body in enumerate(bodies):
                outcome = append_here(mbox, memory_content(TRACE, body), number=number)
                assert isinstance(outcome, Delivered)

        as_owner(append_all)
        whole = [body if body.endswith(b"\n") or not body else body + b"\n" for body in bodies]
        fields = FIRST.partition(b"\n")[2]
        assert read_back(Path(mbox.path)) == [fields + TRACE + body for body in whole]


def test_python_reads_it(home: Path) -> None:
    mbox = mbox_of(home)
    for number in range(3):
        append(mbox, memory_content(TRACE, b"Subject: %d\n\n\nFrom me\n" % number))
    found = mailbox.mbox(mbox.path, create=False)
    assert [message["Subject"] for message in found] == ["0", "1", "2"]
    assert [message.get_payload() for message in found] == ["\n>From me\n"] * 3
    assert {message.get_from() for message in found} == {f"paul@example.org {DATE}"}
    found.close()


@pytest.mark.parametrize("end", ["From x y\n\ntext", "From x y\n\ntext\n", "From x y\n\ntext\n\n"])
def test_an_empty_line_is_before_every_message(home: Path, end: str) -> None:
    mbox = mbox_of(home)
    as_owner(lambda: Path(mbox.path).write_text(end) and None)
    append(mbox)
    assert Path(mbox.path).read_bytes() == end.rstrip().encode() + b"\n\n" + EXPECTED


def test_a_looping_message_bounces(home: Path) -> None:
    looping = memory_content(TRACE, BODY, HeaderFacts(1, frozenset({"iain@example.com"})))
    outcome = append(mbox_of(home), looping)
    assert isinstance(outcome, PermanentFailure)
    assert outcome.reply.enhanced == "5.4.6"
    assert os.listdir(home) == []


# Whose file it is


def make(path: Path, text: str = "") -> None:
    path.write_text(text)
    os.chown(path, OWNER, GROUP)


def test_what_is_no_mbox_is_refused(home: Path) -> None:
    os.mkfifo(home / "fifo")
    os.chown(home / "fifo", OWNER, GROUP)
    assert "is not a regular file" in detail_of(append(mbox_of(home, home / "fifo")))
    (home / "folder").mkdir()
    assert "Is a directory" in detail_of(append(mbox_of(home, home / "folder")))
    assert "is not a regular file" in detail_of(append(mbox_of(home, Path("/dev/null"))))
    make(home / "one")
    os.link(home / "one", home / "two")
    assert "has other names (hard links)" in detail_of(append(mbox_of(home, home / "two")))
    assert (home / "one").read_bytes() == b""
    assert "No such file" in detail_of(append(mbox_of(home, home / "missing" / "Mailbox")))


def test_other_users_files_are_refused(home: Path) -> None:
    assert "Permission denied" in detail_of(append(mbox_of(home, Path("/etc/passwd"))))
    if not AS_ROOT:
        return  # nobody else makes files of two users
    (home / "roots").touch()
    (home / "roots").chmod(0o666)
    refused = detail_of(append(mbox_of(home, home / "roots")))
    assert refused == f"{home}/roots belongs to uid 0, the account's uid is {OWNER}"
    os.chown(home, 0, 0)
    home.chmod(0o755)
    refused = detail_of(append(mbox_of(home)))
    assert refused == f"the home {home} belongs to uid 0, the account's uid is {OWNER}"
    refused = detail_of(append_here(mbox_of(home)))
    assert "by root" in refused


def test_links_of_the_owner_are_followed_and_others_are_not(home: Path) -> None:
    spool = home.parent / "spool"
    spool.mkdir()
    os.chown(spool, OWNER, GROUP)
    make(spool / "iain")
    (home / "Mailbox").symlink_to("../spool/iain")
    assert isinstance(append(mbox_of(home)), Delivered)
    assert (spool / "iain").read_bytes() == EXPECTED
    assert sorted(os.listdir(spool)) == ["iain"]
    home.chmod(0o770)
    assert "symbolic link where others could have put one" in detail_of(append(mbox_of(home)))
    home.chmod(0o700)
    (home / "Mailbox").unlink()
    (home / "Mailbox").symlink_to("nowhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mbox_module, "LOCK_PATIENCE", 0.0)
        assert "a link to a missing file" in detail_of(append(mbox_of(home)))
    (home / "way").symlink_to(spool)
    home.parent.chmod(0o777)
    (home.parent / "way").symlink_to(spool)
    refused = detail_of(append(mbox_of(home, home.parent / "way" / "iain")))
    assert "a symbolic link where others could have put one" in refused
    assert isinstance(append(mbox_of(home, spool / "iain"), number=1), Delivered)


# Locks


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mbox_module, "LOCK_PATIENCE", 0.2)


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("call", [fcntl.flock, fcntl.lockf])
def test_locks_of_the_kernel_are_heeded(home: Path, call: object) -> None:
    mbox = mbox_of(home)
    make(home / "Mailbox")
    with (home / "Mailbox").open("r+b") as file:
        call(file, fcntl.LOCK_EX)  # type: ignore[operator]
        assert "another program has locked it" in detail_of(append(mbox))
        assert os.listdir(home) == ["Mailbox"]
    assert isinstance(append(mbox), Delivered)


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("left", [-STALE_AFTER - 1, AHEAD + 60], ids=["old", "ahead"])
@pytest.mark.parametrize("text", ["", "0", "1\n", "garbage"])
def test_a_dot_lock_is_heeded_until_it_is_old(home: Path, text: str, left: float) -> None:
    """Or from a time to come: the clock was ahead when it was made."""
    mbox = mbox_of(home)
    lock = home / "Mailbox.lock"
    make(lock, text)
    refused = detail_of(append(mbox))
    assert "Mailbox.lock was made 0 seconds ago by another program" in refused
    assert lock.read_text() == text
    assert (home / "Mailbox").read_bytes() == b""
    made = time.time() + left
    os.utime(lock, (made, made))
    assert isinstance(append(mbox), Delivered)
    assert os.listdir(home) == ["Mailbox"]


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("off", [-AHEAD - 60, STALE_AFTER + 60], ids=["behind", "ahead"])
def test_a_dot_lock_is_judged_by_the_clock_that_gives_files_their_times(
    home: Path, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    """That of a file server, from which this host's may be far."""
    make(home / "Mailbox.lock")
    here = SimpleNamespace(time=lambda: time.time() + off)
    monkeypatch.setattr(mbox_lock, "time", here)
    assert "Mailbox.lock was made 0 seconds ago" in detail_of(append(mbox_of(home)))
    assert sorted(os.listdir(home)) == ["Mailbox", "Mailbox.lock"]


def test_whoever_is_held_up_sees_that_a_later_attempt_came_first(home: Path) -> None:
    """As of a worker that was killed meanwhile, and of the one after it; by a lock here."""
    mbox = mbox_of(home)
    letter = Letter(envelope(0), CONTENT, mbox.delivered_to)
    make(home / "Mailbox")

    def wait_and_append() -> None:
        held = (home / "Mailbox").open("ab")
        fcntl.flock(held, fcntl.LOCK_EX)

        def overtaken(_: float) -> bool:
            held.close()
            assert isinstance(append_here(mbox, again=True), Delivered)
            return True

        append_letter(
            LocalDisk(),
            letter,
            mbox,
            again=False,
            asked_at=time.monotonic() - 1,
            mark=b"restante",
            pause=overtaken,
        )

    as_owner(wait_and_append)
    assert (home / "Mailbox").read_bytes() == EXPECTED


def test_the_dot_lock_of_one_who_died_is_removed_at_once(home: Path) -> None:
    make(home / "Mailbox.lock", f"1 restante {HOST}\n")
    assert isinstance(append(mbox_of(home)), Delivered)
    assert os.listdir(home) == ["Mailbox"]


@pytest.mark.usefixtures("no_patience")
def test_the_dot_lock_of_another_host_is_heeded(home: Path) -> None:
    make(home / "Mailbox.lock", "1 restante other.example.com\n")
    assert "by another program" in detail_of(append(mbox_of(home)))


def test_a_directory_that_takes_no_dot_lock(home: Path) -> None:
    spool = home.parent / "spool"
    spool.mkdir()
    make(spool / "iain")
    os.chown(spool, OWNER, GROUP)
    spool.chmod(0o500)
    assert isinstance(append(mbox_of(home, spool / "iain")), Delivered)
    assert (spool / "iain").read_bytes() == EXPECTED
    spool.chmod(0o700)


class LockedDisk(LocalDisk):
    """Says what locks there are while something is written."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.home = home
        self.seen: list[str] = []

    def syncfs(self, fd: int) -> None:
        super().syncfs(fd)
        self.seen.append((self.home / "Mailbox.lock").read_text())


def test_what_the_dot_lock_says(home: Path) -> None:
    def seen() -> tuple[int, list[str]]:
        disk = LockedDisk(home)
        append_here(mbox_of(home), disk=disk)
        return os.getpid(), disk.seen

    pid, texts = as_owner(seen)
    assert texts == [f"{pid} restante {HOST}\n"]


class ReplacingDisk(LocalDisk):
    """Another program puts a new file in the mbox's place, just before the lock is there."""

    def create(self, name: str, parent: int | None) -> int:
        fd = super().create(name, parent)
        path = os.path.join(os.readlink(f"/proc/self/fd/{parent}"), name.removesuffix(".lock"))
        if os.path.getsize(path) == 0:
            with open(path + ".new", "wb") as file:
                file.write(OTHERS)
            os.rename(path + ".new", path)
        return fd


def test_a_file_that_is_replaced_is_opened_anew(home: Path) -> None:
    make(home / "Mailbox")
    assert isinstance(append(mbox_of(home), disk=ReplacingDisk()), Delivered)
    assert (home / "Mailbox").read_bytes() == OTHERS + EXPECTED
    assert os.listdir(home) == ["Mailbox"]


# What fails


@pytest.mark.parametrize(
    ("operation", "number", "status"),
    [
        ("write", errno.ENOSPC, "452 4.3.1"),
        ("write", errno.EDQUOT, "452 4.2.2"),
        ("write", errno.EIO, "451 4.3.0"),
        ("fsync", errno.EIO, "451 4.3.0"),
    ],
)
def test_after_a_failure_the_file_is_as_it_was(
    home: Path, operation: str, number: int, status: str
) -> None:
    before = b"From x y\n\nother mail"
    make(home / "Mailbox", before.decode())
    counts: list[str] = []

    def fault(name: str) -> int:
        counts.append(name)
        return number if name.endswith("/Mailbox") and len(counts) <= 2 else 0

    disk = FaultyDisk(faults={operation: fault})
    outcome = append(mbox_of(home), disk=disk)
    assert isinstance(outcome, TemporaryFailure)
    assert f"{outcome.reply.code} {outcome.reply.enhanced}" == status
    assert (home / "Mailbox").read_bytes() == before
    assert os.listdir(home) == ["Mailbox"]


def test_a_file_that_may_not_grow(home: Path) -> None:
    make(home / "Mailbox", "From x y\n\n\n")
    large = memory_content(TRACE, b"x" * 900_000)

    def append_with_limit() -> Outcome:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        return append_here(mbox_of(home), large)

    outcome = as_owner(append_with_limit)
    assert isinstance(outcome, TemporaryFailure)
    assert outcome.reply.enhanced == "4.3.1"
    assert (home / "Mailbox").read_bytes() == b"From x y\n\n\n"


class IntrudedDisk(LocalDisk):
    """A program that heeds no lock adds mail while ours is written, and then the disk is full."""

    def syncfs(self, fd: int) -> None:
        os.write(fd, b"From x y\n\nintruder\n\n")
        raise OSError(errno.ENOSPC, "full")


def test_mail_of_others_is_never_cut_off(home: Path) -> None:
    assert isinstance(append(mbox_of(home), disk=IntrudedDisk()), TemporaryFailure)
    assert (home / "Mailbox").read_bytes() == EXPECTED + b"From x y\n\nintruder\n\n"


# What an earlier attempt left

OTHERS = b"From x@y Tue Nov 14 22:13:20 2023\nSubject: other\n\nmail\n\n"
OURS = b"".join(Letter(envelope(), CONTENT, ("iain@example.com",)).pieces())


def again(home: Path, before: bytes, content: Content = CONTENT) -> bytes:
    """The mbox after a retry that found ``before``."""
    path = home / "Mailbox"
    path.write_bytes(before)
    os.chown(path, OWNER, GROUP)
    assert isinstance(append(mbox_of(home), content, again=True), Delivered)
    return path.read_bytes()


@pytest.mark.parametrize("front", [b"", OTHERS])
@pytest.mark.parametrize("behind", [b"", OTHERS])
def test_a_whole_copy_counts(home: Path, front: bytes, behind: bytes) -> None:
    assert again(home, front + OURS + behind) == front + OURS + behind


@pytest.mark.parametrize("front", [b"", OTHERS])
@pytest.mark.parametrize("length", [*range(5, len(OURS), 7), len(OURS) - 1])
def test_a_torn_copy_is_replaced(home: Path, front: bytes, length: int) -> None:
    assert again(home, front + OURS[:length]) == front + OURS


@pytest.mark.parametrize("front", [b"", OTHERS])
def test_a_copy_with_holes_is_replaced(home: Path, front: bytes) -> None:
    holed = OURS[:100] + b"\0" * (len(OURS) - 120) + OURS[-20:]
    assert again(home, front + holed) == front + OURS
    holed = OURS[: len(OURS) - 10] + b"\0" * 5
    assert again(home, front + holed) == front + OURS


@pytest.mark.parametrize("separator", [b"", b"\n", b"\n\n"])
@pytest.mark.parametrize("length", [*range(1, len(OURS), 5), len(OURS) - 2, len(OURS) - 1])
def test_other_mail_behind_a_torn_copy_stays(home: Path, length: int, separator: bytes) -> None:
    before = OTHERS + OURS[:length] + separator + OTHERS
    after = again(home, before)
    assert after.startswith(before)
    assert after in (before + OURS, before)
    if after == before:
        assert OURS.rstrip(b"\n") in before


def test_a_retry_after_a_retry(home: Path) -> None:
    torn = OTHERS + OURS[:150] + b"\n\n" + OTHERS
    assert again(home, again(home, torn)) == torn + OURS
    assert again(home, torn + OURS[:200]) == torn + OURS


def test_a_copy_that_a_reader_has_marked_counts(home: Path) -> None:
    marked = OURS.replace(b"Subject: hello\n", b"Subject: hello\nStatus: RO\nX-Status: A\n")
    assert again(home, OTHERS + marked + OTHERS) == OTHERS + marked + OTHERS
    assert again(home, marked) == marked


def test_the_same_body_by_another_message_does_not_count(home: Path) -> None:
    other = b"".join(
        Letter(
            envelope(), memory_content(TRACE.replace(b"local", b"another"), BODY),
            ("iain@example.com",),
        ).pieces()
    )  # fmt: skip
    assert again(home, other) == other + OURS
    cut = OURS[: len(FIRST + TRACE) + 4]
    assert again(home, cut + other) == cut + other + OURS


def test_a_message_without_a_body(home: Path) -> None:
    bare = memory_content(TRACE, b"Subject: x\n")
    ours = b"".join(Letter(envelope(), bare, ("iain@example.com",)).pieces())
    assert again(home, ours + OTHERS, bare) == ours + OTHERS
    cut = ours[: len(FIRST + TRACE) + 4] + b"\n\n"
    assert again(home, cut + OTHERS, bare) == cut + OTHERS + ours


def test_large_copies_are_compared_in_pieces(home: Path) -> None:
    large = memory_content(TRACE, BODY + os.urandom(700_000).replace(b"\r", b"") + b"\n")
    ours = b"".join(Letter(envelope(), large, ("iain@example.com",)).pieces())
    filler = b"From x y\n\n" + b"text\n" * 200_000 + b"\n"
    assert again(home, filler + ours, large) == filler + ours
    assert again(home, filler + ours[:600_000], large) == filler + ours
    marked = ours.replace(b"Subject: hello\n", b"Subject: hello\nStatus: RO\n", 1)
    assert again(home, filler + marked, large) == filler + marked


def test_an_envelope_of_its_own_is_another_delivery(home: Path) -> None:
    append(mbox_of(home))
    later = replace(envelope(), received_at=1_700_000_001.0)
    assert isinstance(later, Envelope)
    never = os.eventfd(0)
    acting = Actor(Policy(HOST, 100, 1), Programs(), False, LocalDisk(), never)
    now = time.monotonic()
    as_owner(lambda: acting.append(later, CONTENT, mbox_of(home), again=True, asked_at=now))
    os.close(never)
    assert (home / "Mailbox").read_bytes() == EXPECTED + EXPECTED.replace(b":20 2023", b":21 2023")

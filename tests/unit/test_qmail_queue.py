"""Programs that were written for qmail hand their mail to what stands in qmail-queue's place."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from restante.address import MAX_LOCAL_PART
from restante.config.tree import Sendmail, Server, Settings, Smtp
from restante.drop import DropPaths, is_finished
from restante.drop.record import MAX_RECIPIENTS, Recipient, Record
from restante.drop.site import read_site
from restante.pickup.place import ROOM, prepare
from restante.sendmail import Refusal
from restante.sendmail.message import Home, leave
from tests.support.dropping import CLEAN, dropped

HELLO = b"Subject: hello\n\nhello\n"
ENVELOPE = b"Fiain@example.com\0Tann@example.com\0\0"
PROGRAM = [sys.executable, "-m", "restante.sendmail.qmail_queue"]


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    prepare(
        Settings(
            str(tmp_path),
            server=Server(me="mx.example.com"),
            sendmail=Sendmail(defaulthost="example.com"),
            smtp=Smtp(databytes=1_000_000, max_header=4000, max_text_line=2000),
        )
    )
    return tmp_path


def call(instance: Path, message: bytes = HELLO, envelope: bytes = ENVELOPE) -> int:
    """``call_and_hear``; it says something where it fails, and only there."""
    code, said = call_and_hear(instance, message, envelope)
    assert bool(code) == said.startswith("qmail-queue: ") == said.endswith("\n")
    return code


def call_and_hear(instance: Path, message: bytes, envelope: bytes) -> tuple[int, str]:
    """Hand a message over as qmail's programs do: all of it, and then its envelope."""
    content_out, content = os.pipe()
    envelope_out, addresses = os.pipe()
    with subprocess.Popen(
        PROGRAM,
        stdin=content_out,
        stdout=envelope_out,
        stderr=subprocess.PIPE,
        env=CLEAN | {"RESTANTE_DIR": str(instance)},
    ) as process:
        os.close(content_out)
        os.close(envelope_out)
        for pipe, octets in ((content, message), (addresses, envelope)):
            with open(pipe, "wb") as file:
                try:
                    file.write(octets)
                    file.flush()
                except BrokenPipeError:
                    file.raw.close()
        assert process.stderr is not None
        said = process.stderr.read().decode("ascii")
    return process.returncode, said


def test_a_message_is_dropped_as_it_is(instance: Path) -> None:
    message = b"Bcc: x\nReturn-Path: <y>\nTo: z\n\n" + b"0123456789abcde\n" * 30_000

    assert (
        call(instance, message, b"Fiain@example.com\0Tann@Example.com\0Tbob@example.net\0\0") == 0
    )
    (only,) = dropped(instance)
    assert only.content == message
    assert only.record.sender == "iain@example.com"
    assert only.recipients == ["ann@Example.com", "bob@example.net"]


def test_line_ends_are_those_of_this_host(instance: Path) -> None:
    assert call(instance, b"Subject: a\r\nX: b\rc\r\n\r\nd\re") == 0
    assert dropped(instance)[0].content == b"Subject: a\nX: b c\n\nd\ne\n"


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        (b"", ""),
        (b"#@[]", ""),
        (b"ann", "ann@example.com"),
        (b"a b@x.example", '"a b"@x.example'),
        (b"list-@x.example-@[]", "list-@x.example-@[]"),
    ],
)
def test_senders(instance: Path, sender: bytes, expected: str) -> None:
    assert call(instance, envelope=b"F" + sender + b"\0Tann@example.com\0\0") == 0
    assert dropped(instance)[0].record.sender == expected


def test_recipients_without_a_host_are_for_routing_to_complete(instance: Path) -> None:
    envelope = b"F\0Tann\0Ta b@x.example\0Tb..c@x.example\0Tann\0\0whatever"

    assert call(instance, envelope=envelope) == 0
    assert dropped(instance)[0].recipients == ["ann", '"a b"@x.example', '"b..c"@x.example']


def test_a_message_for_nobody_is_gone(instance: Path) -> None:
    assert call(instance, envelope=b"Fiain@example.com\0\0") == 0
    assert dropped(instance) == []


def test_recipients_that_are_no_addresses_do_not_keep_it_from_the_others(instance: Path) -> None:
    """They are a message of their own, which its sender gets back."""
    bad = (b"joe@x.org,", b"j@x..org", b"@x.org", b"j\xf6e@x.org", b'a"b@', b"", LONG + b"@x.org")
    people = b"".join(b"T" + each + b"\0" for each in (b"ann@example.com", *bad, b"bob"))

    assert call(instance, envelope=b"Flist-@example.com-@[]\0" + people + b"\0") == 0
    sent, returned = sorted(dropped(instance), key=lambda each: each.record.no_addresses)
    assert sent.recipients == ["ann@example.com", "bob"]
    assert not sent.record.no_addresses
    assert returned.recipients == [
        f"{local}@mx.example.com"
        for local in (
            '"joe@x.org,"',
            '"j@x..org"',
            '"@x.org"',
            '"j\\\\xf6e@x.org"',
            '"a\\"b@"',
            "''",
            LONG[:-1].decode(),
        )
    ]
    assert sent.content == returned.content == HELLO
    assert sent.record.sender == returned.record.sender == "list-@example.com-@[]"


def test_nor_do_they_end_their_sender_where_they_are_alone(instance: Path) -> None:
    """ezmlm-warn stops at the first failure, and begins with the same member again."""
    assert call(instance, envelope=b"Flist-return-warn-1@example.com\0Tjoe@x.org.\0\0") == 0
    (returned,) = dropped(instance)
    assert returned.record.no_addresses
    assert returned.recipients == ['"joe@x.org."@mx.example.com']


def test_more_recipients_than_a_message_may_have_are_several(instance: Path) -> None:
    people = [f"u{number}@far.example" for number in range(2 * MAX_RECIPIENTS + 5)]
    envelope = "".join(f"T{each}\0" for each in ("ann@example.com", *people, *people[:9]))

    assert call(instance, envelope=f"F\0{envelope}\0".encode()) == 0
    found = dropped(instance)
    assert sorted(len(each.recipients) for each in found) == [6, MAX_RECIPIENTS, MAX_RECIPIENTS]
    named = [address for each in found for address in each.recipients]
    assert sorted(named) == sorted(["ann@example.com", *people])
    assert [each.content for each in found] == [HELLO] * 3


def test_what_came_at_the_limit_by_smtp_can_be_handed_on(instance: Path) -> None:
    """With fields in front: who forwards a message adds some to it."""
    came = b"X: " + b"x" * 93 + b"\n\n" + (b"x" * 98 + b"\n") * 9_999
    assert len(came) + came.count(b"\n") == 1_000_000
    fields = b"Delivered-To: list@example.com\n" * 20

    assert call(instance, fields + came) == 0
    assert call(instance, fields + came + (b"x" * 98 + b"\n") * (ROOM // 100)) == 31
    assert call(instance, fields + b"Y: z\n" * 800 + b"\nbody\n") == 0


def test_of_several_messages_all_are_left_or_none(instance: Path) -> None:
    """Its caller tries again, with all recipients."""
    paths = DropPaths.of(str(instance))

    def full() -> Iterator[bytes]:
        yield HELLO
        raise OSError(errno.ENOSPC, "No space left on device")

    contents: Iterator[Iterable[bytes]] = iter([[HELLO], full()])
    records = [Record("", (Recipient(address),)) for address in ("ann@x.example", "bob@x.example")]
    with pytest.raises(Refusal, match="No space left"):
        leave(Home(paths, read_site(paths.site)), records, lambda: next(contents))
    assert os.listdir(paths.incoming) == []


def test_of_several_messages_none_is_shown_while_one_may_fail(
    instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes what it sees, and what it has taken is sent."""
    paths = DropPaths.of(str(instance))
    seen: list[list[str]] = []

    def failing(_descriptor: int) -> None:
        seen.append(os.listdir(paths.incoming))
        if len(seen) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    records = [Record("", (Recipient(address),)) for address in ("ann@x.example", "bob@x.example")]
    with pytest.raises(Refusal, match="Input/output error"):
        leave(Home(paths, read_site(paths.site)), records, lambda: [HELLO])
    assert [len(names) for names in seen] == [2, 2]
    assert not any(is_finished(name) for names in seen for name in names)
    assert os.listdir(paths.incoming) == []


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        (b"F\xff@x\0Tann@example.com\0\0", r"the sender '\\xff@x' is no address"),
        (b"F\0Tann@example.com\0", "the envelope ends before its end"),
    ],
)
def test_a_failure_is_told_of(instance: Path, envelope: bytes, said: str) -> None:
    assert call_and_hear(instance, HELLO, envelope)[1] == f"qmail-queue: {said}\n"


LONG = b"a" * (MAX_LOCAL_PART + 1)


@pytest.mark.parametrize(
    ("message", "envelope", "code"),
    [
        (HELLO, ENVELOPE[:-1], 54),
        (HELLO, b"", 54),
        (HELLO, b"Tann@example.com\0\0", 91),
        (HELLO, b"Fiain@example.com\0Xann@example.com\0\0", 91),
        (HELLO, b"F\0" + b"Tann@example.com\0" * 300_000, 11),
        (b"Received: x\n" * 101 + b"\n", ENVELOPE, 31),
        (b"X: " + b"x" * 1999 + b"\n" + b"Y: z\n" * 20_000 + b"\n", ENVELOPE, 31),
        (b"\n" + b"x\n" * 400_000, ENVELOPE, 31),
        (b"no field\n" * 10_000, ENVELOPE, 31),
        (b"no field\n" + b"Received: x\n" * 101, ENVELOPE, 31),
        (HELLO, b"Flist-@[]\0Tann@example.com\0\0", 31),
        (HELLO, b"Fiain@\0Tann@example.com\0\0", 31),
    ],
)
def test_what_cannot_be_taken_leaves_nothing(
    instance: Path, message: bytes, envelope: bytes, code: int
) -> None:
    assert call(instance, message, envelope) == code
    assert dropped(instance) == []


def test_what_this_host_lacks_is_a_failure_for_now(instance: Path) -> None:
    incoming = Path(DropPaths.of(str(instance)).incoming)
    incoming.rmdir()
    assert call(instance) == 55
    incoming.write_text("")
    assert call(instance) == 55
    assert call(instance / "nothing") == 55


def test_nothing_slow_is_imported_on_the_way_of_a_message(instance: Path) -> None:
    script = (
        "import sys, restante.sendmail.qmail_queue\n"
        "slow = 'dataclasses inspect email socket asyncio typer rich sqlite3 json'\n"
        "print(*set(slow.split()) & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=CLEAN, check=True
    )
    assert done.stdout == b"\n"

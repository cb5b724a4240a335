"""Programs that were written for qmail hand their mail to what stands in qmail-queue's place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from restante.address import MAX_LOCAL_PART
from restante.config.tree import Sendmail, Server, Settings, Smtp
from restante.drop import DropPaths
from restante.drop.record import MAX_RECIPIENTS
from restante.pickup.place import prepare
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
        assert process.stderr.read() == b""  # qmail-queue prints nothing
    return process.returncode


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


LONG = b"a" * (MAX_LOCAL_PART + 1)


@pytest.mark.parametrize(
    ("message", "envelope", "code"),
    [
        (HELLO, ENVELOPE[:-1], 54),
        (HELLO, b"", 54),
        (HELLO, b"Tann@example.com\0\0", 91),
        (HELLO, b"Fiain@example.com\0Xann@example.com\0\0", 91),
        (HELLO, b"F\0Tann@example.com\0" + b"Tann@exa mple.com\0\0", 31),
        (HELLO, b"F\0T\0\0", 31),
        (HELLO, b"F\0Tann@\xff.example\0\0", 31),
        (HELLO, b"F\0T" + LONG + b"@example.com\0\0", 31),
        (HELLO, b"F\0" + b"Ta@b.example\0" * (MAX_RECIPIENTS + 1) + b"\0", 31),
        (HELLO, b"F\0" + b"Tann@example.com\0" * 300_000, 11),
        (b"Received: x\n" * 101 + b"\n", ENVELOPE, 31),
        (b"X: " + b"x" * 1999 + b"\n" + b"Y: z\n" * 1000 + b"\n", ENVELOPE, 31),
        (b"\n" + b"x\n" * 400_000, ENVELOPE, 31),
        (b"no field\n" * 500, ENVELOPE, 31),
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

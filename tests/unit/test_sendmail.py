"""What the sendmail program makes of a message, and where it leaves it."""

from __future__ import annotations

import errno
import os
import pwd
import re
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import MAX_LOCAL_PART
from restante.config.load import load
from restante.config.tree import Sendmail, Server, Settings, Smtp
from restante.drop import DropPaths
from restante.drop.record import MAX_RECIPIENTS, Recipient
from restante.drop.site import Site, write_site
from restante.mda.ending import PERMANENT
from restante.pickup.place import ROOM, prepare, site_of
from restante.sendmail import NO_INSTANCE, NOT_NOW, Refusal
from restante.sendmail.message import Home, send
from restante.sendmail.options import parse
from restante.sendmail.source import Source
from tests.support.dropping import CLEAN, Dropped, dropped, sendmail
from tests.support.instance import new_instance

HELLO = b"Subject: hello\nDate: x\nFrom: y@z.example\nMessage-ID: <z>\nTo: ann\n\nhello\n"
SITE = Site(
    "mx.example.com", "mx.example.com", "example.com", "example.com", 0, 1000, 1000, 100, ""
)


def settings(directory: Path) -> Settings:
    return Settings(
        str(directory),
        server=Server(me="mx.example.com"),
        sendmail=Sendmail(plusdomain="plus.example"),
        smtp=Smtp(databytes=10_000, max_header=4000, max_text_line=2000),
    )


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    prepare(settings(tmp_path))
    return tmp_path


def drop(
    instance: Path, line: str, message: bytes = HELLO, environ: dict[str, str] | None = None
) -> Dropped:
    """What a command line leaves, in this process."""
    home = Home(DropPaths.of(str(instance)), site_of(settings(instance)))
    options = parse(["sendmail", *line.split()])
    send(options, {"USER": "me"} if environ is None else environ, iter([message]), home)
    (only,) = dropped(instance)
    return only


def refused(instance: Path, line: str, message: bytes = HELLO) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        drop(instance, line, message)
    assert dropped(instance) == []
    return refusal.value


# Whom it goes to


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ann", ["ann@mx.example.com"]),
        ("ann iain@elsewhere.example", ["ann@mx.example.com", "iain@elsewhere.example"]),
        ("ann@host bob@host+", ["ann@host.example.com", "bob@host.plus.example"]),
        ("ann,iain", ["ann@mx.example.com", "iain@mx.example.com"]),
        ("root@localhost", ["root@mx.example.com"]),
        ("ann ann Ann@MX.example.com", ["ann@mx.example.com", "Ann@mx.example.com"]),
        ("-- -ann", ["-ann@mx.example.com"]),
        ('"a.b"@x.example', ["a.b@x.example"]),
        ('"a,b"@x.example', ['"a,b"@x.example']),
        ("é@x.example", ["é@x.example"]),
        ("do..como@x.example", ['"do..como"@x.example']),
    ],
)
def test_recipients_of_the_command_line(instance: Path, line: str, expected: list[str]) -> None:
    assert drop(instance, line).recipients == expected


ADDRESSED = b"To: a, B <b@b.example>\nCc: c (see)\n d@host\nBcc: e\nSubject: s\n\nTo: f\n".replace(
    b"\n d", b",\n d"
)


@pytest.mark.parametrize(
    ("line", "message", "expected"),
    [
        ("-t", ADDRESSED, ["a@mx.example.com", "b@b.example", "c@mx.example.com"]),
        ("-t x", ADDRESSED, ["x@mx.example.com", "a@mx.example.com", "b@b.example"]),
        ("-t", b"Bcc: only\n\n", ["only@mx.example.com"]),
        ("-t", b"To: a\nResent-To: b\n\n", ["b@mx.example.com"]),
        ("-t", b"To: a\r\nCc: b\r\n\r\nhi\r\n", ["a@mx.example.com", "b@mx.example.com"]),
        ("-t a", b"Subject: nobody\n\n", ["a@mx.example.com"]),
    ],
)
def test_recipients_of_the_header(
    instance: Path, line: str, message: bytes, expected: list[str]
) -> None:
    assert drop(instance, line, message).recipients[: len(expected)] == expected


def test_the_header_is_only_asked_with_t(instance: Path) -> None:
    assert drop(instance, "x", ADDRESSED).recipients == ["x@mx.example.com"]


@pytest.mark.parametrize("line", ["-t", "ann"])
def test_blind_copies_stay_blind(instance: Path, line: str) -> None:
    message = drop(instance, line, ADDRESSED)
    assert b"Bcc" not in message.content
    assert b" e@mx.example.com" not in message.content
    assert ("e@mx.example.com" in message.recipients) == (line == "-t")


@pytest.mark.parametrize(
    ("line", "message", "status"),
    [
        ("", HELLO, os.EX_USAGE),
        ("-i", HELLO, os.EX_USAGE),
        ("-t", b"Subject: nobody\n\nTo: ann\n", os.EX_DATAERR),
        ("-t", b"To: group:;\n\n", os.EX_DATAERR),
        ("-t", b"To: ann iain\n\n", os.EX_DATAERR),
        ("-t", b"To: Ann <ann\n\n", os.EX_DATAERR),
        ("-t", b"To: \xff@example.com\n\n", os.EX_DATAERR),
        ("ann@-", HELLO, os.EX_USAGE),
        ("ann@ex..com", HELLO, os.EX_USAGE),
        ("<ann", HELLO, os.EX_USAGE),
        (f"{'x' * (MAX_LOCAL_PART + 1)}@example.com", HELLO, os.EX_USAGE),
        ("-f a,b ann", HELLO, os.EX_USAGE),
        ("-f a@b@c ann", HELLO, os.EX_USAGE),
        ("ann", b"".join(b"A%d: b\n" % n for n in range(10_000)) + b"\n", os.EX_DATAERR),
        ("ann", b"A: bcde\n" * ((4000 + ROOM) // 8 - 5) + b"\n", os.EX_DATAERR),
        ("ann", b"Received: x\n" * 101 + b"\n", os.EX_DATAERR),
        ("ann", HELLO + b"x\n" * 40_000, os.EX_DATAERR),
        ("ann", HELLO + b"x" * 2001, os.EX_DATAERR),
    ],
)
def test_what_cannot_be_sent(instance: Path, line: str, message: bytes, status: int) -> None:
    assert refused(instance, line, message).status == status


def test_too_many_recipients(instance: Path) -> None:
    line = " ".join(f"a{number}" for number in range(MAX_RECIPIENTS + 1))
    assert refused(instance, line).status == os.EX_DATAERR
    assert len(drop(instance, line.partition(" ")[2]).recipients) == MAX_RECIPIENTS


def test_an_envelope_that_the_server_would_not_take(instance: Path) -> None:
    """Local parts in quotes may have twice as many octets as they are bounded by."""
    name = '\\"' * (MAX_LOCAL_PART - 5) + '"@' + ".".join(["x" * 60] * 4)
    line = ",".join(f'"{number:05}{name}' for number in range(MAX_RECIPIENTS))
    assert refused(instance, line).status == os.EX_DATAERR


# Who sends it


@pytest.mark.parametrize(
    ("line", "environ", "sender", "author"),
    [
        ("", {"USER": "me"}, "me@mx.example.com", "me@mx.example.com"),
        ("", {"LOGNAME": "me"}, "me@mx.example.com", "me@mx.example.com"),
        ("", {"QMAILUSER": "q", "MAILUSER": "m", "USER": "u"}, "q@mx.example.com", None),
        ("", {"MAILUSER": "m", "USER": "u"}, "m@mx.example.com", None),
        ("", {"USER": "u", "MAILHOST": "host"}, "u@host.example.com", None),
        ("", {"USER": "u", "QMAILHOST": "q.example", "MAILHOST": "m"}, "u@q.example", None),
        ("", {"USER": "u", "NAME": "U. Ser"}, None, '"U. Ser" <u@mx.example.com>'),
        ("", {"USER": "u", "NAME": "N", "MAILNAME": "M"}, None, "M <u@mx.example.com>"),
        ("", {"USER": "u", "MAILNAME": "M", "QMAILNAME": "Q"}, None, "Q <u@mx.example.com>"),
        ("-F Who", {"USER": "u", "NAME": "N"}, None, "Who <u@mx.example.com>"),
        ("-f iain", {"USER": "u"}, "iain@mx.example.com", "iain@mx.example.com"),
        ("-f iain@x.example -FI", {}, "iain@x.example", "I <iain@x.example>"),
        ("-r iain@x.example", {}, "iain@x.example", "iain@x.example"),
        ("-f <>", {"USER": "u"}, "", "u@mx.example.com"),
        ("-f <iain@x.example>", {}, "iain@x.example", "iain@x.example"),
        ("-f l-owner-@x.example-@[]", {}, "l-owner-@x.example", "l-owner-@x.example"),
        ("", {"USER": "Jo Doe"}, '"Jo Doe"@mx.example.com', None),
        ("", {"USER": "ann@a.example"}, "ann@a.example", "ann@a.example"),
        ("", {"USER": "a b@a.example"}, '"a b"@a.example', None),
        ("", {"USER": "ann@a.example", "MAILHOST": "m"}, '"ann@a.example"@m.example.com', None),
    ],
)
def test_sender_and_author(
    instance: Path, line: str, environ: dict[str, str], sender: str | None, author: str | None
) -> None:
    message = drop(instance, f"{line} ann", b"\nhello\n", environ)
    if sender is not None:
        assert message.record.sender == sender
    if author is not None:
        assert message_from_bytes(message.content)["From"] == author


@pytest.mark.parametrize(
    ("line", "environ", "sender"),
    [
        ("", {"QMAILSUSER": "s"}, "s@mx.example.com"),
        ("", {"QMAILSHOST": "s"}, "u@s.example.com"),
        ("", {"QMAILSUSER": "s", "QMAILSHOST": "s.example", "QMAILHOST": "q"}, "s@s.example"),
        ("", {"QMAILSUSER": "", "QMAILSHOST": "", "QMAILHOST": "q.example"}, "u@q.example"),
        (
            "-f iain",
            {"QMAILSUSER": "s", "QMAILSHOST": "s", "QMAILINJECT": "m"},
            "iain@mx.example.com",
        ),
        ("-f <>", {"QMAILSUSER": "s", "QMAILINJECT": "r"}, ""),
        ("", {"QMAILINJECT": "r"}, "u-@mx.example.com-@[]"),
        ("-f l-@x.example", {"QMAILINJECT": "r"}, "l-@x.example-@[]"),
        ("", {"QMAILINJECT": "csxyz"}, "u@mx.example.com"),
    ],
)
def test_a_sender_who_is_not_the_author(
    instance: Path, line: str, environ: dict[str, str], sender: str
) -> None:
    message = drop(
        instance, f"{line} ann", b"Return-Path: <x@y>\n\nhello\n", {"USER": "u"} | environ
    )
    assert message.record.sender == sender
    if "-f" not in line and "QMAILHOST" not in environ:
        assert message_from_bytes(message.content)["From"] == "u@mx.example.com"


def test_a_sender_of_its_own_for_a_message(instance: Path) -> None:
    environ = {"USER": "u", "QMAILSUSER": "list", "QMAILINJECT": "rm"}
    before = int(time.time())
    sender = drop(instance, "ann", b"\nhello\n", environ).record.sender
    found = re.fullmatch(rf"list-(\d+)\.{os.getpid()}-@mx\.example\.com-@\[\]", sender)
    assert found is not None
    assert before <= int(found[1]) <= time.time()


def test_a_sender_in_the_environment_that_makes_no_address(instance: Path) -> None:
    with pytest.raises(Refusal, match="is no address") as refusal:
        drop(instance, "ann", HELLO, {"USER": "u", "QMAILSHOST": "no host"})
    assert refusal.value.status == os.EX_CONFIG


@pytest.mark.parametrize("letter", ["f", "i"])
def test_fields_that_are_made_anew(instance: Path, letter: str) -> None:
    made = message_from_bytes(
        drop(instance, "ann", HELLO, {"USER": "u", "QMAILINJECT": letter}).content
    )
    assert made.get_all("From") == ["u@mx.example.com" if letter == "f" else "y@z.example"]
    (message_id,) = made.get_all("Message-ID", [])
    assert (message_id == "<z>") is (letter == "f")


def test_without_a_word_in_the_environment_it_is_the_login(instance: Path) -> None:
    message = drop(instance, "ann", b"\nhello\n", {})
    assert message.record.sender == f"{pwd.getpwuid(os.getuid()).pw_name}@mx.example.com"


def test_an_author_that_is_there_stays(instance: Path) -> None:
    message = drop(instance, "-f iain ann")
    assert message.record.sender == "iain@mx.example.com"
    assert message_from_bytes(message.content)["From"] == "y@z.example"


def test_a_user_that_makes_no_address(instance: Path) -> None:
    home = Home(DropPaths.of(str(instance)), SITE)
    with pytest.raises(Refusal) as refusal:
        send(parse(["sendmail", "ann"]), {"USER": "a\nBcc: b"}, iter([b"\n"]), home)
    assert refusal.value.status == os.EX_CONFIG
    assert "\n" not in str(refusal.value)


def test_notifications(instance: Path) -> None:
    record = drop(instance, "-N success,delay -R hdrs -V id-1 ann iain").record
    assert (record.ret, record.envid) == ("HDRS", "id-1")
    assert record.recipients == (
        Recipient("ann@mx.example.com", "SUCCESS,DELAY"),
        Recipient("iain@mx.example.com", "SUCCESS,DELAY"),
    )


# The content


@pytest.mark.parametrize(
    ("line", "sent", "body"),
    [
        ("ann", b"hello\n", b"hello\n"),
        ("ann", b"hello", b"hello\n"),
        ("ann", b"", b""),
        ("ann", b"hello\r\nworld\r\n", b"hello\nworld\n"),
        ("ann", b"hello\r\r\nworld\n", b"hello\nworld\n"),
        ("ann", b"10%\r20%\r30%\n", b"10%\n20%\n30%\n"),
        ("ann", b"hello\r", b"hello\n"),
        ("ann", b"one\n.\ntwo\n", b"one\n"),
        ("ann", b"one\r\n.\r\ntwo\n", b"one\n"),
        ("ann", b"one\n.", b"one\n"),
        ("ann", b".\none\n", b""),
        ("ann", b"..\none\n", b"..\none\n"),
        ("ann", b".one\n", b".one\n"),
        ("-i ann", b"one\n.\ntwo\n", b"one\n.\ntwo\n"),
        ("-i ann", b".\none\n", b".\none\n"),
        ("-oi ann", b"one\n.\r\ntwo\n.", b"one\n.\ntwo\n.\n"),
        ("ann", b"\xff\x00\n", b"\xff\x00\n"),
        ("ann", b"From ann\n", b"From ann\n"),
    ],
)
def test_bodies(instance: Path, line: str, sent: bytes, body: bytes) -> None:
    assert drop(instance, line, HELLO.removesuffix(b"hello\n") + sent).content.endswith(
        b"\n\n" + body
    )


def test_a_complete_header_is_left_as_it_is(instance: Path) -> None:
    assert drop(instance, "ann").content == HELLO.replace(b"To: ann", b"To: ann@mx.example.com")


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (b"", ["Date", "From", "Message-ID", "To"]),
        (b"hello, no header\n", ["Date", "From", "Message-ID", "To"]),
        (b"Subject: x\nthen a body\n", ["Date", "From", "Message-ID", "To", "Subject"]),
        (b"Cc: x\n\n", ["Date", "From", "Message-ID", "Cc"]),
        (b"Bcc: x\n\n", ["Date", "From", "Message-ID", "To"]),
        (b"To: a\nResent-To: b\n\n", ["Resent-Date", "Resent-From", "Resent-Message-ID", "To"]),
        (b"Return-Path: <x>\nContent-Length: 7\nDate: x\nTo: y\n\n", ["From", "Message-ID"]),
    ],
)
def test_header_completion(instance: Path, message: bytes, names: list[str]) -> None:
    parsed = message_from_bytes(drop(instance, "ann", message).content)
    assert parsed.keys()[: len(names)] == names
    assert not parsed.defects
    assert "Return-Path" not in parsed
    assert "Content-Length" not in parsed


def test_a_message_that_names_nobody(instance: Path) -> None:
    parsed = message_from_bytes(drop(instance, "ann", b"\n").content)
    assert parsed["To"] == "undisclosed-recipients:;"
    assert parsed["Message-ID"].endswith("@mx.example.com>")


def test_a_cr_cannot_add_a_field(instance: Path) -> None:
    message = drop(instance, "-t", b"To: ann\nSubject: a\rBcc: iain\r\n\nhello\n")
    assert message.recipients == ["ann@mx.example.com"]
    assert b"Subject: a Bcc: iain\n" in message.content


def test_lines_of_an_mbox_are_no_header(instance: Path) -> None:
    message = drop(instance, "-t", b"From ann@x Mon Jan  1\n>From bob\nTo: ann\n\nhello\n")
    assert message.recipients == ["ann@mx.example.com"]
    assert b"Jan" not in message.content


BLOCKS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b": ", b"\r\n", b"yyyy"]), max_size=60)


@given(BLOCKS, st.booleans())
def test_where_a_message_is_cut_changes_nothing(blocks: list[bytes], dot: bool) -> None:
    def lines(pieces: Iterator[bytes]) -> bytes:
        source = Source(pieces, SITE, ends_with_dot=dot)
        return source.start() + b"".join(source.rest())

    whole = lines(iter([b"".join(blocks)]))
    assert lines(iter(blocks)) == whole
    assert whole == b"" or whole.endswith(b"\n")
    assert b"\r\n" not in whole


# The file


def test_a_file_that_only_the_server_reads(instance: Path) -> None:
    drop(instance, "ann")
    (path,) = Path(DropPaths.of(str(instance)).incoming).iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_another_users_server_can_read(
    instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = DropPaths.of(str(instance)).incoming
    server = os.stat(incoming).st_uid or 65534
    if os.getuid() == 0:
        os.chown(incoming, server, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: server + 1)
    drop(instance, "ann")
    (path,) = Path(incoming).iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_drop_directory_that_cannot_be_written_to(instance: Path) -> None:
    Path(DropPaths.of(str(instance)).incoming).rmdir()
    with pytest.raises(Refusal) as refusal:
        drop(instance, "ann")
    assert refusal.value.status == NO_INSTANCE
    assert "drop/incoming: No such file or directory" in str(refusal.value)


# The program


def test_the_program_says_nothing_when_all_is_well(instance: Path) -> None:
    done = sendmail(instance, "-t", "-oi", stdin=ADDRESSED)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (message,) = dropped(instance)
    assert message.record.sender == "ann@mx.example.com"


def test_the_program_takes_names_of_hosts_from_the_environment(instance: Path) -> None:
    named = {"USER": "u", "QMAILDEFAULTHOST": "vhost", "QMAILDEFAULTDOMAIN": "customers.example"}
    environ = named | {"QMAILPLUSDOMAIN": "plus.test", "QMAILIDHOST": "id.example"}
    done = sendmail(instance, "ann", "bob@x+", stdin=b"\nhello\n", environ=environ)
    assert (done.returncode, done.stderr) == (0, b"")
    (message,) = dropped(instance)
    assert message.record.sender == "u@vhost.customers.example"
    to = [recipient.address for recipient in message.record.recipients]
    assert to == ["ann@vhost.customers.example", "bob@x.plus.test"]
    assert message_from_bytes(message.content)["Message-ID"].endswith("@id.example>")


def test_what_is_made_whole_needs_no_smtputf8(instance: Path) -> None:
    own = Sendmail("everyone", "Bücher.example", "müller.example", "é.test")
    site = site_of(replace(settings(instance), sendmail=own))
    assert (site.me, site.defaulthost) == ("mx.example.com", "xn--bcher-kva.example")
    assert (site.defaultdomain, site.plusdomain) == ("xn--mller-kva.example", "xn--9ca.test")
    named = {"USER": "u", "QMAILDEFAULTHOST": "Bücher.example", "QMAILIDHOST": "é.test"}
    done = sendmail(instance, "ann", stdin=b"\nhello\n", environ=named)
    assert (done.returncode, done.stderr) == (0, b"")
    (message,) = dropped(instance)
    assert message.record.sender == "u@xn--bcher-kva.example"
    assert b"From: u@xn--bcher-kva.example\n" in message.content
    assert message.content.isascii()


def test_the_program_takes_no_host_that_is_none(instance: Path) -> None:
    done = sendmail(instance, "ann", stdin=b"\nhello\n", environ={"QMAILIDHOST": "a\nX: y"})
    assert done.returncode == os.EX_CONFIG
    assert done.stderr.startswith(b"sendmail: QMAILIDHOST: ")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["-Z"], os.EX_USAGE, b"sendmail: there is no option -Z\n"),
        (["-t"], os.EX_DATAERR, b"sendmail: no recipients: the header names nobody\n"),
        (["-bi"], os.EX_OK, b""),
    ],
)
def test_the_program_says_one_line(
    instance: Path, arguments: list[str], status: int, says: bytes
) -> None:
    done = sendmail(instance, *arguments, stdin=b"Subject: x\n\n")
    assert (done.returncode, done.stderr) == (status, says)


def test_what_this_host_lacks_returns_no_mail() -> None:
    """In a .qmail file the status decides about somebody's message."""
    assert {NO_INSTANCE, NOT_NOW}.isdisjoint(PERMANENT)


def test_a_bug_returns_no_mail(instance: Path) -> None:
    script = (
        "import restante.sendmail.program as program\n"
        "program.parse = None\n"
        "import restante.sendmail as sendmail\n"
        "sendmail.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env=CLEAN | {"RESTANTE_DIR": str(instance)},
        check=False,
    )
    assert done.returncode not in {0, *PERMANENT}
    assert done.stderr.startswith(b"sendmail: a bug: TypeError: ")


def test_no_instance(tmp_path: Path) -> None:
    done = sendmail(tmp_path, "ann", stdin=HELLO)
    assert done.returncode == NO_INSTANCE
    assert b"RESTANTE_DIR" in done.stderr


def test_a_damaged_site(instance: Path) -> None:
    Path(DropPaths.of(str(instance)).site).write_text("me mx.example.com\n")
    done = sendmail(instance, "ann", stdin=HELLO)
    assert done.returncode == NO_INSTANCE
    assert b"site is damaged" in done.stderr


def test_a_site_that_cannot_be_read_now(instance: Path) -> None:
    """A disk that fails, as this file of the kernel's does, may work when it is tried again."""
    site = Path(DropPaths.of(str(instance)).site)
    site.unlink()
    site.symlink_to("/proc/self/mem")
    done = sendmail(instance, "ann", stdin=HELLO)
    assert done.returncode == NOT_NOW
    assert b"cannot be read now: Input/output error" in done.stderr


def test_a_full_disk_is_no_status_of_what_was_queued(
    instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To callers of sendmail, PHP's mail() among them, EX_TEMPFAIL is as good as success."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refusal) as refusal:
        drop(instance, "ann")
    assert refusal.value.status == NOT_NOW != os.EX_TEMPFAIL
    assert dropped(instance) == []


def test_a_site_that_is_no_file(instance: Path) -> None:
    site = Path(DropPaths.of(str(instance)).site)
    site.unlink()
    site.mkdir()
    done = sendmail(instance, "ann", stdin=HELLO)
    assert done.returncode == NO_INSTANCE
    assert b"site cannot be read: Is a directory" in done.stderr


def test_a_site_is_published_whole_or_not_at_all(instance: Path) -> None:
    """Where there is room for a part of it, the former one stays."""
    paths = DropPaths.of(str(instance))
    before = Path(paths.site).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_site(paths.site, site_of(settings(instance)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Path(paths.site).read_bytes() == before
    assert "site." not in " ".join(os.listdir(paths.root))


def test_standard_input_that_cannot_be_read(instance: Path) -> None:
    with open(os.devnull, "wb") as unreadable:
        done = subprocess.run(
            [sys.executable, "-m", "restante.sendmail", "ann"],
            stdin=unreadable,
            capture_output=True,
            env=CLEAN | {"RESTANTE_DIR": str(instance)},
            check=False,
        )
    assert done.returncode == os.EX_IOERR
    assert b"standard input cannot be read" in done.stderr
    assert dropped(instance) == []


def test_nothing_slow_is_imported_on_the_way_of_a_message(instance: Path) -> None:
    script = (
        "import runpy, sys\n"
        "sys.argv = ['sendmail', '-t', '-i']\n"
        "try: runpy.run_module('restante.sendmail', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "slow = 'dataclasses inspect email socket asyncio typer rich sqlite3 json'\n"
        "print(*set(slow.split()) & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=ADDRESSED,
        capture_output=True,
        env=CLEAN | {"RESTANTE_DIR": str(instance)},
        check=True,
    )
    assert done.stdout == b"\n"


SMTP = [
    b"EHLO here",
    b"MAIL FROM:<iain@x.example> RET=HDRS ENVID=id+2B1",
    b"RCPT TO:<ann> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Ann@y.example",
    b"RCPT TO:<bob@host> NOTIFY=NEVER",
    b"DATA",
    b"Subject: hello\r\n\r\n..hidden\r\n.",
    b"MAIL FROM:<>",
    b"RCPT TO:<c@c.example>",
    b"RSET",
    b"MAIL FROM:<me> SMTPUTF8",
    b"RCPT TO:<nobody@>",
    b"RCPT TO:<c@c.example>",
    b"BDAT 7 LAST\r\nhello\r\n".removesuffix(b"\r\n"),
    b"QUIT",
]


def test_smtp_on_a_pipe(instance: Path) -> None:
    done = sendmail(instance, "-bs", stdin=b"\r\n".join([*SMTP, b""]))
    assert done.returncode == 0
    codes = [line[:3] for line in done.stdout.splitlines() if line[3:4] == b" "]
    assert b" ".join(codes) == b"220 250 250 250 250 354 250 250 250 250 250 501 250 250 221"
    first, second = sorted(dropped(instance), key=lambda each: each.record.sender)
    assert first.record.sender == "iain@x.example"
    assert (first.record.ret, first.record.envid) == ("HDRS", "id+1")
    assert first.record.recipients == (
        Recipient("ann@mx.example.com", "SUCCESS,DELAY", "rfc822;Ann@y.example"),
        Recipient("bob@host.example.com", "NEVER"),
    )
    assert first.content.endswith(b"Subject: hello\n\n.hidden\n")
    assert message_from_bytes(first.content)["From"] == "iain@x.example"
    assert second.record.sender == "me@mx.example.com"
    assert (first.record.smtputf8, second.record.smtputf8) == (False, True)
    assert second.content.endswith(b"\n\nhello\n")


def test_smtp_on_a_pipe_that_ends_early(instance: Path) -> None:
    done = sendmail(instance, "-bs", stdin=b"\r\n".join([*SMTP[:5], b"Subject: hello"]))
    assert done.returncode == 0
    assert dropped(instance) == []


def test_smtp_on_a_pipe_hears_what_is_wrong(instance: Path) -> None:
    session = [*SMTP[:5], b"Received: x\r\n" * 101 + b".", b"QUIT", b""]
    done = sendmail(instance, "-bs", stdin=b"\r\n".join(session))
    assert b"554 5.6.0 the message is looping: it has 101 Received fields\r\n" in done.stdout
    assert dropped(instance) == []


def test_what_the_restante_command_does(tmp_path: Path) -> None:
    with new_instance(tmp_path / "i", domains=()):
        listed = sendmail(tmp_path / "i", "-bp")
        retried = sendmail(tmp_path / "i", "-q")
    assert (listed.returncode, listed.stdout) == (0, b"Mail queue is empty\n")
    nothing = b"Nothing that waits matches; nothing was changed.\n"
    assert (retried.returncode, retried.stdout, retried.stderr) == (0, b"", nothing)


def test_what_it_does_where_there_is_a_control_directory_alone(tmp_path: Path) -> None:
    control, instance = tmp_path / "control", tmp_path / "i"
    control.mkdir()
    (control / "me").write_text("mx.example.com\n")
    (instance / "queue").mkdir(parents=True)
    prepare(load(str(instance), {}, str(control)))
    listed = sendmail(instance, "-bp")
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, b"Mail queue is empty\n", b"")


def test_what_it_does_where_standard_output_is_closed(tmp_path: Path) -> None:
    with new_instance(tmp_path / "i", domains=()):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "restante.sendmail", "-q"],
            stderr=subprocess.PIPE,
            env=CLEAN | {"RESTANTE_DIR": str(tmp_path / "i")},
            check=False,
        )
    nothing = b"Nothing that waits matches; nothing was changed.\n"
    assert (done.returncode, done.stderr) == (0, nothing)

"""Commands whose standard streams are full, closed, or read by somebody who has gone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from subprocess import PIPE
from typing import IO

import pytest

from restante.cli.status import ExitCode
from restante.queue.operate import CHUNK
from tests.support.shell import Shell
from tests.support.terminal import at_terminal
from tests.support.waiting import Sent, put, to

RESTANTE = (sys.executable, "-m", "restante", "--dir")
MANY = CHUNK + 10
BUFFERED = {"buffered": "", "unbuffered": "1"}


@pytest.fixture(params=BUFFERED)
def unbuffered(request: pytest.FixtureRequest) -> str:
    """PYTHONUNBUFFERED: output fails when it is printed, or when the command ends."""
    return BUFFERED[request.param]


@pytest.fixture
def full() -> Iterator[IO[bytes]]:
    with open("/dev/full", "wb") as device:
        yield device


@pytest.fixture
def unread() -> Iterator[int]:
    """The end of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with closing(os.fdopen(writer, "wb")) as end:
        yield end.fileno()


def command(
    shell: Shell,
    *arguments: str,
    out: int | IO[bytes] = PIPE,
    unbuffered: str = "",
    encoding: str = "utf-8",
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RESTANTE, str(shell.directory), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=PIPE,
        encoding=encoding,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONIOENCODING": encoding},
        check=False,
    )


def closed(shell: Shell, redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell starts it that closes a stream."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *RESTANTE, str(shell.directory), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def log_of(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What commands that change the queue write to."""
    monkeypatch.setenv("RESTANTE_LOG__TARGET", "mail.log")
    log = shell.directory / "mail.log"
    log.touch()
    return log


def test_a_full_disk_is_told_of(hosted: Shell, full: IO[bytes], unbuffered: str) -> None:
    for arguments in (("mailbox", "list", "--json"), ("--help",)):
        done = command(hosted, *arguments, out=full, unbuffered=unbuffered)

        assert done.returncode == ExitCode.UNHEARD
        assert done.stderr == (
            "restante: standard output cannot be written to: No space left on device\n"
        )


def test_a_reader_that_has_gone_is_not(hosted: Shell, unread: int, unbuffered: str) -> None:
    for arguments in (("mailbox", "list", "--json"), ("--help",)):
        done = command(hosted, *arguments, out=unread, unbuffered=unbuffered)

        assert (done.returncode, done.stderr) == (ExitCode.UNHEARD, "")


def test_the_queue_is_changed_wholly_whoever_reads_of_it(
    hosted: Shell, unread: int, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by ``restante queue remove --all --yes | head -1``: and the log has all of it."""
    put(hosted, 0, [Sent(to(f"a{number}@x.example"), 0) for number in range(MANY)])
    log = log_of(hosted, monkeypatch)

    done = command(hosted, "queue", "remove", "--all", "--yes", out=unread, unbuffered=unbuffered)

    assert done.returncode == ExitCode.UNHEARD
    assert f"{MANY} messages ({MANY} recipients) removed.\n" in done.stderr
    assert hosted.json("queue", "list") == []
    assert log.read_text().count("event=operated") == MANY


def signalled(
    shell: Shell, *signals: int, within: Sequence[str] = (), errors: int | IO[bytes] = PIPE
) -> tuple[int, int, str]:
    """The command that removes all, when signals come in the midst of it.

    Its exit code, the lines that it said, and what stands on standard error.
    """
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # which is full before the first CHUNK is told
    process = subprocess.Popen(
        [*within, *RESTANTE, str(shell.directory), "queue", "remove", "--all", "--yes"],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=errors,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    os.close(writer)
    with closing(os.fdopen(reader, "rb", buffering=0)) as said:
        said.readline()
        for number in signals:
            process.send_signal(number)
        lines = 1 + len(said.readlines())
    _, heard = process.communicate()
    return process.returncode, lines, heard or ""


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT], [signal.SIGHUP, signal.SIGHUP], [signal.SIGTERM, signal.SIGHUP]],
    ids=["Ctrl-C", "a terminal that is closed", "a session that systemd ends"],
)
def test_a_signal_leaves_nothing_half_done(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, signals: list[int]
) -> None:
    """What was changed before it has ended is told of, in the log too, and nothing else is."""
    put(hosted, 0, [Sent(to(f"a{number}@x.example"), 0) for number in range(MANY)])
    log = log_of(hosted, monkeypatch)

    code, lines, errors = signalled(hosted, *signals)

    assert code == ExitCode.INTERRUPTED
    assert errors.startswith(f"Stopped: {lines} messages ({lines} recipients) removed;")
    assert lines == CHUNK
    assert len(hosted.json("queue", "list")) == MANY - lines
    assert log.read_text().count("event=operated") == lines


def test_a_signal_that_nohup_ignores_ends_nothing(hosted: Shell) -> None:
    put(hosted, 0, [Sent(to(f"a{number}@x.example"), 0) for number in range(MANY)])
    code, lines, _ = signalled(hosted, signal.SIGHUP, within=["nohup"])
    assert (code, lines) == (ExitCode.OK, MANY)


def test_what_was_stopped_where_nobody_hears_of_it(hosted: Shell, full: IO[bytes]) -> None:
    put(hosted, 0, [Sent(to(f"a{number}@x.example"), 0) for number in range(MANY)])
    code, _, _ = signalled(hosted, signal.SIGHUP, errors=full)
    assert code == ExitCode.INTERRUPTED
    assert len(hosted.json("queue", "list")) == MANY - CHUNK


def test_streams_that_are_closed(hosted: Shell) -> None:
    for arguments in (("domain", "list"), ("queue", "list", "--json")):
        done = closed(hosted, ">&-", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    refused = closed(hosted, "<&-", "mailbox", "add", "ann@example.com", "--password-stdin")
    assert refused.returncode == ExitCode.REFUSED
    assert "standard input holds no password" in refused.stderr
    silent = closed(hosted, "2>&-", "domain", "add", "")
    assert (silent.returncode, silent.stdout) == (ExitCode.REFUSED, "")


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_letters_that_a_locale_does_not_have(hosted: Shell, encoding: str) -> None:
    address = "gr\xfc\xdfe-\u2713@example.com"
    assert hosted.add_mailbox(address).code == 0

    listed = command(hosted, "mailbox", "list", encoding=encoding)
    shown = command(hosted, "mailbox", "show", address, "--json", encoding=encoding)

    assert (listed.returncode, shown.returncode) == (0, 0)
    assert "-\\u2713@example.com\t" in listed.stdout
    assert json.loads(shown.stdout)["mailbox"] == address


def test_a_table_fits_on_a_terminal_that_can_do_nothing_else(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")

    shown = at_terminal(hosted.directory, "mailbox", "list", columns=40).screen.splitlines()

    assert len(shown) > 2
    assert max(map(len, shown)) <= 40
    assert "\x1b" not in "".join(shown)

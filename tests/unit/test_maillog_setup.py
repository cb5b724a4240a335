"""A log line: its form, its safety against what clients send, and where it goes."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante import eventlog, logsetup, maillog
from restante.config.tree import Log
from restante.logsetup import LogUnusable, OpenLog, as_json, logfmt, setup_logging, timestamp


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """What a test sets up is its own."""
    before = eventlog.log.destination
    yield
    eventlog.log.destination = before


@dataclass
class LogFile:
    """A log in a file, set up as often as a test wants."""

    directory: Path
    opened: list[OpenLog] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.directory / "mail.log"

    def open(self, **settings: str) -> None:
        made = setup_logging(Log(**({"target": "mail.log"} | settings)), str(self.directory))  # type: ignore[arg-type]
        self.opened.append(made)

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogFile]:
    made = LogFile(tmp_path)
    yield made
    for opened in made.opened:
        opened.close()


def test_logfmt_line(log: LogFile) -> None:
    log.open()
    maillog.delivered("01jx", "iain@example.com", "/srv/mail/iain/Maildir")
    (line,) = log.lines()
    assert re.fullmatch(
        r"ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=info event=delivered id=01jx"
        r" recipient=iain@example\.com detail=/srv/mail/iain/Maildir",
        line,
    )


def test_an_address_has_the_quotes_that_it_needs(log: LogFile) -> None:
    log.open(format="json")
    maillog.expanded("id1", "a b@example.com", 1)
    maillog.operated("id1", "hold", ["a@b@example.com", "ann@example.com"], 0)
    expanded, operated = map(json.loads, log.lines())
    assert expanded["recipient"] == '"a b"@example.com'
    assert operated["recipients"] == ['"a@b"@example.com', "ann@example.com"]


def test_json_line(log: LogFile) -> None:
    log.open(format="json")
    maillog.worker_ended(3, 4711, -9)
    (line,) = log.lines()
    event = json.loads(line)
    assert list(event) == ["ts", "level", "event", "slot", "pid", "status"]
    assert (event["level"], event["event"], event["status"]) == ("warning", "worker_ended", -9)


def test_timestamp_is_utc_with_milliseconds() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1769904000.9999) == "2026-02-01T00:00:00.999Z"


HEAD = ("now", "info", "some")
"""Time, level and name of an event."""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("x\r\nlevel=error", '"x\\r\\nlevel=error"'),
        ("x event=login", '"x event=login"'),
        ("\x1b[2J\x00\x7f\x85", '"\\x1b[2J\\x00\\x7f\\x85"'),
        ("a\u2028b\u202ec", '"a\\u2028b\\u202ec"'),
        ("caf\udce9", '"caf\\udce9"'),
        ("Grüße", '"Grüße"'),
        (["one", "two"], '"one; two"'),
        (-9, "-9"),
        (0.25, "0.25"),
        (True, "true"),
    ],
)
def test_logfmt_values(value: object, shown: str) -> None:
    assert logfmt(*HEAD, {"key": value}) == f"ts=now level=info event=some key={shown}"


ANYTHING = st.text(st.characters(exclude_categories=[]))


@given(st.lists(ANYTHING, max_size=5))
def test_no_value_can_end_the_line_or_pass_for_a_key(values: list[str]) -> None:
    """A line splits into as many pairs as it has fields, under the keys they were given."""
    fields = {f"k{number}": value for number, value in enumerate(values)}
    line = logfmt(*HEAD, fields)
    assert line.isprintable()
    keys = [pair.partition("=")[0] for pair in shlex.split(line)]
    assert keys == ["ts", "level", "event", *fields]
    assert len(as_json(*HEAD, fields).splitlines()) == 1


@pytest.mark.parametrize("render", [logfmt, as_json])
def test_long_value_is_cut(render: object) -> None:
    assert callable(render)
    assert len(render(*HEAD, {"key": "x" * 1_000_000})) < logsetup.MAX_VALUE + 100


def test_trace_is_one_line_that_keeps_its_end(log: LogFile) -> None:
    log.open()
    maillog.unplanned("here", ValueError("x\n" + "y" * 20_000))
    (line,) = log.lines()
    assert 'error="ValueError: x\\n' in line
    assert line.endswith('yyy"')


def test_level_filters(log: LogFile) -> None:
    log.open(level="warning")
    maillog.server_reloaded()
    maillog.database_away("gone")
    assert [line.split()[2] for line in log.lines()] == ["event=database_away"]


def test_file_is_appended_to_and_private(log: LogFile) -> None:
    log.open()
    maillog.server_reloaded()
    log.open()
    maillog.server_reloaded()
    assert len(log.lines()) == 2
    assert stat.S_IMODE(log.path.stat().st_mode) & ~0o640 == 0


def test_set_up_again_reopens_a_rotated_file(log: LogFile) -> None:
    log.open()
    maillog.server_reloaded()
    rotated = log.path.rename(log.directory / "mail.log.1")
    maillog.server_reloaded()
    log.open()
    maillog.server_stopped()
    assert len(rotated.read_text().splitlines()) == 2
    assert len(log.lines()) == 1


def test_which_file_a_log_is(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """None where there is nothing to say: standard error may be closed."""
    log.open()
    log.open()
    log.path.rename(log.directory / "mail.log.1")
    log.open()
    first, same, other = (opened.file for opened in log.opened)
    assert first == same
    assert None not in (first, other)
    assert first != other
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    monkeypatch.setattr(logsetup, "STDERR", write)
    assert setup_logging(Log(target="stderr"), "/").file is None


def test_file_that_cannot_be_opened_leaves_the_old_log(log: LogFile) -> None:
    log.open()
    with pytest.raises(LogUnusable, match=r"log\.target: .*nowhere/mail\.log cannot be opened"):
        setup_logging(Log(target="nowhere/mail.log"), str(log.directory))
    maillog.server_reloaded()
    assert len(log.lines()) == 1


def test_stderr(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    opened = setup_logging(Log(target="stderr"), str(tmp_path))
    maillog.server_reloaded()
    opened.close()
    maillog.server_stopped()
    said = capfd.readouterr().err.splitlines()
    assert [line.split()[2] for line in said] == ["event=server_reloaded", "event=server_stopped"]


FULL_DISK = """
import os, resource, signal, sys
from restante import maillog
from restante.config.tree import Log
from restante.logsetup import setup_logging

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
setup_logging(Log(target="mail.log"), sys.argv[1])
maillog.delivered("1", "x", "fits")
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
size = os.stat(os.path.join(sys.argv[1], "mail.log")).st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
for _ in range(19):
    maillog.delivered("1", "x", "does not")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
maillog.server_stopped()
maillog.server_reloaded()
"""
"""A process of its own, because the limit on file sizes is a process's."""


def test_full_disk_stops_nothing_and_is_told_later(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], check=True)
    fits, torn, lost, stopped, reloaded = (tmp_path / "mail.log").read_text().splitlines()
    assert fits.endswith("detail=fits")
    assert len(torn) == 10
    assert lost.endswith("event=log_lost lines=19")
    assert stopped.endswith("event=server_stopped")
    assert reloaded.endswith("event=server_reloaded")


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a log daemon would listen."""
    path = tmp_path / "log"
    monkeypatch.setattr(logsetup, "SYSLOG_SOCKET", str(path))
    return path


def listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound.bind(str(path))
    bound.settimeout(60)
    return bound


def test_syslog(daemon: Path, tmp_path: Path) -> None:
    with listen(daemon) as bound:
        opened = setup_logging(Log(target="syslog"), str(tmp_path))
        maillog.server_reloaded()
        maillog.database_away("gone")
        first, second = bound.recv(9999).decode(), bound.recv(9999).decode()
        opened.close()
    assert first.startswith(f"<22>restante[{os.getpid()}]: ts=")  # mail.info
    assert second.startswith("<19>")  # mail.err
    assert second.endswith(" level=error event=database_away why=gone")


def test_syslog_daemon_that_restarts(daemon: Path, tmp_path: Path) -> None:
    first = listen(daemon)
    opened = setup_logging(Log(target="syslog"), str(tmp_path))
    first.close()
    maillog.server_reloaded()
    with listen(daemon) as second:
        maillog.server_stopped()
        assert second.recv(9999).decode().endswith("event=log_lost lines=1")
        assert second.recv(9999).decode().endswith("event=server_stopped")
    opened.close()


def test_syslog_daemon_that_is_stuck_is_not_waited_for(daemon: Path, tmp_path: Path) -> None:
    with listen(daemon):
        opened = setup_logging(Log(target="syslog"), str(tmp_path))
        for _ in range(5000):
            maillog.server_reloaded()
        opened.close()


def test_no_syslog_daemon_is_said_clearly(daemon: Path, tmp_path: Path) -> None:
    with pytest.raises(LogUnusable, match=r"no syslog daemon answers at .*log"):
        setup_logging(Log(target="syslog"), str(tmp_path))


def test_lines_of_threads_do_not_mix(log: LogFile) -> None:
    log.open()

    def write() -> None:
        for _ in range(50):
            maillog.delivered("1", "x", "y" * 3000)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {line.partition(" ")[2] for line in log.lines()} == {
        "level=info event=delivered id=1 recipient=x detail=" + "y" * 3000
    }
    assert len(log.lines()) == 200


def test_a_fifo_that_nobody_reads_is_refused(log: LogFile) -> None:
    """Whoever waited for a reader would serve nobody meanwhile; with one, it is waited for."""
    os.mkfifo(log.path)
    with pytest.raises(LogUnusable, match="cannot be opened for writing"):
        log.open()
    reader = os.open(log.path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        log.open()
        maillog.server_stopped()
        assert b"event=server_stopped" in os.read(reader, 1000)
    finally:
        os.close(reader)

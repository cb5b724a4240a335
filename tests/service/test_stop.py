"""SIGTERM: what is in progress is finished, everybody else is sent away, nothing is left."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.instance import PATIENCE, Instance, until
from tests.support.serving import (
    IAIN,
    SAMPLE,
    Wire,
    begin_data,
    configure,
    deliver,
    is_alive,
    is_free,
    maildir,
    new_server,
    smtp,
    start,
    workers,
)

IMPATIENT = """
import sys
from restante.cli import main
from restante.service import supervisor

supervisor.STOP_MARGIN = 0.5
del sys.argv[1:-3]
main()
"""
"""The command ``--dir DIR serve``, whose supervisor waits half a second for the end of workers."""


def terminate(instance: Instance) -> None:
    """SIGTERM, and wait until the server has begun to stop."""
    assert instance.process is not None
    seen = len(instance.log())
    instance.process.send_signal(signal.SIGTERM)
    until(lambda: "event=server_stopping" in instance.log()[seen:], "the server stops")


def ended(instance: Instance) -> int:
    """Wait for the end of the server; its exit status."""
    assert instance.process is not None
    status = instance.process.wait(PATIENCE)
    instance.process = None
    return status


def deliveries(instance: Instance) -> list[bytes]:
    folder = maildir(instance, IAIN) / "new"
    return [file.read_bytes() for file in folder.iterdir()] if folder.exists() else []


@pytest.mark.parametrize("sent", [b"", SAMPLE[:20]], ids=["nothing sent yet", "half of it sent"])
def test_message_in_progress_is_finished(tmp_path: Path, sent: bytes) -> None:
    with new_server(tmp_path / "instance") as instance:
        with smtp(instance.smtp_port) as busy, smtp(instance.smtp_port) as idle:
            begin_data(busy, IAIN)
            busy.send(sent)
            terminate(instance)
            assert idle.reply().startswith("421 4.3.2 ")
            assert idle.at_end()
            busy.send(SAMPLE[len(sent) :] + b".\r\n")
            assert busy.reply().startswith("250 2.0.0 ok ")
            assert busy.reply().startswith("421 4.3.2 ")
            assert busy.at_end()
        assert ended(instance) == os.EX_OK
        (message,) = deliveries(instance)
        assert message.endswith(b"\nSubject: hello\n\nhello\n")


def test_chunks_in_progress_are_finished(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        with smtp(instance.smtp_port) as busy, smtp(instance.smtp_port) as idle:
            busy.ask("MAIL FROM:<me@example.net>")
            busy.ask(f"RCPT TO:<{IAIN}>")
            busy.send(b"BDAT %d LAST\r\n" % len(SAMPLE))
            busy.send(SAMPLE[:5])
            terminate(instance)
            assert idle.reply().startswith("421 ")
            busy.send(SAMPLE[5:])
            assert busy.reply().startswith("250 2.0.0 ok ")
        assert ended(instance) == os.EX_OK
        assert len(deliveries(instance)) == 1


def test_idle_sessions_are_told_and_closed(tmp_path: Path) -> None:
    """Between two commands, in a transaction or not, logged in or not."""
    with new_server(tmp_path / "instance") as instance:
        deliver(instance.smtp_port, IAIN)
        with (
            smtp(instance.smtp_port) as in_transaction,
            Wire(instance.pop3_port) as reader,
            Wire(instance.pop3_port) as stranger,
        ):
            in_transaction.ask("MAIL FROM:<me@example.net>")
            assert stranger.line().startswith("+OK")
            assert reader.line().startswith("+OK")
            reader.send(f"USER {IAIN}\r\nPASS secret\r\nDELE 1\r\n".encode())
            assert [reader.line()[:3] for _ in range(3)] == ["+OK"] * 3
            terminate(instance)
            assert in_transaction.reply().startswith("421 ")
            for session in (reader, stranger):
                assert session.line().startswith("-ERR [SYS/TEMP] ")
                assert session.at_end()
        assert ended(instance) == os.EX_OK
        assert len(list(maildir(instance, IAIN).glob("*/*.*"))) == 1, "DELE without QUIT"


def test_client_that_does_not_finish_is_cut_off(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {"server": {"drain_timeout": 1}}) as instance:
        with smtp(instance.smtp_port) as silent:
            begin_data(silent, IAIN)
            silent.send(SAMPLE)
            terminate(instance)
            assert ended(instance) == os.EX_OK
            assert silent.at_end()
        assert deliveries(instance) == []


def test_a_worker_that_hangs_is_killed(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        assert instance.stop() == os.EX_OK
        configure(instance, {"server": {"drain_timeout": 0}})
        instance.within = [sys.executable, "-c", IMPATIENT]
        start(instance)
        (pid,) = workers(instance, 1)
        os.kill(pid, signal.SIGSTOP)
        assert instance.stop() == os.EX_OK
        assert not is_alive(pid)


def test_nothing_is_left_running(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {"server": {"workers": 2}}) as instance:
        pids = workers(instance, 2)
        assert instance.stop() == os.EX_OK
        assert not any(map(is_alive, pids))
        assert is_free(instance.smtp_port)
        assert is_free(instance.pop3_port)
        assert "event=server_stopped" in instance.log()
        assert "event=unplanned" not in instance.log()

"""Signals that reach the server, or a process of its, before it is up."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from restante.service.children import WATCHED, fork
from tests.support.instance import PATIENCE, new_instance, until
from tests.support.serving import Wire, configure, is_free

SIGNALLED = """
import os, signal, sys
from restante.cli import main

# Whoever runs the tests in the background of a shell has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
done = []
def signal_once(event, arguments):
    if event == {event!r} and str(arguments[0]).endswith({what!r}) and not done:
        done.append(event)
        os.kill(os.getpid(), signal.{name})

sys.addaudithook(signal_once)
del sys.argv[1:-3]
main()
"""
"""The command ``--dir DIR serve``, with a signal at the moment of a step of its start."""


def signalled(name: str, event: str = "open", what: str = "restante.toml") -> list[str]:
    """What makes the command that follows one that gets a signal when it opens its settings."""
    return [sys.executable, "-c", SIGNALLED.format(event=event, what=what, name=name)]


def test_a_reload_that_comes_too_early_is_done_when_the_server_is_up(tmp_path: Path) -> None:
    with new_instance(tmp_path / "instance", domains=()) as instance:
        configure(instance, {})
        instance.within = signalled("SIGHUP")
        instance.spawn()
        until(lambda: "event=server_reloaded" in instance.log(), "the server has reloaded")
        with Wire(instance.port("smtp")) as client:
            assert client.reply().startswith("220 ")
        assert instance.stop() == os.EX_OK


@pytest.mark.parametrize(
    ("name", "status"), [("SIGINT", 130), ("SIGTERM", -signal.SIGTERM)], ids=str
)
def test_an_end_that_comes_as_early_is_one_without_a_word(
    tmp_path: Path, name: str, status: int
) -> None:
    with new_instance(tmp_path / "instance", domains=()) as instance:
        done = subprocess.run(
            [*signalled(name), "--dir", str(instance.directory), "serve"],
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


def test_ctrl_c_while_the_command_itself_is_read_shows_no_trace() -> None:
    command = [*signalled("SIGINT", "import", "restante.cli.serving"), "--dir", "/", "serve"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (130, b"")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_server_ends_though_its_workers_do_not_serve_yet(tmp_path: Path, name: str) -> None:
    """They wait for a queue that another process has, and would give up in the end."""
    with new_instance(tmp_path / "instance", domains=()) as instance:
        configure(instance, {})
        slot = instance.directory / "queue" / "0"
        slot.mkdir(parents=True, exist_ok=True)
        with (slot / "lock").open("ab") as lock:
            os.chmod(lock.fileno(), 0o666)
            fcntl.flock(lock, fcntl.LOCK_EX)
            instance.spawn()
            until(lambda: "event=worker_started" in instance.log(), "a worker starts")
            assert instance.process is not None
            instance.process.send_signal(signal.Signals[name])
            assert instance.process.wait(PATIENCE) == os.EX_OK
        assert f"event=server_stopping reason={name}" in instance.log()
        assert "event=worker_failed" not in instance.log()
        assert is_free(instance.port("smtp"))


def test_a_child_hears_no_signal_of_its_group_from_its_beginning_on() -> None:
    """What a terminal sends in the moment of the fork is waiting when the child begins."""

    def signal_itself() -> int:
        for number in (signal.SIGHUP, signal.SIGINT):
            os.kill(os.getpid(), number)
        return 7

    former = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        pid = fork("child", signal_itself)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_helper_hears_none_either() -> None:
    code = (
        "import os, signal\n"
        "from restante.helper.become import leave_surroundings\n"
        "leave_surroundings(os.open('/dev/null', os.O_RDONLY))\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "    os.kill(os.getpid(), number)\n"
        "os._exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7

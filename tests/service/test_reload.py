"""SIGHUP: new settings for new connections, old sessions go on; wrong settings change nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from restante.config.load import FILE_NAME
from restante.service.supervisor import LETTING_GO
from tests.support.instance import Instance, new_instance, until
from tests.support.ports import free_port
from tests.support.serving import (
    HESITANT,
    IAIN,
    SAMPLE,
    Sections,
    Wire,
    add_accounts,
    begin_data,
    configure,
    deliver,
    hang_up,
    is_alive,
    is_free,
    new_server,
    reload,
    smtp,
    start,
    taken_port,
    workers,
)


def greeting(port: int) -> str:
    with Wire(port) as wire:
        return wire.reply()


def test_new_greeting_for_new_connections(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        with smtp(instance.smtp_port) as old:
            begin_data(old, IAIN)
            configure(instance, {"smtp": {"greeting": "changed"}})
            assert "event=server_reloaded" in reload(instance)
            assert greeting(instance.smtp_port) == "220 mx.example.com changed"
            old.send(SAMPLE + b".\r\n")
            assert old.reply().startswith("250 2.0.0 ok "), "the old session has its worker yet"
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert len(instance.messages(IAIN)) == 2


def test_old_workers_are_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    """Whoever sees that the server was reloaded meets nobody of before."""
    with new_server(tmp_path / "instance") as instance:
        (old,) = workers(instance, 1)
        configure(instance, {"smtp": {"greeting": "changed"}})
        os.kill(old, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            assert "event=server_reloaded" in reload(instance)
            assert time.monotonic() - begun >= LETTING_GO
            assert greeting(instance.smtp_port) == "220 mx.example.com changed"
        finally:
            os.kill(old, signal.SIGCONT)
        until(lambda: not is_alive(old), "the old worker has left")


def test_a_worker_that_is_just_restarted_is_waited_for_and_does_not_serve(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        assert instance.process is not None
        (first,) = workers(instance, 1)
        instance.process.send_signal(signal.SIGSTOP)
        os.kill(first, signal.SIGKILL)
        with open(instance.directory / "queue" / "0" / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # as soon as it is gone; its successor starts so long
            instance.process.send_signal(signal.SIGCONT)
            until(lambda: workers(instance, 1) != {first}, "it has a successor")
            (successor,) = workers(instance, 1)
            os.kill(successor, signal.SIGSTOP)
            begun = time.monotonic()
            assert "event=server_reloaded" in reload(instance)
            assert time.monotonic() - begun >= LETTING_GO
            os.kill(successor, signal.SIGCONT)
            until(lambda: not is_alive(successor), "it has left")
        assert "event=worker_failed" not in instance.log(), "it has not waited for its queue"


def test_figures_are_not_served_any_more_at_a_former_address(tmp_path: Path) -> None:
    former, latter = free_port(), free_port()
    figures: list[Sections] = [
        {"metrics": {"listen": [f"127.0.0.1:{port}"]}} for port in (former, latter)
    ]
    with (
        new_server(tmp_path / "instance", figures[0]) as instance,
        smtp(instance.smtp_port) as old,
    ):
        begin_data(old, IAIN)
        configure(instance, figures[1])
        assert "event=server_reloaded" in reload(instance)
        assert is_free(former), "though the former worker is there yet"
        assert not is_free(latter)
        old.send(SAMPLE + b".\r\n")
        assert old.reply().startswith("250 ")


def test_old_worker_leaves(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        (old,) = workers(instance, 1)
        with smtp(instance.smtp_port) as idle:
            reload(instance)
            assert idle.reply().startswith("421 ")
        until(lambda: not is_alive(old), "the old worker has left")
        assert workers(instance, 1) != {old}
        assert instance.stop() == 0


def test_old_worker_that_is_killed_has_not_left(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        (old,) = workers(instance, 1)
        with smtp(instance.smtp_port) as busy:
            begin_data(busy, IAIN)
            reload(instance)
            os.kill(old, signal.SIGKILL)
            ended = f"level=warning event=worker_ended slot=0 pid={old} status=-9"
            until(lambda: ended in instance.log(), "the log tells of it")
        assert "event=worker_left" not in instance.log()
        assert old not in workers(instance, 1)


def test_reload_while_none_but_an_old_worker_is_there(tmp_path: Path) -> None:
    """The queue that it has yet is not given to anybody else."""
    with new_server(tmp_path / "instance") as instance:
        (old,) = workers(instance, 1)
        with smtp(instance.smtp_port) as busy:
            begin_data(busy, IAIN)
            reload(instance)
            (fresh,) = workers(instance, 2) - {old}
            os.kill(fresh, signal.SIGKILL)
            until(lambda: f"pid={fresh} status=-9" in instance.log(), "it has ended")
            assert "event=server_reloaded" in reload(instance)
            assert deliver(instance.smtp_port, IAIN).startswith("250 ")
            busy.send(SAMPLE + b".\r\n")
            assert busy.reply().startswith("250 2.0.0 ok ")
        assert len(instance.messages(IAIN)) == 2


def test_listener_added_and_removed(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    both = [f"127.0.0.1:{first}", f"127.0.0.1:{second}"]
    with new_server(tmp_path / "instance", {"smtp": {"listen": both[:1]}}) as instance:
        configure(instance, {"smtp": {"listen": both}})
        reload(instance)
        assert greeting(first).startswith("220 ")
        assert greeting(second).startswith("220 ")
        configure(instance, {"smtp": {"listen": both[1:]}})
        reload(instance)
        until(lambda: is_free(first), "the removed listener is left")
        assert greeting(second).startswith("220 ")


def test_more_and_fewer_workers(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        for count in (2, 1):
            configure(instance, {"server": {"workers": count}})
            assert "event=server_reloaded" in reload(instance)
            workers(instance, count)
            for _ in range(20):
                assert greeting(instance.smtp_port).startswith("220 ")


def test_check_tells_settings_that_the_server_does_not_serve_by(tmp_path: Path) -> None:
    def told() -> list[str]:
        said = instance.here("check", check=False).stdout.splitlines()
        return [line[:29] for line in said if "reload" in line]

    with new_server(tmp_path / "instance") as instance:
        file = instance.directory / FILE_NAME
        assert told() == []
        before = file.read_text()
        file.write_text(f"{before}# a thought\n")
        assert told() == ["advice: restante.toml has cha"]
        assert "event=server_reloaded" in reload(instance)
        assert told() == []
        workers(instance, 1)
        file.write_text(f'{before}[tls]\ncertificate = "gone"\nkey = "gone"\n')
        assert "event=reload_refused" in reload(instance)
        file.write_text(before)
        assert told() == [f"advice: the reload of {time.strftime('%Y-%m', time.gmtime())}"]
        assert "event=server_reloaded" in reload(instance)
        assert told() == []
        file.write_text(f"{before}# another one\n")
        assert instance.stop() == 0
        assert told() == []
        instance.start()
        until(
            lambda: "settings.read" in os.listdir(instance.directory / "run"), "its mark is there"
        )
        file.write_text(before)
        assert told() == ["advice: restante.toml has cha"]
        instance.kill()
        until(lambda: told() == [], "its children have ended, too")


def test_wrong_file_changes_nothing(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {"smtp": {"greeting": "before"}}) as instance:
        (worker,) = workers(instance, 1)
        file = instance.directory / FILE_NAME
        for text, reason in (
            ("[smtp", "restante.toml"),
            ('[smtp]\ngreetin = "x"\n', "greetin: no such setting"),
            ("[server]\nworkers = 0\n", "workers"),
        ):
            file.write_text(text)
            refusal = reload(instance)
            assert "event=reload_refused" in refusal
            assert reason in refusal
        assert_unchanged(instance, {worker})
        assert instance.log().count("event=servant_started name=registrar") <= 1


def assert_unchanged(instance: Instance, pids: set[int]) -> None:
    """The same workers serve with the same settings, and every connection is served."""
    assert workers(instance, len(pids)) == pids
    for _ in range(20):
        assert greeting(instance.smtp_port) == "220 mx.example.com before"
    with Wire(instance.pop3_port) as reader:
        assert reader.line().startswith("+OK")


@pytest.mark.parametrize("delivery", ["|", "&nope nope"])
def test_default_delivery_that_is_none_changes_nothing(tmp_path: Path, delivery: str) -> None:
    """No worker could route by it, though it is well-formed as a setting."""
    with new_server(tmp_path / "instance", {"smtp": {"greeting": "before"}}) as instance:
        pids = workers(instance, 1)
        configure(instance, {"routing": {"defaultdelivery": delivery}})
        refusal = reload(instance)
        assert "event=reload_refused" in refusal
        assert "[routing] defaultdelivery: " in refusal
        assert_unchanged(instance, pids)


def test_user_that_does_not_exist_changes_nothing(tmp_path: Path) -> None:
    """Nor is a server started with it."""
    before: Sections = {"smtp": {"greeting": "before"}, "mail": {"user": "nobody"}}
    with new_server(tmp_path / "instance", before) as instance:
        pids = workers(instance, 1)
        configure(instance, {"mail": {"user": "restante-nobody-has-this-name"}})
        refusal = reload(instance)
        assert "event=reload_refused" in refusal
        told = "[mail] user: there is no user 'restante-nobody-has-this-name' on this system"
        assert f'"{told}"' in refusal
        assert_unchanged(instance, pids)
        instance.stop()
        refused = instance.run("serve", check=False)
        assert refused.returncode == os.EX_CONFIG
        assert refused.stderr == f"restante: {told}\n"


@pytest.mark.parametrize("workers_after", [1, 3])
def test_taken_port_changes_nothing(tmp_path: Path, workers_after: int) -> None:
    before: Sections = {"smtp": {"greeting": "before"}, "server": {"workers": 2}}
    with new_server(tmp_path / "instance", before) as instance, taken_port() as taken:
        pids = workers(instance, 2)
        after: Sections = {
            "smtp": {"greeting": "after"},
            "server": {"workers": workers_after},
            "pop3": {"listen": [f"127.0.0.1:{taken}"]},
        }
        configure(instance, after)
        refusal = reload(instance)
        assert "event=reload_refused" in refusal
        assert f"127.0.0.1:{taken}" in refusal
        assert_unchanged(instance, pids)
        assert instance.stop() == 0


@pytest.mark.parametrize("workers_after", [1, 3])
def test_worker_that_cannot_start_changes_nothing(tmp_path: Path, workers_after: int) -> None:
    """Listeners are as before, too: none is lost, none is held that nobody accepts from."""
    before: Sections = {"smtp": {"greeting": "before"}, "server": {"workers": 2}}
    with new_server(tmp_path / "instance", before) as instance:
        pids = workers(instance, 2)
        (instance.directory / "file").write_text("no certificate")
        added = free_port()
        after: Sections = {
            "smtp": {"greeting": "after", "listen": [f"127.0.0.1:{added}"]},
            "server": {"workers": workers_after},
            "tls": {"certificate": "file", "key": "file"},
        }
        configure(instance, after)
        refusal = reload(instance)
        assert "event=reload_refused" in refusal
        assert "did not start" in refusal
        assert is_free(added)
        assert_unchanged(instance, pids)
        configure(instance, {"smtp": {"greeting": "at last"}})
        assert "event=server_reloaded" in reload(instance)
        assert greeting(instance.smtp_port) == "220 mx.example.com at last"


def test_mail_that_waits_is_not_forgotten_for_another_queue(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {"smtp": {"greeting": "before"}}) as instance:
        pids = workers(instance, 1)
        configure(instance, {"queue": {"root": "elsewhere"}})
        assert "queue.root changes when the server is started, not by SIGHUP" in reload(instance)
        assert_unchanged(instance, pids)
        assert not (instance.directory / "elsewhere").exists()
        configure(instance, {"queue": {"root": "./queue"}})
        assert "event=server_reloaded" in reload(instance)


def test_moved_log_is_made_anew(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        moved = instance.directory / "restante.log.1"
        instance.log_file.rename(moved)
        deliver(instance.smtp_port, IAIN)
        assert "event=message_accepted" in moved.read_text()
        assert not instance.log_file.exists()
        reload(instance)
        deliver(instance.smtp_port, IAIN)
        until(lambda: "event=message_accepted" in instance.log(), "the new log has the new lines")


@pytest.mark.parametrize("listen", [["nowhere"], ["192.0.2.1:110"]])
def test_moved_log_is_made_anew_by_a_reload_that_is_refused(
    tmp_path: Path, listen: list[str]
) -> None:
    """All leave the moved one, and the former settings count: be the new ones wrong as they are
    read, or later."""
    with new_server(tmp_path / "instance", {"smtp": {"greeting": "before"}}) as instance:
        former = workers(instance, 1)
        moved = instance.directory / "restante.log.1"
        instance.log_file.rename(moved)
        configure(instance, {"pop3": {"listen": listen}})
        hang_up(instance)
        until(lambda: "event=reload_refused" in instance.log(), "refused, in the new log")
        until(lambda: not any(map(is_alive, former)), "the old worker has left")
        assert_unchanged(instance, workers(instance, 1))
        kept = moved.read_text()
        deliver(instance.smtp_port, IAIN)
        until(lambda: "event=message_accepted" in instance.log(), "the new log has the new lines")
        assert moved.read_text() == kept


def test_unwritable_log_is_refused(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {"smtp": {"greeting": "before"}}) as instance:
        pids = workers(instance, 1)
        instance.log_file.rename(instance.directory / "restante.log.1")
        instance.log_file.mkdir()
        old = instance.directory / "restante.log.1"
        hang_up(instance)
        until(lambda: "event=reload_refused" in old.read_text(), "refused, in the old log")
        instance.log_file.rmdir()
        old.rename(instance.log_file)
        assert_unchanged(instance, pids)


FAULTY = """
import sys
from restante.cli import main
from restante.service.supervisor import Supervisor

await_ready = Supervisor._await_ready

def fail(supervisor, starting):
    await_ready(supervisor, starting)
    if supervisor._workers:
        raise RuntimeError("a bug")

Supervisor._await_ready = fail
del sys.argv[1:-3]
main()
"""
"""The command ``--dir DIR serve``, whose supervisor has a bug in the way of a reload."""


def test_a_bug_is_the_end_of_a_reload_alone(tmp_path: Path) -> None:
    with new_instance(tmp_path / "instance", domains=()) as instance:
        add_accounts(instance)
        instance.within = [sys.executable, "-c", FAULTY]
        figures = {"listen": [f"127.0.0.1:{free_port()}"]}
        configure(instance, {"smtp": {"greeting": "before"}, "metrics": figures})
        start(instance)
        pids = workers(instance, 1)
        gauges = sorted((instance.directory / "run" / "metrics").glob("gauge_*"))
        assert "event=reload_refused" in reload(instance)
        assert sorted((instance.directory / "run" / "metrics").glob("gauge_*")) == gauges
        told = instance.log()
        assert 'event=unplanned where="a reload" error="RuntimeError: a bug"' in told
        assert_unchanged(instance, pids)


def test_a_stop_ends_a_reload(tmp_path: Path) -> None:
    """Workers that serve are told at once, though the ones that start do not listen."""
    with new_instance(tmp_path / "instance", domains=()) as instance:
        instance.within = [sys.executable, "-c", HESITANT]
        configure(instance, {})
        start(instance)
        (old,) = workers(instance, 1)
        hesitating = instance.directory / "wait"
        hesitating.touch()
        hang_up(instance)
        (fresh,) = workers(instance, 2) - {old}
        until((instance.directory / "waits").exists, "the new one does not listen")
        assert instance.process is not None
        instance.process.send_signal(signal.SIGTERM)
        until(lambda: not is_alive(old), "the old worker has left")
        assert is_alive(fresh)
        hesitating.unlink()
        assert instance.ended() == 0
        assert "event=reload_refused" not in instance.log()


def test_a_stop_ends_the_refusal_of_a_reload(tmp_path: Path) -> None:
    """Workers that serve are told at once, though one of those that were to follow does not end."""
    with new_instance(tmp_path / "instance", domains=()) as instance:
        instance.within = [sys.executable, "-c", HESITANT]
        configure(instance, {})
        start(instance)
        (old,) = workers(instance, 1)
        for name in ("wait", "fail"):
            (instance.directory / name).touch()
        configure(instance, {"server": {"workers": 2}})
        hang_up(instance)
        until((instance.directory / "waits").exists, "one of the new ones does not listen")
        until(lambda: instance.log().count("event=worker_started") == 3, "the other has begun")
        assert instance.process is not None
        (fresh,) = workers(instance, 2) - {old}
        instance.process.send_signal(signal.SIGTERM)
        until(lambda: not is_alive(old), "the old worker has left")
        assert is_alive(fresh)
        (instance.directory / "wait").unlink()
        assert instance.ended() == 0


def test_reloads_under_load_lose_nothing(tmp_path: Path) -> None:
    """Nobody is refused a connection, and what is acknowledged meanwhile is there, once."""
    with new_server(tmp_path / "instance", {"server": {"workers": 2}}) as instance:
        acknowledged = 0
        for count in (1, 3, 2):
            configure(instance, {"server": {"workers": count}})
            seen = len(instance.log())
            hang_up(instance)
            while "event=server_reloaded" not in instance.log()[seen:]:
                acknowledged += is_acknowledged(instance.smtp_port)
            for _ in range(10):
                acknowledged += is_acknowledged(instance.smtp_port)
        assert acknowledged >= 10
        assert len(instance.messages(IAIN)) == acknowledged
        until(lambda: instance.log().count("event=worker_left") == 6, "old workers have left")
        workers(instance, 2)
        assert instance.stop() == 0
        assert "event=unplanned" not in instance.log()
        assert "event=worker_ended" not in instance.log()


def is_acknowledged(port: int) -> bool:
    """Send a message; a worker that is told to leave meanwhile may turn its session away."""
    wire = Wire(port)
    with wire, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        wire.send(
            b"EHLO client.example\r\nMAIL FROM:<me@example.net>\r\n"
            + f"RCPT TO:<{IAIN}>\r\nDATA\r\n".encode()
        )
        replies = [wire.reply()[:3] for _ in range(5)]
        if replies == ["220", "250", "250", "250", "354"]:
            wire.send(SAMPLE + b".\r\n")
            return wire.reply().startswith("250 ")
        assert "421" in replies or "" in replies, replies
    return False

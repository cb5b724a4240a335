"""Processes that die, servers that cannot start, and queues whose workers are gone."""

from __future__ import annotations

import os
import signal
import sqlite3
import urllib.request
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from tests.support.dropping import sendmail
from tests.support.instance import PATIENCE, Instance, until
from tests.support.ports import free_port
from tests.support.serving import (
    IAIN,
    NOBODY,
    SAMPLE,
    Sections,
    Wire,
    begin_data,
    children,
    configure,
    deliver,
    is_alive,
    is_free,
    maildir,
    make_home,
    new_server,
    one_place_each,
    reload,
    smtp,
    start,
    taken_port,
    workers,
)

MANY = 40
"""Messages, or workers that try to start: enough for all that may happen among them."""


@pytest.mark.parametrize("count", [1, 2])
def test_killed_worker_is_replaced(tmp_path: Path, count: int) -> None:
    """Who connects meanwhile waits a moment, and is served."""
    with new_server(tmp_path / "instance", {"server": {"workers": count}}) as instance:
        reload(instance)  # when it is done, all workers serve
        before = workers(instance, count)
        victim = min(before)
        with smtp(instance.smtp_port):
            os.kill(victim, signal.SIGKILL)
            until(lambda: not is_alive(victim), "it is gone, with the sessions it had")
            for _ in range(5):
                assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        until(lambda: len(workers(instance, count) - before) == 1, "a successor")
        assert f" pid={victim} status=-9\n" in instance.log()
        assert len(instance.messages(IAIN)) == 5
        assert instance.stop() == os.EX_OK


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    """kill -9 for the supervisor alone: messages in progress are finished, ports are left."""
    with new_server(tmp_path / "instance", {"server": {"workers": 2}}) as instance:
        pids = workers(instance, 2)
        with smtp(instance.smtp_port) as idle, smtp(instance.smtp_port) as busy:
            begin_data(busy, IAIN)
            kill_supervisor(instance)
            assert idle.reply().startswith("421 ")
            busy.send(SAMPLE + b".\r\n")
            assert busy.reply().startswith("250 2.0.0 ok ")
        until(lambda: not any(map(is_alive, pids)), "the workers have ended")
        assert is_free(instance.smtp_port)
        assert is_free(instance.pop3_port)
        assert len(list((maildir(instance, IAIN) / "new").iterdir())) == 1


def test_server_starts_again_after_its_supervisor_was_killed(tmp_path: Path) -> None:
    port = free_port()
    sections: Sections = {"smtp": {"listen": [f"127.0.0.1:{port}"]}, "server": {"workers": 2}}
    with new_server(tmp_path / "instance", sections) as instance:
        kill_supervisor(instance)
        start(instance)
        assert deliver(port, IAIN).startswith("250 ")
        assert instance.stop() == os.EX_OK


def kill_supervisor(instance: Instance) -> None:
    assert instance.process is not None
    instance.process.kill()
    instance.process.wait(PATIENCE)
    instance.process = None


# Queues


def test_queue_of_a_worker_that_is_gone_is_adopted(tmp_path: Path) -> None:
    """Two workers with mail that waits; then one worker, which delivers all of it, once."""
    with new_server(tmp_path / "instance", {"server": {"workers": 2}}) as instance:
        blocked = make_home(instance, IAIN) / "Maildir"
        blocked.write_text("no directory")
        for _ in range(MANY // 2):
            assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        with one_place_each(instance, 2), smtp(instance.smtp_port):
            for _ in range(MANY - MANY // 2):
                assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        instance.stop()
        waiting = [hurry(instance, slot) for slot in (0, 1)]
        assert sum(waiting) == MANY
        assert all(waiting), "each worker got some"
        blocked.unlink()
        configure(instance, {"server": {"workers": 1}})
        start(instance)
        until(lambda: count_files(blocked) >= MANY, "all mail is delivered")
        assert instance.stop() == os.EX_OK
        assert len(list(blocked.glob("new/*"))) == MANY
        assert "event=unplanned" not in instance.log()


def count_files(folder: Path) -> int:
    return len(list(folder.glob("new/*")))


def hurry(instance: Instance, slot: int) -> int:
    """Make all mail in the queue of a stopped worker due; how many messages it is."""
    file = instance.directory / "queue" / str(slot) / "queue.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE recipient SET next_attempt = 0")
        database.execute("UPDATE lane SET next_attempt = 0")
        database.commit()
        (messages,) = database.execute("SELECT count(*) FROM message").fetchone()
    return int(messages)


def test_what_was_claimed_for_a_worker_that_picks_nothing_up_is_delivered(tmp_path: Path) -> None:
    """The last server was killed while the owner of queue 1 was the one that does."""
    with new_server(tmp_path / "instance", {"server": {"workers": 2}}) as instance:
        instance.stop()
        assert sendmail(instance.directory, IAIN, stdin=b"dropped\n").returncode == 0
        drop = instance.directory / "drop"
        claimed = drop / "claimed" / "1"
        claimed.mkdir()
        if os.geteuid() == 0:
            os.chown(claimed, NOBODY, NOBODY)
        (letter,) = (drop / "incoming").glob("m*")
        letter.rename(claimed / letter.name)
        claimed.chmod(0o000)
        start(instance)
        until(lambda: "event=drop_failed" in instance.log(), "it cannot be looked through")
        claimed.chmod(0o700)
        until(lambda: len(instance.messages(IAIN)) == 1, "it is given back, and picked up")
        assert not claimed.exists()
        assert instance.stop() == os.EX_OK
        assert instance.log().count("event=drop_failed") == 1


# Servers that cannot start


def processes_of(directory: Path) -> dict[int, str]:
    """The command lines of all processes that name the directory, by their ids."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(directory) in line:
            found[int(file.parent.name)] = line.decode("utf-8", "replace")
    return found


def refused_start(instance: Instance) -> str:
    """``serve`` that cannot: what it says; it must end by itself, with nothing left running."""
    done = instance.run("serve", check=False)
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_default_delivery_that_is_none(tmp_path: Path) -> None:
    """Well-formed as a setting, but every SMTP session would end at it."""
    with new_server(tmp_path / "instance") as instance:
        instance.stop()
        configure(instance, {"routing": {"defaultdelivery": "# to a program\n|"}})
        done = instance.run("serve", check=False)
        assert done.returncode == os.EX_CONFIG
        assert "[routing] defaultdelivery: an instruction has | and no command" in done.stderr
        assert processes_of(instance.directory) == {}


@pytest.mark.parametrize("service", ["smtp", "metrics"])
def test_taken_port(tmp_path: Path, service: str) -> None:
    with new_server(tmp_path / "instance") as instance, taken_port() as taken:
        instance.stop()
        configure(instance, {service: {"listen": [f"127.0.0.1:{taken}"]}})
        said = refused_start(instance)
        assert f"cannot listen on 127.0.0.1:{taken} for {service}" in said
        assert "already in use" in said
        assert processes_of(instance.directory) == {}


def test_second_server_of_an_instance(tmp_path: Path) -> None:
    """It could have ports of its own, but not the queues; the first one goes on undisturbed."""
    large = b"Subject: large\r\n\r\n" + (b"x" * 98 + b"\r\n") * 10_000
    with new_server(tmp_path / "instance", {"smtp": {"spool_threshold": 0}}) as instance:
        with smtp(instance.smtp_port) as busy:
            begin_data(busy, IAIN)
            busy.send(large)
            until(lambda: spooled(instance) >= len(large) // 2, "the message is spooled")
            assert "another process has the queue" in refused_start(instance)
            busy.send(b".\r\n")
            assert busy.reply().startswith("250 2.0.0 ok ")
        (message,) = instance.messages(IAIN)
        assert message.count(b"x" * 98) == 10_000
        assert instance.process is not None
        own = {instance.process.pid, *children(instance)}
        assert set(processes_of(instance.directory)) <= own


@pytest.mark.parametrize("lines", [1, 10_000])
def test_a_spool_that_cannot_be_written_is_an_error_of_this_host(
    tmp_path: Path, lines: int
) -> None:
    with new_server(tmp_path / "instance", {"smtp": {"spool_threshold": 0}}) as instance:
        (spool,) = instance.directory.glob("queue/spool/*")
        spool.rmdir()
        spool.touch()
        content = b"Subject: x\r\n\r\n" + (b"x" * 98 + b"\r\n") * lines
        assert deliver(instance.smtp_port, IAIN, content).startswith("452 4.3.1 no room")
        (told,) = [line for line in instance.log().splitlines() if "event=message_not_kept" in line]
        assert "level=error" in told
        assert f"{spool}: the spool cannot be written" in told
        spool.unlink()
        assert deliver(instance.smtp_port, IAIN, content).startswith("250 ")


def spooled(instance: Instance) -> int:
    """Octets of messages that are being received."""
    return sum(file.stat().st_size for file in instance.directory.glob("queue/spool/*/*"))


def test_second_server_at_the_same_ports(tmp_path: Path) -> None:
    """The figures of the first one stay, too."""
    metrics = free_port()
    with new_server(
        tmp_path / "instance", {"metrics": {"listen": [f"127.0.0.1:{metrics}"]}}
    ) as instance:
        deliver(instance.smtp_port, IAIN)
        assert "cannot listen on" in refused_start(instance)
        assert scraped(metrics, "restante_messages_accepted_total") == 1


def test_figures_outlive_workers_in_files_that_do_not_grow_in_number(tmp_path: Path) -> None:
    port = free_port()
    with new_server(
        tmp_path / "instance", {"metrics": {"listen": [f"127.0.0.1:{port}"]}}
    ) as instance:
        for change in (kill, reload, reload):
            deliver(instance.smtp_port, IAIN)
            (former,) = workers(instance, 1)
            change(instance)
            until(partial(is_replaced, instance, former), "its queue is another one's")
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert scraped(port, "restante_messages_accepted_total") == 4
        files = [path.name for path in (instance.directory / "run" / "metrics").iterdir()]
        assert sum(name.startswith("gauge_") for name in files) == 2, "of the one that runs"
        assert sum(name.startswith("counter_") for name in files) == 2


def is_replaced(instance: Instance, former: int) -> bool:
    queues = list((instance.directory / "queue").glob("[0-9]*"))
    return not is_alive(former) and len(queues) == 1


def kill(instance: Instance) -> None:
    """The end of its only worker."""
    os.kill(min(workers(instance, 1)), signal.SIGKILL)


def scraped(port: int, name: str) -> float:
    """The sum of a figure over its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(name))


def test_queue_that_cannot_be_opened(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance:
        instance.stop()
        (instance.directory / "file").write_text("no directory")
        configure(instance, {"queue": {"root": "file"}, "server": {"workers": 2}})
        assert "Not a directory" in refused_start(instance)
        assert processes_of(instance.directory) == {}


def test_connections_are_spread_over_workers(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {"server": {"workers": 2}}) as instance:
        workers(instance, 2)
        with ExitStack() as stack:
            for _ in range(MANY):
                wire = stack.enter_context(Wire(instance.smtp_port))
                assert wire.reply().startswith("220 ")
        slots = {line.split("session=")[1].split("-")[1] for line in opened(instance)}
        assert slots == {"0", "1"}


def test_nobody_waits_for_a_worker_that_hangs(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance", {"server": {"workers": 2}}) as instance:
        reload(instance)  # when it is done, all workers serve
        hanging = min(workers(instance, 2))
        os.kill(hanging, signal.SIGSTOP)
        try:
            for _ in range(10):
                assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        finally:
            os.kill(hanging, signal.SIGCONT)
        assert instance.stop() == os.EX_OK


def opened(instance: Instance) -> list[str]:
    return [line for line in instance.log().splitlines() if "event=session_opened" in line]

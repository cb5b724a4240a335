"""Workers that die, and reloads that fail or take something away, on a real server."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance, until
from tests.support.serving import one_place_each, smtp

CONNECTIONS = 24
"""So many that each of two workers gets some of them, if they are there together."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    environ = {
        "RESTANTE_SERVER__DRAIN_TIMEOUT": "1",
        "RESTANTE_RECEIVER__RELAY_NETWORKS": '["127.0.0.0/8"]',
    }
    with new_instance(tmp_path / "instance", environ=environ) as made:
        change(made, "server", "workers = 2")
        made.start()
        until(lambda: made.log().count("event=queue_opened") == 2, "two workers")
        yield made


def change(instance: Instance, section: str, line: str) -> None:
    """Put ``line`` into a section of restante.toml, in place of what is set there."""
    toml = instance.directory / "restante.toml"
    name = line.partition(" ")[0]
    head, heading, rest = toml.read_text().partition(f"[{section}]\n")
    this, following, others = rest.partition("\n[")
    this = re.sub(rf"(?m)^{name} = .*\n", "", this)
    toml.write_text(f"{head}{heading}{line}\n{this}{following}{others}")


def reload(instance: Instance, outcome: str) -> None:
    """SIGHUP, and wait until the server has said what came of it."""
    assert instance.process is not None
    seen = len(instance.log())
    instance.process.send_signal(signal.SIGHUP)
    until(lambda: f"event={outcome}" in instance.log()[seen:], outcome)


def pids(instance: Instance) -> list[int]:
    """Of all workers there ever were."""
    started = re.findall(r"event=worker_started slot=\d+ pid=(\d+)", instance.log())
    return [int(pid) for pid in started]


def all_greet(port: int) -> None:
    with contextlib.ExitStack() as together:
        for _ in range(CONNECTIONS):
            peer = socket.create_connection(("127.0.0.1", port), timeout=10)
            assert together.enter_context(peer).recv(100).startswith(b"220 ")


def wait_for_mail(instance: Instance) -> None:
    """Messages for elsewhere, in every worker's queue."""
    send(instance)
    with one_place_each(instance, 2), smtp(instance.smtp_port):
        send(instance)


def send(instance: Instance) -> None:
    for _ in range(CONNECTIONS // 2):
        with instance.smtp() as session:
            session.sendmail("ann@example.com", ["bob@elsewhere.example"], b"Subject: x\r\n\r\n")


def test_a_worker_that_died_with_mail_in_its_queue_serves_again(instance: Instance) -> None:
    wait_for_mail(instance)
    seen = len(instance.log())
    os.kill(pids(instance)[1], signal.SIGKILL)
    until(lambda: "event=queue_opened" in instance.log()[seen:], "the successor has the queue")
    all_greet(instance.smtp_port)
    assert "worker_failed" not in instance.log()


def test_a_reload_after_a_restart_gets_queues_of_its_own(instance: Instance) -> None:
    reload(instance, "server_reloaded")
    wait_for_mail(instance)
    instance.stop()
    instance.start()
    all_greet(instance.smtp_port)
    reload(instance, "server_reloaded")
    all_greet(instance.smtp_port)


def test_an_address_that_is_listened_on_no_more_refuses_connections(instance: Instance) -> None:
    change(instance, "pop3", "listen = []")
    reload(instance, "server_reloaded")
    all_greet(instance.smtp_port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", instance.pop3_port), timeout=10)


def test_a_reload_with_fewer_workers_that_fails_leaves_no_deaf_socket(instance: Instance) -> None:
    change(instance, "server", "workers = 1")
    change(instance, "queue", 'root = "restante.toml"')
    reload(instance, "reload_refused")
    all_greet(instance.smtp_port)


def spooled(instance: Instance) -> list[str]:
    """Directories of queues that have served their time may go meanwhile, which Path.glob minds."""
    return glob.glob("queue/spool/*/spool-*", root_dir=instance.directory)


def test_what_a_killed_worker_was_receiving_is_removed(instance: Instance) -> None:
    reload(instance, "server_reloaded")  # so that no worker gets the same queue again
    with contextlib.closing(instance.smtp()) as session:
        session.ehlo()
        session.mail("ann@example.com")
        session.rcpt("bob@elsewhere.example")
        assert session.docmd("DATA")[0] == 354
        session.send(b"Subject: half\r\n\r\n" + 40_000 * b"It goes on and on and on.\r\n")
        until(lambda: spooled(instance), "it is spooled")
        instance.kill()
    instance.start()
    until(lambda: not spooled(instance), "the spool is clean")

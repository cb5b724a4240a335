"""Two servers over one mail root and one directory of accounts, as two machines are."""

from __future__ import annotations

import contextlib
import os
import poplib
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance, until
from tests.support.serving import ANN, IAIN, deliver, is_alive, workers

MANY = 40
"""Messages that each of two servers delivers while the other one does."""


@contextlib.contextmanager
def two_servers(tmp_path: Path, *, other_name: str) -> Iterator[tuple[Instance, Instance]]:
    """The second one calls itself ``other_name``; the first mx.example.com."""
    with new_instance(tmp_path / "one") as one:
        shared = {
            "RESTANTE_DATABASE__URL": f"sqlite:///{one.directory / 'restante.db'}",
            "RESTANTE_MAIL__ROOT": str(one.directory / "mail"),
            "RESTANTE_SERVER__ME": other_name,
        }
        with new_instance(tmp_path / "two", environ=shared, domains=()) as two:
            for address in (IAIN, ANN):
                one.add_mailbox(address)
            one.start()
            two.start()
            yield one, two


def test_a_maildrop_is_open_on_one_of_them(tmp_path: Path) -> None:
    """Whoever comes second is told so, and gets in when the first server is killed."""
    with two_servers(tmp_path, other_name="mx2.example.com") as (one, two):
        assert deliver(one.smtp_port, IAIN).startswith("250 ")
        with closing(one.pop3(IAIN)) as first:
            assert first.stat()[0] == 1
            with pytest.raises(poplib.error_proto, match=r"-ERR \[IN-USE\]"):
                two.pop3(IAIN)
            pids = workers(one, 1)
            one.kill()
            until(lambda: not any(map(is_alive, pids)), "the worker has ended")
            assert len(two.messages(IAIN)) == 1


def test_both_deliver_at_once_under_the_same_name(tmp_path: Path) -> None:
    with two_servers(tmp_path, other_name="mx.example.com") as (one, two):

        def send(port: int) -> set[str]:
            return {deliver(port, IAIN)[:4] for _ in range(MANY)}

        with ThreadPoolExecutor(4) as clients:
            ports = [one.smtp_port, two.smtp_port] * 2
            assert set().union(*clients.map(send, ports)) == {"250 "}
        assert len(one.messages(IAIN)) == len(two.messages(IAIN)) == 4 * MANY


def test_a_dead_machine_s_queue_is_taken_over(tmp_path: Path) -> None:
    """As docs/cluster.md says. What it had delivered, and had not written down, is found."""
    with two_servers(tmp_path, other_name="mx2.example.com") as (one, two):
        assert deliver(one.smtp_port, ANN).startswith("250 ")
        block = home_beside(one, "ann", "iain") / "Maildir"
        block.write_text("no directory")
        with one.smtp() as client:
            client.sendmail("me@example.net", [ANN, IAIN], "Subject: late\r\n\r\nhello\r\n")
        until(lambda: len(one.messages(ANN)) == 2, "Ann has hers")
        until(lambda: "event=deferred" in one.log(), "his waits")
        one.kill()
        block.unlink()
        queues = two.directory / "queue"
        forget_deliveries(one.directory / "queue" / "0")
        run("cp", "-a", f"{one.directory}/queue/0", f"{queues}/coming")
        run("mv", f"{queues}/coming", f"{queues}/1000")
        two.run("queue", "retry", "--all")
        until(lambda: not (queues / "1000").exists(), "it is empty, and removed")
        assert len(two.messages(IAIN)) == 1
        assert len(two.messages(ANN)) == 2


def home_beside(instance: Instance, name: str, other: str) -> Path:
    """The home of the other account, made as the first one's is."""
    there = instance.directory / "mail" / "example.com" / name
    home = there.with_name(other)
    home.mkdir(mode=0o700)
    os.chown(home, there.stat().st_uid, there.stat().st_gid)
    return home


def forget_deliveries(queue: Path) -> None:
    """As if it had died between a delivery and its record."""
    with closing(sqlite3.connect(queue / "queue.db")) as database:
        database.execute("UPDATE recipient SET state = 'waiting'")
        database.commit()


def run(*command: str) -> None:
    subprocess.run(command, check=True)

"""Two servers over one mail root and one directory of accounts, as two machines are."""

from __future__ import annotations

import contextlib
import os
import poplib
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.dropping import sendmail
from tests.support.instance import Instance, new_instance, until
from tests.support.serving import ANN, IAIN, deliver, is_alive, one_place_each, workers

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
MANY = 40
"""Messages that each of two servers delivers while the other one does."""


@contextlib.contextmanager
def two_servers(
    tmp_path: Path, *, other_name: str, processes: int = 1
) -> Iterator[tuple[Instance, Instance]]:
    """The second one calls itself ``other_name``; the first, of so many workers, mx.example.com."""
    environ = {"RESTANTE_SERVER__WORKERS": str(processes)}
    with new_instance(tmp_path / "one", environ=environ) as one:
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


def test_a_dead_machine_s_queues_are_taken_over(tmp_path: Path) -> None:
    """By the commands of docs/cluster.md: of two queues, only one had picked anything up.

    What they had delivered, and had not written down, is found.
    """
    with two_servers(tmp_path, other_name="mx2.example.com", processes=2) as (one, two):
        assert deliver(one.smtp_port, ANN).startswith("250 ")
        block = home_beside(one, "ann", "iain") / "Maildir"
        block.write_text("no directory")
        with one_place_each(one, 2), one.smtp() as first, one.smtp() as second:
            for client in (first, second):
                client.sendmail("me@example.net", [ANN, IAIN], "Subject: late\r\n\r\nhello\r\n")
        until(lambda: len(one.messages(ANN)) == 3, "Ann has hers")
        until(lambda: one.log().count("event=deferred") == 2, "his wait")
        one.kill()
        block.unlink()
        drop_as_it_dies(one)
        for queue in ("0", "1"):
            forget_deliveries(one.directory / "queue" / queue)
        queue_0, _, dropped = blocks("The queue of a machine that does not come back")
        taken = queue_0.replace("now=1000", "now=0").replace("/srv/mail", str(two.directory))
        refused = subprocess.run(["sh", "-c", taken], capture_output=True, check=False)
        assert (refused.returncode, refused.stdout) == (1, b"0 is in use\n")
        queue_1 = queue_0.replace("was=0 now=1000", "was=1 now=1001")
        for commands in (queue_0, queue_1, dropped):
            here = commands.replace("/mnt/srv/mail", str(one.directory))
            run("sh", "-ec", here.replace("/srv/mail", str(two.directory)))
        two.run("queue", "retry", "--all")
        queues = two.directory / "queue"
        until(lambda: not {"1000", "1001"} & set(os.listdir(queues)), "they are empty, and removed")
        until(lambda: len(two.messages(IAIN)) == 4, "two of each queue, two that were dropped")
        assert len(two.messages(ANN)) == 3


def drop_as_it_dies(instance: Instance) -> None:
    """Two messages of programs: one that the first worker has claimed, one that nobody has."""
    drop = instance.directory / "drop"
    assert [each.name for each in (drop / "claimed").iterdir()] == ["0"]
    sendmail(instance.directory, IAIN, stdin=b"Subject: claimed\n\n").check_returncode()
    (message,) = (drop / "incoming").iterdir()
    message.rename(drop / "claimed" / "0" / message.name)
    sendmail(instance.directory, IAIN, stdin=b"Subject: dropped\n\n").check_returncode()


def blocks(heading: str) -> list[str]:
    """The commands of a section of docs/cluster.md, each block in one."""
    section = PAGE.partition(f"\n### {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"(?m)(?:^ {4}.*\n)+", section)


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

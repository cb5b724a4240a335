"""Three machines, a Galera cluster and one file system: nobody's mail is lost, or there twice."""

from __future__ import annotations

import os
import poplib
import random
import smtplib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import PASSWORD, POP3, SMTP, USERS, Cluster, Node, cluster
from tests.support.cluster_load import Load, complaints_about_mail
from tests.support.instance import PATIENCE, until
from tests.support.owner import only_root

pytestmark = pytest.mark.mariadb

ENOUGH = 12
"""Messages, and sessions, of a machine after which it counts as at work."""


def is_at_work(load: Load, node: Node) -> Callable[[], bool]:
    """Whether, from now on, it has taken some mail and served some sessions."""
    number = node.machine.number
    taken, served = load.taken[number] + ENOUGH, load.served[number] + ENOUGH
    return lambda: load.taken[number] >= taken and load.served[number] >= served


def all_work(load: Load, *nodes: Node) -> None:
    """Wait until all of these have done something."""
    waiting = [(node, is_at_work(load, node)) for node in nodes]
    for node, has_worked in waiting:
        until(has_worked, f"{node.machine.front} works; clients heard {load.temporary}")


def kill_and_bring_back(load: Load, victim: Node, others: list[Node]) -> None:
    victim.kill()
    all_work(load, *others)
    victim.start()
    all_work(load, victim, *others)


def cut_off_and_mend(site: Cluster, load: Load, victim: Node, others: list[Node]) -> None:
    site.network.cut_off(victim.machine)
    until(lambda: not victim.database.is_primary(), "it knows that it is alone")
    all_work(load, *others)
    site.network.at_the_hub(lambda: hears_of_trouble_only(victim)).result(PATIENCE)
    site.network.mend(victim.machine)
    until(victim.database.is_synced, "it is one of the cluster again")
    all_work(load, victim, *others)


def hears_of_trouble_only(node: Node) -> None:
    """Where the database knows nothing, nobody is told that an address does not exist."""
    with smtplib.SMTP(node.machine.front, SMTP, timeout=PATIENCE) as client:
        client.ehlo()
        client.mail("sender@example.net")
        for recipient in (USERS[0], "nobody@example.com", "far@elsewhere.test"):
            code, text = client.rcpt(recipient)
            assert (code, text[:6]) == (451, b"4.3.0 "), recipient
    session = poplib.POP3(node.machine.front, POP3, timeout=PATIENCE)
    session.user(USERS[0])
    with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/TEMP\]"):
        session.pass_(PASSWORD)
    session.close()
    explained = node.command("explain", USERS[0])
    assert explained.returncode == os.EX_TEMPFAIL, explained.stdout + explained.stderr


def nothing_is_amiss(site: Cluster, load: Load) -> None:
    for node in site.nodes:
        until(node.has_settled, f"the queue of {node.machine.front} is done")
    assert load.complaints == []
    assert complaints_about_mail(site, load) == []
    for node in site.nodes:
        log = node.instance.log()
        assert "event=unplanned" not in log
        assert "event=bounced" not in log


def rounds(site: Cluster, count: int, seed: int, *, pace: float) -> None:
    """Under load: one is killed and brought back, another cut off and brought back."""
    chance = random.Random(seed)
    with Load(site, seed, pace=pace) as load:
        all_work(load, *site.nodes)
        for _ in range(count):
            nodes = list(site.nodes)
            chance.shuffle(nodes)
            kill_and_bring_back(load, nodes[0], nodes[1:])
            cut_off_and_mend(site, load, nodes[1], [nodes[0], nodes[2]])
    nothing_is_amiss(site, load)


@only_root
def test_machines_are_killed_cut_off_and_brought_back(tmp_path: Path) -> None:
    with cluster(tmp_path) as site:
        rounds(site, 1, seed=1, pace=0.2)


@only_root
@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 5))
def test_machines_are_killed_and_cut_off_many_times(tmp_path: Path, seed: int) -> None:
    with cluster(tmp_path) as site:
        rounds(site, 10, seed, pace=0.02)

"""What root's supervisor does for workers; with real uids, so for root alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.support.household import PASSWORD, household
from tests.support.instance import new_instance, until
from tests.support.owner import only_root
from tests.support.serving import configure, deliver, start, workers

FAULTY = """
import os, sys
from restante.cli import main
from restante.mounts import FarPlaces

supervisor = os.getpid()
done = []

def of(places, path):
    if os.getpid() == supervisor and path.endswith("/ann") and not done:
        done.append(path)
        raise RuntimeError("a bug")
    return ""

FarPlaces.of = of
del sys.argv[1:-3]
main()
"""
"""The command ``--dir DIR serve``, whose supervisor has a bug in the way of Ann's first request."""

WITHOUT_SOCKETS = """
import sys
from restante.cli import main
from restante.errors import OperatorError
from restante.service.steward import Steward

real, calls = Steward.open_office, []

def open_office(steward, slot, settings):
    calls.append(slot)
    if 1 < len(calls) < 4:
        raise OperatorError("no sockets can be had: Too many open files")
    return real(steward, slot, settings)

Steward.open_office = open_office
del sys.argv[1:-3]
main()
"""
"""As above; the first worker's successor cannot be given what it needs at once."""


def _least(descriptors: Path) -> int:
    """How many are open when nothing is under way: the least of what is seen in a second."""
    seen = []
    for _ in range(20):
        seen.append(len(list(descriptors.iterdir())))
        time.sleep(0.05)
    return min(seen)


@only_root
def test_a_bug_is_the_end_of_one_request(tmp_path: Path) -> None:
    with new_instance(tmp_path / "instance", domains=()) as instance:
        home = instance.directory / "ann"
        instance.within = [sys.executable, "-c", FAULTY]
        with household(instance, {"mail": {"user": "nobody"}}):
            home.mkdir()
            os.chown(home, 54321, 54321)
            with closing(sqlite3.connect(instance.directory / "restante.db")) as database:
                row = ("ann@example.com", 54321, 54321, str(home), PASSWORD)
                database.execute("INSERT INTO mailbox VALUES (?, ?, ?, ?, ?, 'Password')", row)
                database.execute("INSERT INTO virtual VALUES (?, 'ann', 'example.com')", row[:1])
                database.commit()
            for _ in range(2):  # the first one waits for another attempt
                assert deliver(instance.smtp_port, "ann@example.com").startswith("250 ")
            instance.run("queue", "retry", "--all")
            until(lambda: len(list(home.glob("Maildir/new/*"))) == 2, "both are there")
        log = instance.log()
    (told,) = [line for line in log.splitlines() if "event=unplanned" in line]
    assert "an errand" in told
    assert "a bug" in told


@only_root
def test_a_worker_that_cannot_be_started_leaves_nothing_open(tmp_path: Path) -> None:
    with new_instance(tmp_path / "instance") as instance:
        configure(instance, {"server": {"workers": 1}})
        instance.within = [sys.executable, "-c", WITHOUT_SOCKETS]
        start(instance)
        (worker,) = workers(instance, 1)
        assert instance.process is not None
        descriptors = Path(f"/proc/{instance.process.pid}/fd")
        before = _least(descriptors)
        os.kill(worker, signal.SIGKILL)
        until(lambda: instance.log().count("event=queue_opened") == 2, "it has a successor")
        assert instance.log().count("event=worker_failed") == 2
        until(lambda: len(list(descriptors.iterdir())) == before, "all is closed")
        assert instance.stop() == os.EX_OK

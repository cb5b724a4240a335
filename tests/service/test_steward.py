"""What root's supervisor does for workers; with real uids, so for root alone."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from tests.support.household import PASSWORD, household
from tests.support.instance import new_instance, until
from tests.support.serving import deliver

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

if os.geteuid() == 0:

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
                    database.execute(
                        "INSERT INTO virtual VALUES (?, 'ann', 'example.com')", row[:1]
                    )
                    database.commit()
                for _ in range(2):  # the first one waits for another attempt
                    assert deliver(instance.smtp_port, "ann@example.com").startswith("250 ")
                instance.run("queue", "retry", "--all")
                until(lambda: len(list(home.glob("Maildir/new/*"))) == 2, "both are there")
            log = instance.log()
        (told,) = [line for line in log.splitlines() if "event=unplanned" in line]
        assert "an errand" in told
        assert "a bug" in told

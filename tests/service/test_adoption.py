"""Queues that no worker of this server has made: copied from a dead machine, or very old."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.former_queue import write_former_queue
from tests.support.instance import until
from tests.support.serving import IAIN, new_server, start

DOMAIN = ("example.com",)


def test_a_queue_of_another_machine_and_version_is_adopted(tmp_path: Path) -> None:
    """Its directory is copied below any number; it is delivered, reported, and removed."""
    with new_server(tmp_path / "instance") as instance:
        instance.stop()
        copied = instance.directory / "queue" / "4711"
        write_former_queue(copied)
        with closing(sqlite3.connect(copied / "queue.db")) as database:
            database.execute("UPDATE message SET sender_local = 'iain', sender_domain = ?", DOMAIN)
            database.execute("UPDATE recipient SET instruction = '', via = '[]', next_attempt = 0")
            database.execute("UPDATE recipient SET address = 'nobody@example.com' WHERE id = 2")
            database.commit()
        for name in ("007", "notes"):
            (instance.directory / "queue" / name).mkdir()
        start(instance)
        until(lambda: len(instance.messages(IAIN)) == 2, "its message, and a report on the other")
        until(lambda: not copied.exists(), "it is empty, and removed")
        report = next(text for text in instance.messages(IAIN) if b"multipart/report" in text)
        assert b"Final-Log-Id: m1" in report
        assert b"nobody@example.com" in report
        assert instance.stop() == os.EX_OK
        assert {each.name for each in (instance.directory / "queue").iterdir()} >= {"007", "notes"}
        assert "event=unplanned" not in instance.log()

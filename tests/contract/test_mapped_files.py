"""The indexes of SQLite's logs are mapped into memory: on a btrfs they are changed in place."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from restante.errors import TemporaryError
from restante.queue import QueueUnusable
from restante.queue.schema import connect_reader, connect_writer
from restante.tally.file import Layout, SharedFile
from tests.support.other_disks import fill, keeps_its_place, other_disk, spares_what_keeps_its_place

LAYOUT = Layout("CREATE TABLE seen (number INTEGER);", 1, TemporaryError)
CUTS = 24
"""So often the disk gets a little room again, and has none as soon as it is used."""
_WRITE_AND_READ = """
import sqlite3, sys
from restante.queue.schema import connect_reader, connect_writer
writer, reader = connect_writer(sys.argv[1]), connect_reader(sys.argv[1])
print(flush=True)
for line in sys.stdin:
    try:
        writer.execute("UPDATE life SET number = number + 1")
        reader.execute("SELECT number FROM life").fetchone()
    except sqlite3.Error:
        pass
    print(flush=True)
"""


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    with other_disk(tmp_path / "btrfs", "btrfs") as disk:
        yield disk


def test_indexes_keep_their_place(btrfs: Path) -> None:
    tally = btrfs / "tally.db"
    with ExitStack() as opened:
        opened.enter_context(closing(connect_writer(str(btrfs))))
        opened.enter_context(closing(SharedFile.open(str(tally), LAYOUT, create=True)))
        for name in ("queue.db", "tally.db"):
            assert keeps_its_place(btrfs / f"{name}-shm")
            assert not keeps_its_place(btrfs / name), "what is to be kept has checksums"
            assert not keeps_its_place(btrfs / f"{name}-wal")
        opened.enter_context(closing(connect_writer(str(btrfs))))
        opened.enter_context(closing(connect_reader(str(btrfs))))
    assert sorted(path.name for path in btrfs.iterdir()) == ["queue.db", "tally.db"]


def test_elsewhere_sqlite_makes_them_itself(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_text("no database at all")
    with pytest.raises(QueueUnusable):
        connect_writer(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["queue.db"]


@pytest.mark.skipif(not spares_what_keeps_its_place(), reason="this Linux kills nevertheless")
def test_nobody_is_killed_who_has_no_room(btrfs: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITE_AND_READ, btrfs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdin is not None
        assert user.stdout is not None
        assert user.stdout.readline(), "it has begun"
        for pages in range(CUTS):
            filler = fill(btrfs, but=pages % 8)
            user.stdin.write(b"\n")
            user.stdin.flush()
            assert user.stdout.readline(), "it was killed"
        filler.unlink()
        user.stdin.close()
        assert user.wait() == 0
    with closing(sqlite3.connect(btrfs / "queue.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)

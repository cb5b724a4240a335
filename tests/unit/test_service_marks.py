"""What a running server leaves for ``check``, in a place where others may have laid traps."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from restante.cli.check.findings import Findings
from restante.cli.check.marks import examine_marks
from restante.config.load import FILE_NAME
from restante.config.tree import Settings
from restante.service.marks import (
    digest_of,
    forget_marks,
    mark_read,
    mark_refused,
    marks_counting,
    marks_of,
)

LONG_AFTER = 2**40


def advice(directory: Path) -> list[str]:
    findings = Findings()
    examine_marks(Settings(str(directory)), findings)
    assert findings.problems == []
    return findings.advice


def test_marks_are_those_of_the_last_reload(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert digest_of(directory) == ""
    (tmp_path / FILE_NAME).write_text("[smtp]\n")
    assert len(digest_of(directory)) == 64
    with pytest.raises(FileNotFoundError):
        marks_of(directory)
    with marks_counting(directory):
        look_at_marks(directory)


def look_at_marks(directory: str) -> None:
    assert marks_of(directory) is None
    mark_read(directory, digest_of(directory))
    found = marks_of(directory)
    assert found is not None
    assert (found.digest, found.refused_at) == (digest_of(directory), None)
    mark_refused(directory)
    mark_refused(directory)
    found = marks_of(directory)
    assert found is not None
    assert found.refused_at is not None
    mark_read(directory, "another")
    found = marks_of(directory)
    assert found is not None
    assert (found.digest, found.refused_at) == ("another", None)
    forget_marks(directory)
    assert marks_of(directory) is None


def test_marks_of_a_server_that_was_killed_tell_nothing(tmp_path: Path) -> None:
    with marks_counting(str(tmp_path)):
        mark_read(str(tmp_path), "another")
        mark_refused(str(tmp_path))
        assert "was refused" in advice(tmp_path)[0]
    assert advice(tmp_path) == []


def test_a_mark_that_cannot_be_written_tells_nothing(tmp_path: Path) -> None:
    """As on a full disk, where the file is made and its octets find no room."""
    (tmp_path / FILE_NAME).write_text("[smtp]\n")
    directory = str(tmp_path)
    with marks_counting(directory):
        mark_read(directory, "another")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                mark_read(directory, digest_of(directory))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert advice(tmp_path) == []


def link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def long_after(path: Path) -> None:
    path.write_bytes(b"\xff\x1b" * 2**20)
    os.utime(path, (LONG_AFTER, LONG_AFTER))


@pytest.mark.parametrize("trap", [link, fifo, long_after, Path.mkdir])
def test_traps_that_a_worker_may_lay(tmp_path: Path, trap: Callable[[Path], None]) -> None:
    with marks_counting(str(tmp_path)):
        for name in ("settings.read", "settings.refused"):
            trap(tmp_path / "run" / name)
        for line in advice(tmp_path):
            assert line.isprintable()

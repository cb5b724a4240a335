"""The bench runs: a round of a few messages through a whole instance, and its results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import BENCHES, run
from bench.arena import Options

pytestmark = pytest.mark.peer


def test_a_row_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(1, 1, 20, (), only=("mailboxes/4k-1",), sqlite=True)
    run(options, [BENCHES["mailboxes"]], tmp_path)
    (row,) = json.loads((tmp_path / "latest.json").read_text())["rows"]
    assert row["key"] == "mailboxes/4k-1"
    (series,) = row["series"]
    assert series["entrant"] == "restante"
    assert series["median"] > 0
    assert 0 < series["processor_seconds_per_1000"]["restante"] < 1000
    assert "4 KiB into mailboxes, 1 session" in capsys.readouterr().out


def test_mail_is_fetched_by_a_checking_client(tmp_path: Path) -> None:
    options = Options(1, 1, 20, (), only=("fetch/4k",), sqlite=True)
    run(options, [BENCHES["fetch"]], tmp_path)
    (row,) = json.loads((tmp_path / "latest.json").read_text())["rows"]
    (series,) = row["series"]
    assert (row["key"], series["entrant"]) == ("fetch/4k", "restante")
    assert series["median"] > 0

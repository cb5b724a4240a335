"""The results of one run, as a file for other programs."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.figures import Row, Series
from bench.goals import judge

DIRECTORY = Path(__file__).parent / "results"
FORMAT = 1
"""Counts up when a reader of older files would misunderstand a newer one."""


@dataclass
class Results:
    """All rows of a run, and what must be known about it."""

    machine: Mapping[str, object]
    versions: Mapping[str, str]
    options: Mapping[str, object]
    rows: list[Row] = field(default_factory=list)
    began: datetime.datetime = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    )

    @property
    def stem(self) -> str:
        """Of the names of its files: when and where."""
        return f"{self.began:%Y-%m-%d-%H%M}-{self.machine['host']}"

    def document(self) -> dict[str, object]:
        """What is written, for JSON."""
        return {
            "format": FORMAT,
            "began": self.began.isoformat(),
            "machine": dict(self.machine),
            "versions": {"restante": revision(), **self.versions},
            "options": dict(self.options),
            "rows": [_row(row) for row in self.rows],
        }

    def write(self, directory: Path = DIRECTORY) -> Path:
        """Write the file, and ``latest.json`` beside it as a link to it; its path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.stem}.json"
        path.write_text(json.dumps(self.document(), indent=1, ensure_ascii=False) + "\n")
        latest = directory / "latest.json"
        latest.unlink(missing_ok=True)
        os.symlink(path.name, latest)
        return path

    def missed(self) -> Iterable[Row]:
        """The rows that are below their floor."""
        for row in self.rows:
            judged = judge(row)
            if judged and judged.result == "missed":
                yield row


def revision() -> str:
    """Of the source that is measured: the commit, and whether it was changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    where = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _row(row: Row) -> dict[str, object]:
    judged = judge(row)
    return {
        "key": row.key,
        "title": row.title,
        "unit": row.unit,
        "better": row.better.value,
        "note": row.note,
        "machine_ms": list(row.machine),
        "series": [_series(each) for each in row.series],
        "goal": asdict(judged) if judged else None,
    }


def _series(series: Series) -> dict[str, object]:
    low, high = series.spread
    return {
        "entrant": series.entrant,
        "median": series.median,
        "low": low,
        "high": high,
        "values": list(series.values),
        "processor_seconds_per_1000": dict(series.processor),
        "memory_mib": dict(series.memory),
        "calls_per_unit": dict(series.calls),
    }

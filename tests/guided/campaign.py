"""Runs targets, each in a process of its own, and reads what came of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.guided.scratch import passing
from tests.guided.target import Target

PATIENCE = 20
"""Seconds that one input may take: each takes milliseconds, unless the time grows faster than it
does."""
MEMORY = 2048
"""Mebibytes that a process may take."""
_STATUS = re.compile(r"^#(\d+)\t.*\bcov: (\d+)", re.MULTILINE)
_DONE = re.compile(r"^stat::number_of_executed_units: *(\d+)", re.MULTILINE)
_SPEED = re.compile(r"^stat::average_exec_per_sec: *(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a target has been tried enough."""

    executions: int
    seconds: int = 0
    """0: however long it takes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one."""

    target: str
    executions: int
    speed: int
    """Executions in a second."""
    edges: int
    """Of the code that were reached."""
    findings: tuple[Path, ...]
    """Inputs with which a promise is not kept."""
    failure: str = ""
    """Why it ended before its time without a finding."""

    @property
    def is_clean(self) -> bool:
        """Whether all was tried and nothing found."""
        return not self.findings and not self.failure

    def __str__(self) -> str:
        """In one line, or more if there is more to say."""
        counted = f"{self.executions} executions, {self.speed}/s, {self.edges} edges"
        more = [f"python -m tests.guided {self.target} --replay {path}" for path in self.findings]
        more += [self.failure] if self.failure else []
        head = f"{self.target}: {counted}, {len(self.findings)} findings"
        return "\n    ".join([head, *more])


def run_all(
    targets: Sequence[Target], bounds: Bounds, corpus: Path, at_once: int
) -> Iterator[Outcome]:
    """Each target's outcome, in their order, as they end; ``at_once`` of them at a time."""
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(lambda target: run(target, bounds, corpus / target.name), targets)


def run(target: Target, bounds: Bounds, place: Path) -> Outcome:
    """Try a target; its inputs stay in ``place/corpus``, its findings in ``place/findings``."""
    inputs, findings = place / "corpus", place / "findings"
    for directory in (inputs, findings):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (inputs / sha256(seed).hexdigest()[:40]).write_bytes(seed)
    words = place / "words"
    words.write_text("".join(map(_word, target.words)))
    before = set(findings.iterdir())
    log = place / "log"
    # libFuzzer ends its process at once: whatever that leaves behind is removed here.
    with log.open("wb") as output, passing() as scratch:
        status = subprocess.run(
            [
                *(sys.executable, "-m", "tests.guided.child", target.name),
                f"-runs={bounds.executions}",
                f"-max_total_time={bounds.seconds}",
                f"-max_len={target.longest}",
                f"-timeout={PATIENCE}",
                f"-rss_limit_mb={MEMORY}",
                *([f"-dict={words}"] if target.words else []),
                f"-artifact_prefix={findings}{os.sep}",
                "-print_final_stats=1",
                str(inputs),
            ],
            env={**os.environ, "TMPDIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    found = tuple(sorted(set(findings.iterdir()) - before))
    failure = f"it ended with status {status}; see {log}" if status and not found else ""
    return outcome_of(target.name, log.read_text("utf-8", "replace"), found, failure)


def _word(word: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    return '"' + "".join(f"\\x{octet:02X}" for octet in word) + '"\n'


def outcome_of(name: str, log: str, found: tuple[Path, ...], failure: str) -> Outcome:
    """What libFuzzer's log of a target tells."""
    lines = _STATUS.findall(log)
    last, edges = map(int, lines[-1]) if lines else (0, 0)
    done, speed = _DONE.search(log), _SPEED.search(log)
    return Outcome(
        name,
        int(done[1]) if done else last,
        int(speed[1]) if speed else 0,
        edges,
        found,
        failure,
    )

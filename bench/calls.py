"""System calls, counted by strace: a sample of its own, as the counting takes its time."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.programs import program

ATTACHING = 20.0
"""Seconds until strace has got hold of all processes."""
SYNCS = ("fsync", "fdatasync", "syncfs", "sync_file_range", "msync")
"""What waits for the disk."""
_LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$", re.MULTILINE)


def counted_calls(pids: Sequence[int], work: Callable[[], object]) -> dict[str, int]:
    """How often the processes, and those that they start, call the kernel during ``work``."""
    with tempfile.TemporaryDirectory(prefix="restante-bench-") as scratch:
        output = Path(scratch) / "calls"
        listed = ",".join(map(str, pids))
        tracer = subprocess.Popen(
            [program("strace"), "-f", "-c", "-o", str(output), "-p", listed],
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until_traced(pids)
            work()
        finally:
            tracer.send_signal(signal.SIGINT)  # it lets go of them, and writes its table
            tracer.wait()
        return parse(output.read_text())


def parse(table: str) -> dict[str, int]:
    """Calls by name, from what ``strace -c`` writes."""
    calls = {name: int(count) for count, name in _LINE.findall(table)}
    calls.pop("total", None)
    return calls


def syncs(calls: Mapping[str, float]) -> float:
    """How many of them wait for the disk."""
    return sum(calls.get(name, 0) for name in SYNCS)


def _wait_until_traced(pids: Sequence[int]) -> None:
    deadline = time.monotonic() + ATTACHING
    while not all(map(_traced, pids)):
        if time.monotonic() > deadline:
            raise RuntimeError("strace cannot get hold of the processes")
        time.sleep(0.02)


def _traced(pid: int) -> bool:
    """One that has ended is not waited for."""
    try:
        return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True

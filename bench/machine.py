"""The machine that the figures are of, and how fast it is at the moment."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.programs import MissingError, generator, program

_VERSIONS: Sequence[tuple[str, Sequence[str]]] = (
    ("postfix", ("postconf", "-d", "-h", "mail_version")),
    ("dovecot", ("dovecot", "--version")),
    ("mariadb", ("mariadbd", "--version")),
)


def speed() -> float:
    """Milliseconds for a fixed piece of work (generators/calibrate.c), on two cores at a time."""
    return float(subprocess.run([generator("calibrate")], check=True, capture_output=True).stdout)


def interpreter_speed() -> float:
    """Milliseconds for a fixed piece of Python, at best: builds differ by a half and more."""
    return min(_interpret() for _ in range(5)) * 1000


def _interpret() -> float:
    began = time.perf_counter()
    numbers: dict[int, str] = {}
    for number in range(100_000):
        numbers[number & 1023] = str(number)
    return time.perf_counter() - began


def describe(directory: Path) -> dict[str, object]:
    """Processors, memory, kernel, and the file system on which ``directory`` lies."""
    return {
        "host": platform.node(),
        "processor": _first("/proc/cpuinfo", r"^model name\s*:\s*(.+)$"),
        "cores": os.cpu_count(),
        "memory_mib": memory_mib(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python_ms": round(interpreter_speed(), 2),
        "filesystem": _filesystem(directory),
    }


def memory_mib() -> int:
    """How much memory there is."""
    return int(_first("/proc/meminfo", r"^MemTotal:\s+(\d+)") or 0) // 1024


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for name, (command, *arguments) in _VERSIONS:
        try:
            run = [program(command), *arguments]
        except MissingError:
            continue
        said = subprocess.run(run, capture_output=True, text=True, check=False).stdout
        number = re.search(r"\d+(?:\.\d+)+", said)
        found[name] = number[0] if number else "?"
    return found


def _filesystem(directory: Path) -> str:
    """The type of the innermost mount that holds ``directory``."""
    mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [each for each in mounts if directory.is_relative_to(each[1])]
    return max(holding, key=lambda each: len(each[1]))[2]


def _first(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1] if found else ""

"""What the bench counts of processes: with whatever this machine has, and as kernels write it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.processes import Component, Components, ControlGroup, components, memory
from tests.support.instance import until

WAIT = "import sys; sys.stdin.read()"
BURN = "import time\nwhile time.process_time() < 0.3: pass"
HOLD = """
import os, sys
held = bytearray(b"x") * (40 << 20)
child = os.fork()
if child == 0:
    print("held", flush=True)
sys.stdin.read()
if child:
    os.wait()
"""
"""Forty MiB that two processes have together."""

# As Linux 6.1 writes them.
CPU_STAT = """\
usage_usec 4712345
user_usec 3712340
system_usec 1000005
core_sched.force_idle_usec 0
nr_periods 0
nr_throttled 0
throttled_usec 0
nr_bursts 0
burst_usec 0
"""
CPUACCT_USAGE = "4712345678\n"


@contextmanager
def running(component: Component, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """In the component, with a line printed; it ends with the block."""
    with subprocess.Popen(
        [*component.prefix, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        component.adopt(process.pid)
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    until(lambda: not component.pids(), "the last of its children has ended, too")


@pytest.mark.parametrize("grouped", [True, False])
def test_what_a_child_has_used_that_is_gone_counts(grouped: bool) -> None:
    with components() as made:
        component = (made if grouped else Components(None)).new("worker")
        shell = ("sh", "-c", '"$0" -c "$1"; echo; read x', sys.executable, BURN)
        with running(component, *shell) as process:
            assert 0.25 <= component.seconds() < 10  # told in ticks of 10 ms
            assert component.pids() == [process.pid]


def test_a_control_group_misses_nobody_who_leaves_his_parent() -> None:
    """Where none can be made, that is what the trees of processes miss."""
    daemon = f"import os\nif os.fork() == 0:\n os.setsid()\n exec({BURN!r})\n print(flush=True)\n"
    shell = ("sh", "-c", '"$0" -c "$1"; read x', sys.executable, daemon)
    with components() as made:
        component = made.new("worker")
        with running(component, *shell):
            assert (component.seconds() >= 0.25) == isinstance(component, ControlGroup)


def test_groups_of_a_run_are_apart_and_go_with_it() -> None:
    with components() as made:
        busy, idle = made.new("busy"), made.new("idle")
        with running(
            busy, sys.executable, "-c", f"{BURN}\nprint(flush=True)\nimport sys\nsys.stdin.read()"
        ):
            assert busy.seconds() >= 0.25
            assert idle.seconds() < 0.1
            assert idle.pids() == []
    assert not (isinstance(busy, ControlGroup) and busy.path.parent.exists())


@pytest.mark.parametrize("grouped", [True, False])
def test_memory_that_processes_share_counts_once(grouped: bool) -> None:
    with components() as made:
        component = (made if grouped else Components(None)).new("worker")
        with running(component, sys.executable, "-c", HOLD):
            assert len(component.pids()) == 2
            assert 40 <= memory(component) < 75


@pytest.mark.parametrize(
    ("file", "text", "seconds"),
    [("cpu.stat", CPU_STAT, 4.712345), ("cpuacct.usage", CPUACCT_USAGE, 4.712345678)],
)
def test_what_kernels_write(tmp_path: Path, file: str, text: str, seconds: float) -> None:
    (tmp_path / file).write_text(text)
    (tmp_path / "cgroup.procs").write_text("17\n4711\n")
    group = ControlGroup("worker", tmp_path)
    assert group.seconds() == seconds
    assert group.pids() == [17, 4711]

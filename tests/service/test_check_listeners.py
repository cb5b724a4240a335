"""``restante check`` on ports that somebody has: whether it is this instance's own server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.cli.check.listener_holder import Holder, holder_of
from restante.config.tree import HostPort
from tests.support.instance import Instance
from tests.support.ports import free_port
from tests.support.serving import Sections, new_server, workers

GREETING = "220 mx.example.com ESMTP"


@contextlib.contextmanager
def server(directory: Path) -> Iterator[tuple[Instance, str]]:
    """One that runs, and its address for SMTP."""
    address = f"127.0.0.1:{free_port()}"
    sections: Sections = {"smtp": {"listen": [address]}}
    with new_server(directory / "instance", sections) as instance:
        yield instance, address


def about(address: str, instance: Instance) -> tuple[list[str], list[str]]:
    """The problems and the advice that name the address."""
    found = json.loads(instance.run("check", "--json", check=False).stdout)
    problems, advice = (
        [line for line in found[kind] if address in line] for kind in ("problems", "advice")
    )
    return problems, advice


def test_own_server_that_serves_and_that_does_not_answer(tmp_path: Path) -> None:
    with server(tmp_path) as (instance, address):
        served = f"{address} is served by mx.example.com already: {GREETING}"
        assert about(address, instance) == ([], [served])
        (worker,) = workers(instance, 1)
        os.kill(worker, signal.SIGSTOP)
        try:
            (problem,), advice = about(address, instance)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert problem.startswith(f"the server of this instance has {address} for smtp, and does ")
        assert advice == []


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_another_server(tmp_path: Path, host: str) -> None:
    """At the address, and at all addresses of this host."""
    with server(tmp_path) as (instance, address):
        instance.stop()
        with socket.create_server((host, int(address.rpartition(":")[2]))) as taken:
            (problem,), advice = about(address, instance)
            assert not was_asked(taken)
        assert f"(process {os.getpid()}), not a server of this instance" in problem
        assert "cannot listen on" in problem
        assert advice == []


LISTEN = """
import socket, sys
with open("/proc/self/comm", "wb") as name:
    name.write(b"a\\xff\\x1b[1m")
taken = socket.create_server(("127.0.0.1", 0))
print(taken.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_whatever_another_process_calls_itself(tmp_path: Path) -> None:
    script = [sys.executable, "-c", LISTEN]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        address = HostPort("127.0.0.1", int(process.stdout.readline()))
        holder = holder_of(address, str(tmp_path))
        assert holder == Holder(process.pid, "a\\udcff\\x1b[1m", is_ours=False)
        process.communicate()


def test_a_server_that_systemd_would_start_is_left_alone(tmp_path: Path) -> None:
    """A connection to its socket would be the start."""
    name = Path("/proc/self/comm")
    former = name.read_bytes()
    with server(tmp_path) as (instance, address):
        instance.stop()
        with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))) as taken:
            name.write_bytes(b"systemd")
            try:
                problems, (advice,) = about(address, instance)
            finally:
                name.write_bytes(former)
            assert not was_asked(taken)
    assert problems == []
    assert advice.startswith(f"{address} is systemd's")


def was_asked(taken: socket.socket) -> bool:
    """Whether anybody has connected."""
    taken.setblocking(False)
    try:
        taken.accept()[0].close()
    except BlockingIOError:
        return False
    return True

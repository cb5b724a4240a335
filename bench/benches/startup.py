"""From the command that starts the server to its first greeting."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from functools import partial
from socket import create_connection

from bench.arena import Arena, Bench
from bench.processes import Component
from bench.rounds import Entrant, Turns
from bench.systems.restante import prepared
from bench.systems.system import LOOPBACK, STARTING, NotServingError
from tests.support.instance import Instance
from tests.support.ports import free_port

WORKERS = 4
_AGAIN = 0.002
"""Seconds between two attempts."""


def run(arena: Arena) -> None:
    """With four workers, whatever was asked for: the goal is about so many."""
    port = free_port()
    listen = {"RESTANTE_SMTP__LISTEN": json.dumps([f"{LOOPBACK}:{port}"])}
    component = arena.components.new("restante")
    used = (component, arena.database.component) if arena.database else (component,)
    directory = arena.directory("startup")
    with prepared(directory, arena.accounts, arena.database, WORKERS, listen) as instance:
        instance.within = component.prefix
        work = partial(_start, instance, component, port)
        arena.measure(
            "startup/first-greeting",
            f"start-up to the first greeting, {WORKERS} workers",
            [Entrant("restante", used, arena.generator, work, partial(_stop, instance))],
            Turns(1, arena.options.rounds, warm_up=1, seconds_for=1),
            unit="s",
            note="CPU: for 1,000 starts, and what the workers do in the first moments",
        )


def _start(instance: Instance, component: Component, port: int, _: int) -> float:
    """Seconds; raises NotServingError."""
    began = time.monotonic()
    instance.spawn()
    assert instance.process is not None
    component.adopt(instance.process.pid)
    while time.monotonic() < began + STARTING:
        with suppress(OSError), create_connection((LOOPBACK, port), timeout=STARTING) as first:
            if first.recv(3) == b"220":
                return time.monotonic() - began
        time.sleep(_AGAIN)
    raise NotServingError(f"nobody greets: {instance.log()[-2000:]}")


def _stop(instance: Instance) -> None:
    if instance.process is not None:
        instance.stop()


BENCHES = (Bench("startup", "from the start to the first greeting", run),)

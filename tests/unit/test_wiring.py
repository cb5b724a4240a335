"""Each setting reaches the part of a worker that it is for."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from restante.config import Settings
from restante.config.tree import HostPort
from restante.guessing import guard
from restante.net import pop3, smtp
from restante.queue.store import QueueStore
from restante.relay import driver
from restante.service import queues, wiring
from restante.service.listeners import Listeners
from tests.unit.test_worker_stop import worker_of

PATIENCE = 30.0
ANY = (HostPort("127.0.0.1", 0),)
SECTIONS = ("server", "smtp", "pop3", "auth", "queue", "relay")

Part = tuple[ModuleType | type, str, Callable[[Settings], Mapping[str, object]]]
"""Where it is made, by which name, and what of its arguments the settings decide."""

PARTS: list[Part] = [
    (
        queues,
        "Limits",
        lambda s: {
            "local": s.queue.concurrencylocal,
            "remote": s.queue.concurrencyremote,
            "per_lane": s.relay.concurrency_per_destination,
            "per_message": s.relay.concurrency_per_message,
            "programs": s.queue.concurrencyprograms,
        },
    ),
    (
        queues,
        "RetryPolicy",
        lambda s: {"lifetime": s.queue.queuelifetime, "delay_notice": s.queue.delay_notice},
    ),
    (QueueStore, "open", lambda s: {"max_waiting": s.queue.max_waiting}),
    (queues, "RunningQueue", lambda s: {"grace": s.server.drain_timeout}),
    (
        wiring,
        "ConnectionLimits",
        lambda s: {
            "total": s.server.max_connections,
            "per_address": s.server.max_connections_per_address,
        },
    ),
    (
        smtp,
        "Limits",
        lambda s: {
            "max_command_line": s.smtp.max_command_line,
            "max_text_line": s.smtp.max_text_line,
            "databytes": s.smtp.databytes,
            "max_recipients": s.smtp.max_recipients,
            "max_errors": s.smtp.max_errors,
            "max_refused_logins": s.auth.max_attempts,
        },
    ),
    (
        pop3,
        "Limits",
        lambda s: {"max_errors": s.pop3.max_errors, "max_refused_logins": s.auth.max_attempts},
    ),
    (
        guard,
        "Limits",
        lambda s: {
            "account": s.auth.guess_account,
            "network": s.auth.guess_network,
            "window": s.auth.guess_window,
        },
    ),
    (guard, "FileGuard", lambda s: {"shared": s.auth.guess_shared}),
    (
        driver,
        "Pool",
        lambda s: {
            "idle_timeout": s.relay.idle_timeout,
            "messages_per_connection": s.relay.messages_per_connection,
        },
    ),
]


def distinct(settings: Settings) -> Settings:
    """The same, with a value of its own for each number."""
    numbers = count(1001)

    def numbered(section: Any) -> Any:
        names = [each.name for each in fields(section) if each.type in {"int", "float"}]
        return replace(section, **{name: next(numbers) for name in names})

    return replace(settings, **{name: numbered(getattr(settings, name)) for name in SECTIONS})


def noted(
    monkeypatch: pytest.MonkeyPatch, where: ModuleType | type, name: str
) -> list[Mapping[str, object]]:
    """With which arguments something is made from now on, by their names."""
    made: list[Mapping[str, object]] = []
    make = getattr(where, name)

    def noting(*args: object, **kwargs: object) -> object:
        made.append(inspect.signature(make).bind(*args, **kwargs).arguments)
        return make(*args, **kwargs)

    monkeypatch.setattr(where, name, noting)
    return made


@pytest.mark.parametrize(
    ("where", "name", "wanted"), PARTS, ids=[f"{each.__name__}.{name}" for each, name, _ in PARTS]
)
async def test_a_part_is_made_as_the_settings_have_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: ModuleType | type,
    name: str,
    wanted: Callable[[Settings], Mapping[str, object]],
) -> None:
    made = noted(monkeypatch, where, name)
    settings = distinct(Settings(str(tmp_path)))
    settings = replace(
        settings,
        smtp=replace(settings.smtp, listen=ANY),
        pop3=replace(settings.pop3, listen=ANY),
        auth=replace(settings.auth, guess_shared=("192.0.2.0/24",)),
    )
    listeners = Listeners().adjusted(settings)
    worker = worker_of(settings)
    await worker.start(listeners.by_service())
    async with asyncio.timeout(PATIENCE):
        for each in listeners:  # a session has parts of its own
            reader, writer = await asyncio.open_connection(*each.socket.getsockname())
            assert await reader.readline()
            writer.close()
    await worker.stop()
    listeners.close()
    assert made
    for arguments in made:
        assert arguments.items() >= wanted(settings).items()

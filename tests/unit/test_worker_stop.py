"""How a worker is taken apart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from restante.config import Settings
from restante.net.server import Server
from restante.queue import QueueTaken
from restante.queue.slots import lock_queue
from restante.relay.driver import SmtpRelay
from restante.service import wiring
from restante.service.dropped import Dropped
from restante.service.hands import Hands
from restante.service.place import Generation, WorkerPlace
from restante.service.queues import Queues
from restante.service.wiring import Worker
from restante.tls.files import HandedFiles
from tests.support.events import capture_logs


def worker_of(settings: Settings) -> Worker:
    generation = Generation.begin(settings, [0], HandedFiles())
    place = WorkerPlace(0, 0, generation, True, -1, -1, None, None)
    return Worker(settings, place, None)


async def test_a_queue_is_given_away_when_nothing_is_written_for_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(str(tmp_path))
    worker = worker_of(settings)
    queue = settings.path(f"{settings.queue.root}/0")
    close, closed = Hands.close, []

    async def watched(hands: Hands) -> None:
        await close(hands)
        with pytest.raises(QueueTaken):
            lock_queue(queue)
        closed.append(hands)

    monkeypatch.setattr(Hands, "close", watched)
    await worker.start({})
    await worker.stop()
    assert closed
    lock_queue(queue).close()


async def test_the_order_of_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts and pick-up have the time that sessions have; queues are given away at last."""
    steps = [
        (Queues, "start_no_more"),
        (Server, "stop"),
        (Dropped, "stop"),
        (Queues, "come_to_rest"),
        (Hands, "close"),
        (Queues, "close"),
        (SmtpRelay, "close"),
    ]
    taken: list[tuple[type, str]] = []

    def note(where: type, name: str) -> None:
        take = getattr(where, name)

        def noting(*args: object) -> object:
            taken.append((where, name))
            return take(*args)

        monkeypatch.setattr(where, name, noting)

    for step in steps:
        note(*step)
    worker = worker_of(Settings(str(tmp_path)))
    await worker.start({})
    await worker.stop()
    assert list(dict.fromkeys(taken)) == steps


async def test_a_task_that_has_died_keeps_nothing_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(wiring, "give_back_for_ever", die)
    settings = Settings(str(tmp_path))
    worker = worker_of(settings)
    with capture_logs() as events:
        await worker.start({})
        await asyncio.sleep(0)
        await worker.stop()
    lock_queue(settings.path(f"{settings.queue.root}/0")).close()
    assert [each["where"] for each in events if each["event"] == "unplanned"] == ["a worker's task"]

"""How a worker is taken apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from restante.config import Settings
from restante.queue import QueueTaken
from restante.queue.slots import lock_queue
from restante.service.hands import Hands
from restante.service.place import Generation, WorkerPlace
from restante.service.wiring import Worker


async def test_a_queue_is_given_away_when_nothing_is_written_for_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(str(tmp_path))
    place = WorkerPlace(0, 0, Generation.begin(settings, [0]), True, -1, -1, None, None)
    worker = Worker(settings, place, None)
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

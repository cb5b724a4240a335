"""A worker's own queue, where nothing is in its way."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from restante.queue.store import QueueStore
from restante.service.own_queue import OwnQueue
from tests.support.events import capture_logs


async def test_it_is_opened_at_once(tmp_path: Path) -> None:
    for _ in ("new", "again"):
        own = OwnQueue(str(tmp_path / "0"), partial(QueueStore.open, str(tmp_path), 0))
        with capture_logs() as log:
            store = await own.open(needed=False)
        assert [each["event"] for each in log] == ["queue_opened"]
        assert store is not None
        await store.close()

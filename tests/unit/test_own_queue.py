"""A worker's own queue, where opening it takes long."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest

from restante.queue import QueueFailed
from restante.queue.store import QueueStore
from restante.service.own_queue import OwnQueue
from tests.support.events import capture_logs
from tests.support.former_queue import VERSION_1, VERSION_2, write_former_queue
from tests.support.queued import content, envelope, targets


@pytest.mark.parametrize("script", [VERSION_1, VERSION_2], ids=["1", "2"])
async def test_a_former_queue_is_brought_up_to_date_while_all_else_is_served(
    tmp_path: Path, script: str
) -> None:
    """However long it takes: a worker that starts is given a minute."""
    write_former_queue(tmp_path / "0", script)
    threads: list[threading.Thread] = []

    def opened() -> QueueStore:
        threads.append(threading.current_thread())
        return QueueStore.open(str(tmp_path), 0)

    own = OwnQueue(str(tmp_path / "0"), opened)
    with capture_logs() as log:
        assert await own.open(needed=False) is None
        with pytest.raises(QueueFailed, match="brought up to date"):
            await own.add(envelope(), content(), targets())
        store = await own.open_later()
    assert threading.main_thread() not in threads
    assert [each["event"] for each in log] == ["queue_migrating", "queue_opened"]
    await own.add(envelope(), content(), targets())
    await store.close()


async def test_a_queue_of_now_is_opened_at_once(tmp_path: Path) -> None:
    for _ in ("new", "again"):
        own = OwnQueue(str(tmp_path / "0"), partial(QueueStore.open, str(tmp_path), 0))
        with capture_logs() as log:
            store = await own.open(needed=False)
        assert [each["event"] for each in log] == ["queue_opened"]
        assert store is not None
        await store.close()

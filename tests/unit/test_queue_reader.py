"""The queues as another process sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from restante.queue import LastAnswer, QueueUnusable, RecipientState
from restante.queue.bodies import IN_ROW
from restante.queue.operate import QueueOperator, Verb
from restante.queue.reader import QueueReader
from restante.queue.rows import Result
from restante.queue.selection import EVERYTHING
from restante.queue.store import QueueStore
from restante.status import Reply
from restante.tally.owner import as_owner
from tests.support.jumping_clock import START
from tests.support.queued import content, due, envelope, record, targets

NOT_NOW = LastAnswer(Reply(451, "3.0", "not now"), "", None, START)
LARGE = b"Subject: large\n\n" + b"x" * IN_ROW

LISTS = """
import sys
from restante.queue.reader import QueueReader
for entry in QueueReader(sys.argv[1]).messages():
    print(entry.slot, entry.envelope.queue_id, *(r.state for r in entry.recipients))
"""


def listed_elsewhere(root: Path) -> list[list[str]]:
    """What a process of its own reads."""
    done = subprocess.run(
        [sys.executable, "-c", LISTS, str(root)], capture_output=True, text=True, check=True
    )
    return [line.split() for line in done.stdout.splitlines()]


async def test_running_and_stopped_are_read_alike(tmp_path: Path) -> None:
    stores = [QueueStore.open(str(tmp_path), slot) for slot in (0, 1)]
    sent = [envelope(), envelope()]
    for store, each in zip(stores, sent, strict=True):
        await store.add(each, content(), targets("a@x", "b@x"))
    expected = [[str(n), each.queue_id, "waiting", "waiting"] for n, each in enumerate(sent)]
    assert listed_elsewhere(tmp_path) == expected
    for store in stores:
        await store.close()
    assert listed_elsewhere(tmp_path) == expected
    reopened = QueueStore.open(str(tmp_path), 0)
    assert reopened.waiting == 1
    await reopened.close()


async def test_an_entry_tells_all_that_is_known(tmp_path: Path) -> None:
    store = QueueStore.open(str(tmp_path), 3)
    sent = envelope("a@x", "b@x")
    await store.add(sent, content(LARGE), targets("a@x", "b@x"))
    (message,) = await due(store, START)
    a, b = (recipient.id for recipient in message.recipients)
    results = [
        Result(a, RecipientState.DELIVERED),
        Result(b, RecipientState.WAITING, NOT_NOW, START + 100),
    ]
    await record(store, message, results)
    reader = QueueReader(str(tmp_path))
    entry = reader.message(sent.queue_id)
    assert entry is not None
    assert (entry.slot, entry.envelope, entry.next_attempt) == ("3", sent, START + 100)
    assert entry.size == len(content(LARGE).read())
    assert [(str(r.state), r.attempts, r.last) for r in entry.recipients] == [
        ("delivered", 1, None),
        ("waiting", 1, NOT_NOW),
    ]
    said = reader.content(sent.queue_id)
    assert said is not None
    assert said.read() == content(LARGE).read()
    await store.close()


async def test_a_limit_is_kept(tmp_path: Path) -> None:
    stores = [QueueStore.open(str(tmp_path), slot) for slot in (0, 1)]
    sent = [envelope() for _ in range(4)]
    for each in sent:
        await stores[0].add(each, content(), targets())
    last = envelope()
    await stores[1].add(last, content(), targets())
    reader = QueueReader(str(tmp_path))
    ids = [entry.envelope.queue_id for entry in reader.messages()]
    assert ids == [each.queue_id for each in (*sent, last)]
    assert [entry.envelope.queue_id for entry in reader.messages(limit=2)] == ids[:2]
    assert list(reader.messages(limit=0)) == []
    for store in stores:
        await store.close()


async def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert list(QueueReader(str(tmp_path / "nowhere")).messages()) == []
    store = QueueStore.open(str(tmp_path), 0)
    assert QueueReader(str(tmp_path)).message("nothing") is None
    assert QueueReader(str(tmp_path)).content("nothing") is None
    await store.close()


def test_a_damaged_queue_is_named(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "queue.db").write_bytes(b"this is no database, but a letter" * 100)
    reader = QueueReader(str(tmp_path))
    assert list(reader.messages()) == []
    with pytest.raises(QueueUnusable, match=r"0/queue\.db cannot be read"):
        reader.failures.check()


def test_a_queue_that_root_has_put_there_is_not_left_out(tmp_path: Path) -> None:
    """Root's commands have the rights of the owner of all queues, and must not see nothing."""
    root = tmp_path / "queue"
    for name in ("0", "lost+found"):
        (root / name).mkdir(parents=True)
        (root / name).chmod(0)
    remedy = "it is for root and the server's own user"
    if os.geteuid() == 0:
        remedy = f"chown -R --no-dereference 54321:54321 {root}/0"
        os.chown(root, 54321, 54321)
        for parent in root.parents:
            if not parent.stat().st_mode & 0o001:
                parent.chmod(0o711)

    with as_owner(str(root)):
        reader, operator = QueueReader(str(root)), QueueOperator(str(root))
        assert list(reader.messages()) == []
        for named in (
            reader.failures.check,
            lambda: list(operator.matching(Verb.HOLD, EVERYTHING)),
            lambda: list(QueueOperator(str(root)).apply(Verb.HOLD, EVERYTHING)),
        ):
            with pytest.raises(QueueUnusable, match=f"{root}/0 .*{remedy}$"):
                named()

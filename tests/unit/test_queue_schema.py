"""The queue's tables: what a queue of the former version becomes, and that nothing is scanned."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from restante.address import NULL_REVERSE_PATH, Address
from restante.envelope import Envelope, HeaderFacts, Notify, RecipientDsn, memory_content
from restante.queue import (
    LastAnswer,
    QueuedMessage,
    QueueUnusable,
    RecipientState,
    Target,
    answers,
    lanes,
    notices,
    rows,
)
from restante.queue.attempts import Record, enter
from restante.queue.handout import Position, select_due, select_overdue
from restante.queue.reader import QueueReader
from restante.queue.schema import connect_reader, connect_writer
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits, Traffic
from restante.queue.work import LaneNews
from restante.status import Peer, Reply
from tests.support.former_queue import LARGE, VERSION_1, VERSION_2, write_former_queue
from tests.support.jumping_clock import START
from tests.support.queued import content, due, envelope, limits, record, reports


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A queue that the former version of Restante has written."""
    write_former_queue(tmp_path / "0")
    return tmp_path


async def test_a_queue_of_the_former_version_goes_on(former: Path) -> None:
    store = QueueStore.open(str(former), 0)
    assert store.waiting == 2
    (second,) = await due(store, START + 50)
    assert second.envelope == Envelope(
        "m2", NULL_REVERSE_PATH, (Address("iain", "example.com"),), START + 1, smtputf8=True
    )
    assert second.content.read() == LARGE
    assert second.again
    (first,) = await due(store, START + 101)
    assert first.envelope == Envelope(
        "m1", Address("ann", "example.org"), (Address("all", "example.com"),), START + 0.5, True
    )
    facts = HeaderFacts(2, frozenset({"a@x"}))
    assert first.content == memory_content(b"T: x\n", b"Hello\n", facts)
    (recipient,) = first.recipients
    assert recipient.target == Target("iain@example.com", "./Maildir/", ("all@example.com",))
    assert recipient.trail == ("all@example.com",)
    assert recipient.attempts == 1
    said = Reply(451, "3.0", "not now (the disk is away)")
    assert recipient.last == LastAnswer(said, "", None, START + 0.5)
    assert await reports(store) == [], "what had failed was reported then"
    for message in (first, second):
        results = [rows.Result(each.id, RecipientState.DELIVERED) for each in message.recipients]
        assert await record(store, message, results)
    assert store.waiting == 0
    await store.close()


async def test_a_queue_of_version_2_goes_on(tmp_path: Path) -> None:
    write_former_queue(tmp_path / "0", VERSION_2)
    store = QueueStore.open(str(tmp_path), 0)
    work = await store.due(START + 101, limits())
    (message,), (pending,) = work.messages, work.reports
    assert message.lane == "", "the other lane is left alone, as before"
    assert message.envelope == Envelope(
        "m1",
        Address("ann", "example.org"),
        (Address("all", "example.com"),),
        START + 0.5,
        True,
        ret="FULL",
        envid="id-7",
    )
    (iain,) = message.recipients
    asked = RecipientDsn(Notify.FAILURE, "rfc822;all@example.com")
    assert iain.target == Target(
        "iain@example.com", "./Maildir/", ("all@example.com",), dsn=asked, reverse_path=None
    )
    assert (iain.attempts, iain.trail, iain.delay_told) == (1, ("all@example.com",), True)
    (later,) = await due(store, START + 201)
    assert later.lane == "example.net"
    assert [each.recipient.id for each in pending.notices] == [iain.id]
    assert await store.taken() == {"m123"}
    await store.close()


def test_an_answer_that_a_former_version_kept_is_read() -> None:
    """Nor may a field be added within ``peer``: no version of these tables reads others there."""
    kept = '{"code": %d, "topic": "7.1", "text": "no", "detail": "", "at": 1.5, "peer": %s}'
    peer = '{"host": "mx", "address": "", "command": "greeting", "tls": "", "dsn": false}'
    for code, is_temporary in ((451, True), (554, False)):
        last = answers.decode(kept % (code, peer))
        assert last == LastAnswer(Reply(code, "7.1", "no"), "", Peer("mx", "", "greeting"), 1.5)
        assert last.is_temporary == is_temporary


@pytest.mark.parametrize("script", [VERSION_1, VERSION_2], ids=["1", "2"])
async def test_a_migrated_queue_has_the_tables_of_a_new_one(tmp_path: Path, script: str) -> None:
    write_former_queue(tmp_path / "0", script)
    await QueueStore.open(str(tmp_path), 0).close()
    await QueueStore.open(str(tmp_path), 1).close()
    assert tables(tmp_path / "0") == tables(tmp_path / "1")


def test_a_migration_of_version_2_that_fails_leaves_the_queue_as_it_was(tmp_path: Path) -> None:
    write_former_queue(tmp_path / "0", VERSION_2)
    with closing(sqlite3.connect(tmp_path / "0" / "queue.db")) as connection:
        connection.execute("DROP INDEX lane_due")
        before = connection.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall()
    with pytest.raises(QueueUnusable, match="lane_due"):
        QueueStore.open(str(tmp_path), 0)
    with closing(sqlite3.connect(tmp_path / "0" / "queue.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        after = connection.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall()
        assert after == before
        assert connection.execute("SELECT count(*) FROM recipient").fetchone() == (3,)


def tables(directory: Path) -> list[tuple[str, ...]]:
    with closing(connect_reader(str(directory))) as connection:
        found = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name")
        return [tuple(row) for row in found]


def test_a_migration_that_fails_leaves_the_queue_as_it_was(former: Path) -> None:
    with closing(sqlite3.connect(former / "0" / "queue.db")) as connection:
        connection.execute("UPDATE message SET accepted_for = 'x' WHERE queue_id = 'm1'")
        connection.execute("CREATE TABLE lane (mine TEXT)")
        connection.commit()
    with pytest.raises(QueueUnusable, match="lane already exists"):
        QueueStore.open(str(former), 0)
    with closing(sqlite3.connect(former / "0" / "queue.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM recipient").fetchone() == (4,)


def test_a_former_queue_is_not_read_before_its_server_has_started(former: Path) -> None:
    reader = QueueReader(str(former))
    assert list(reader.messages()) == []
    with pytest.raises(QueueUnusable, match="older version"):
        reader.failures.check()


def test_a_newer_queue_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    with closing(sqlite3.connect(tmp_path / "0" / "queue.db")) as connection:
        connection.execute("PRAGMA user_version = 4")
    with pytest.raises(QueueUnusable, match="newer version"):
        QueueStore.open(str(tmp_path), 0)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect_writer(str(tmp_path))) as opened:
        yield opened


def test_no_question_of_the_hot_path_scans_a_table(connection: sqlite3.Connection) -> None:
    populate(connection, 1)
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    ask_everything(connection)
    connection.set_trace_callback(None)
    statements = {each for each in asked if each.startswith(("SELECT", "UPDATE", "DELETE"))}
    assert len(statements) > 10
    for statement in statements:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert not [step for step in plan if re.match("SCAN (?!CONSTANT|json_each)", step)]
        if "lane = 'dead'" in statement and "queue_id =" not in statement:
            assert plan[0].startswith("SEARCH recipient USING COVERING INDEX recipient_lane")


def ask_everything(connection: sqlite3.Connection) -> None:
    now = START + 10
    select_due(connection, now, limits(), Traffic(), 10)
    select_overdue(connection, "dead", now, (START, 0.0), Position(), 10)
    rows.waiting_recipients(connection, "m0", "dead", now, 10, 1)
    rows.load_message(connection, "m0", "")
    rows.exists(connection, "m0")
    rows.settle_message(connection, "m0", now)
    lanes.settle_lanes(connection, ["dead", "empty"], now)
    lanes.works_again(connection, "dead", now)
    notices.due_reports(connection, now, 10, ())
    notices.next_report(connection, now)
    notices.notices_of(connection, "m0")
    notices.put_off(connection, "m0", now)
    message = QueuedMessage(envelope(queue_id="m0"), content(), (), False, "dead")
    delivered = rows.Result(0, RecipientState.DELIVERED)
    enter(connection, [Record(message, [delivered], now, LaneNews(now, None))], 1)
    assert not rows.exists(connection, "m0")


def populate(connection: sqlite3.Connection, messages: int) -> None:
    """So many messages in a dead lane, and one in a good one."""
    for number in range(messages + 1):
        lane = "dead" if number < messages else "good"
        connection.execute(
            "INSERT INTO message VALUES (?, 'a', 'b', '[]', ?, 0, 0, '', '', 0, '[]', 0, 0,"
            " x'', x'')",
            (f"m{number}", START),
        )
        connection.execute(
            "INSERT INTO recipient VALUES (?, ?, ?, 'waiting', ?, ?, 0, 1, 'a@x', '[]', '', NULL,"
            " '[]', '[]', NULL, '', '', '', 0)",
            (number, f"m{number}", lane, START, START),
        )
        lanes.touch_lane(connection, lane, START)


@pytest.mark.parametrize("blocked", [True, False])
def test_a_dead_lane_costs_the_same_however_many_wait_in_it(tmp_path: Path, blocked: bool) -> None:
    """Steps of SQLite's virtual machine, which are the same on every run."""
    costs = []
    for messages in (10, 5000):
        directory = tmp_path / str(messages)
        directory.mkdir()
        with closing(connect_writer(str(directory))) as connection:
            connection.execute("BEGIN")
            populate(connection, messages)
            connection.execute(
                "UPDATE lane SET failures = 3, blocked_until = :until,"
                " next_attempt = max(:until, :now) WHERE name = 'dead'",
                {"until": START + 1000 if blocked else 0, "now": START},
            )
            connection.execute("COMMIT")
            costs.append(steps(connection, 1 if blocked else 2))
    assert costs[1] <= costs[0] + 20, "a deeper tree, no more"


def test_many_destinations_cost_nothing_while_no_more_may_move(tmp_path: Path) -> None:
    costs = []
    for others in (10, 5000):
        directory = tmp_path / str(others)
        directory.mkdir()
        with closing(connect_writer(str(directory))) as connection:
            connection.execute("BEGIN")
            populate(connection, 10)
            for number in range(others):
                lanes.touch_lane(connection, f"lane{number}", START + 1)
            connection.execute("COMMIT")
            costs.append(steps(connection, 1, limits(remote=1)))
    assert costs[1] <= costs[0] + 20, "a deeper tree, no more"


def test_slow_destinations_are_passed_over_at_the_same_cost_however_many_wait(
    tmp_path: Path,
) -> None:
    costs = []
    for destinations in (10, 500):
        directory = tmp_path / str(destinations)
        directory.mkdir()
        with closing(connect_writer(str(directory))) as connection:
            connection.execute("BEGIN")
            populate(connection, 10 * destinations)
            connection.execute("UPDATE recipient SET lane = 'd' || (id % ?)", (destinations,))
            names = ["dead", "good", *(f"d{number}" for number in range(destinations))]
            lanes.settle_lanes(connection, names, START)
            connection.execute("COMMIT")
            most, traffic = limits(remote=8, per_lane=4), Traffic()
            first = select_due(connection, START + 10, most, traffic, 10)
            traffic.release(*first.chosen[-1])
            costs.append(steps(connection, 1, most, traffic))
    assert costs[1] <= costs[0] + 20, "a deeper tree, no more"


def steps(
    connection: sqlite3.Connection,
    expected: int,
    most: Limits | None = None,
    traffic: Traffic | None = None,
) -> int:
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    connection.set_progress_handler(count, 1)
    selection = select_due(connection, START + 10, most or limits(), traffic or Traffic(), 10)
    connection.set_progress_handler(None, 1)
    assert len(selection.chosen) == expected
    return counted

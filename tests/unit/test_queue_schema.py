"""The queue's tables: whose are read, and that nothing is scanned."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from restante.queue import (
    QueuedMessage,
    QueueUnusable,
    RecipientState,
    lanes,
    notices,
    rows,
)
from restante.queue.attempts import Record, enter
from restante.queue.handout import Position, select_due, select_overdue
from restante.queue.reader import QueueReader
from restante.queue.schema import VERSION, connect_reader, connect_writer
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits, Traffic
from restante.queue.work import LaneNews
from tests.support.jumping_clock import START
from tests.support.queued import content, envelope, limits


@pytest.mark.parametrize(
    ("version", "why"), [(1, "never released"), (3, "never"), (VERSION + 1, "newer")]
)
def test_a_queue_of_another_version_is_left_alone(tmp_path: Path, version: int, why: str) -> None:
    (tmp_path / "0").mkdir()
    with closing(sqlite3.connect(tmp_path / "0" / "queue.db")) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(QueueUnusable, match=why):
        QueueStore.open(str(tmp_path), 0)
    reader = QueueReader(str(tmp_path))
    assert list(reader.messages()) == []
    with pytest.raises(QueueUnusable, match=why):
        reader.failures.check()
    with closing(sqlite3.connect(tmp_path / "0" / "queue.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)


def test_a_queue_without_tables_is_not_read_before_its_server_has_started(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "queue.db").touch()
    with pytest.raises(QueueUnusable, match="no tables yet"):
        connect_reader(str(tmp_path / "0"))
    connect_writer(str(tmp_path / "0")).close()
    connect_reader(str(tmp_path / "0")).close()


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
    select_overdue(connection, "dead", now, (START, 0.0), Position(0.0), [], 10)
    select_overdue(connection, "dead", now, (START, 0.0), Position(0.0), [(0.0, 1.0)], 10)
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

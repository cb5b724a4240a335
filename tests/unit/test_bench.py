"""The bench's own arithmetic: a figure that is wrong here is wrong in every table."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import AsyncMock, MagicMock

import pytest

from bench.__main__ import BENCHES, main
from bench.accounts import (
    Accounts,
    insertions,
    maildir_of,
    name_of,
    peer_rows,
    restante_rows,
)
from bench.arena import Options
from bench.benches import idle, queue
from bench.benches.growth import FEW, MANY
from bench.calls import parse, syncs
from bench.figures import Better, Goal, Row, Series, ratio, verdict
from bench.goals import GOALS, judge
from bench.processes import ProcessTrees
from bench.programs import generator
from bench.results import Results
from bench.rounds import Entrant, Turns, take_turns
from bench.table import render

STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.31    0.012345         123       100         3 fdatasync
 20.00    0.004000          40       100           fsync
 18.69    0.003700           1      3000           read
------ ----------- ----------- --------- --------- ----------------
100.00    0.020045           6      3200         3 total
"""


def row(
    own: tuple[float, ...],
    *others: tuple[str, tuple[float, ...]],
    better: Better = Better.MORE,
    key: str = "x/y",
) -> Row:
    series = [Series("restante", own), *(Series(name, values) for name, values in others)]
    return Row(key, "work", "messages/s", better, series)


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine is half as fast in the second round, and three times as fast in the third.
    own, other = Series("a", (300, 150, 900)), Series("b", (100, 50, 300))
    assert ratio(own, other, Better.MORE) == 3
    assert ratio(own, other, Better.LESS) == pytest.approx(1 / 3)


def test_a_ratio_of_unequal_rounds_is_of_the_medians() -> None:
    assert ratio(Series("a", (1, 2, 3)), Series("b", (1,)), Better.MORE) == 2


def test_the_best_of_the_peers_counts() -> None:
    goal = Goal(2, 3, "postfix")
    rates = row((900,), ("postfix mysql:", (300,)), ("postfix proxy:", (400,)), ("exim", (890,)))
    judged = verdict(rates, goal)
    assert judged is not None
    assert (judged.entrant, judged.reached, judged.result) == ("postfix proxy:", 2.25, "floor")
    times = row((1,), ("postfix a", (3,)), ("postfix b", (4,)), better=Better.LESS)
    judged = verdict(times, goal)
    assert judged is not None
    assert (judged.entrant, judged.reached, judged.result) == ("postfix a", 3, "aim")


@pytest.mark.parametrize(
    ("value", "better", "result"),
    [
        (0.4, Better.LESS, "aim"),
        (0.5, Better.LESS, "aim"),
        (1.2, Better.LESS, "floor"),
        (1.6, Better.LESS, "missed"),
    ],
)
def test_a_limit_is_in_the_unit_of_the_row(value: float, better: Better, result: str) -> None:
    judged = verdict(row((value,), better=better), Goal(1.5, 0.5))
    assert judged is not None
    assert (judged.result, judged.reached) == (result, value)


def test_without_the_peer_there_is_no_verdict() -> None:
    assert verdict(row((900,), ("exim", (1,))), Goal(2, 3, "postfix")) is None


def test_system_calls_are_read_from_the_table_of_strace() -> None:
    calls = parse(STRACE)
    assert calls == {"fdatasync": 100, "fsync": 100, "read": 3000}
    assert syncs(calls) == 200


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], (2000, 4000, 4000)),
        (["--quick"], (500, 1000, 3000)),
        (["--quick", "--messages", "200"], (100, 200, 200)),
    ],
)
def test_bursts_of_many_sessions_are_long(
    arguments: list[str], messages: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Options] = []
    monkeypatch.setattr("sys.argv", ["restante-bench", *arguments, "mailboxes"])
    monkeypatch.setattr("bench.__main__.run", lambda options, _benches: asked.append(options))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    main()
    assert tuple(asked[0].messages_by(sessions) for sessions in (1, 10, 50)) == messages


def test_what_sessions_add_is_told_by_the_memory_before_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The processes of the first round's sessions stay.
    mebibytes = iter([10.0, 110.0, 90.0, 120.0])
    slept: list[float] = []
    for name, stub in {"memory": lambda _: next(mebibytes), "Reader": MagicMock()}.items():
        monkeypatch.setattr(idle, name, stub)
    monkeypatch.setattr("time.sleep", slept.append)
    rows: list[Row] = []
    options = Options(rounds=2, workers=2, messages=100, against=())
    arena = MagicMock(options=options, add=rows.append)
    arena.pop3_hosts.return_value = [MagicMock(components=["server"])]
    idle.run(arena)
    assert {each.key: each.series[0].values for each in rows} == {
        "idle/1000": (110, 120),
        "idle/1000-alone": (100, 110),
    }
    assert min(slept) > 30


def test_all_take_turns_and_warm_up_before() -> None:
    done: list[tuple[str, int]] = []

    def work(name: str, units: int) -> float:
        done.append((name, units))
        return 2.0

    nothing = ProcessTrees("nothing")
    entrants = [Entrant(name, [nothing], nothing, partial(work, name)) for name in "ab"]
    series, machine = take_turns(entrants, Turns(10, rounds=2, warm_up=3, settle=0))
    assert done == [("a", 3), ("b", 3), *[("a", 10), ("b", 10)] * 2]
    assert [each.values for each in series] == [(5.0, 5.0)] * 2
    assert len(machine) == 2
    assert min(machine) > 0
    series, _ = take_turns(entrants[:1], Turns(10, rounds=1, seconds_for=1, settle=0))
    assert series[0].values == (0.2,)


@contextmanager
def arrivals(directory: Path, count: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Watching; it waits for what is missing as soon as its standard input is closed."""
    with subprocess.Popen(
        [generator("arrivals"), str(count), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watcher:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        watcher.stdin.write(f"{directory}\n\n")
        watcher.stdin.flush()
        assert watcher.stdout.readline() == "ready\n"
        yield watcher


def test_arrivals_tells_when_the_last_message_came(tmp_path: Path) -> None:
    with arrivals(tmp_path, 2, 60) as watcher:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        (tmp_path / "made").touch()
        watcher.stdin.close()
        between = time.monotonic()
        (tmp_path / "made").rename(tmp_path / "named")
        count, last = watcher.stdout.readline().split()
        assert (count, between < float(last) < time.monotonic()) == ("2", True)
    assert watcher.returncode == 0


def test_arrivals_says_how_many_are_missing(tmp_path: Path) -> None:
    with arrivals(tmp_path, 2, 0.05) as watcher:
        (tmp_path / "made").touch()
        output, _ = watcher.communicate()
    assert (watcher.returncode, output.split()[0]) == (1, "1")


def test_arrivals_sleeps_while_messages_are_sent(tmp_path: Path) -> None:
    with arrivals(tmp_path, 20, 60) as watcher:
        time.sleep(0.05)
        before = _waits(watcher.pid)
        for number in range(20):
            (tmp_path / str(number)).touch()
            time.sleep(0.005)
        assert _waits(watcher.pid) - before <= 1  # it looks once a second
        output, _ = watcher.communicate()
    assert (watcher.returncode, output.split()[0]) == (0, "20")


def test_arrivals_does_not_count_on_when_events_were_lost(tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 100_000:
        pytest.skip("the kernel keeps very many events")
    with arrivals(tmp_path, 1, 60) as watcher:
        (tmp_path / "0").touch()
        watcher.send_signal(signal.SIGSTOP)
        for number in range(most):  # two alike in a row would be one event
            (tmp_path / str(number % 2)).rename(tmp_path / str((number + 1) % 2))
        watcher.send_signal(signal.SIGCONT)
        _, faults = watcher.communicate()
    assert (watcher.returncode, "max_queued_events" in faults) == (2, True)


def _waits(pid: int) -> int:
    """How often a process has slept so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_all_systems_have_the_same_accounts(tmp_path: Path) -> None:
    accounts = Accounts(12)
    own, peers = restante_rows(accounts, tmp_path, 7, 8), peer_rows(accounts)
    homes = {row[0]: f"{row[3]}/Maildir" for row in own["mailbox"]}
    theirs = {row[0]: str(tmp_path / str(row[2])) for row in peers["mailboxes"]}
    assert homes == theirs
    assert homes["3@bench.test"] == str(maildir_of(tmp_path, 3))
    aliases = {f"{row[2]}@{row[3]}" for row in own["alias"]}
    assert aliases == {row[1] for row in peers["aliases"]} == set(homes) - {"0@bench.test"}


@pytest.mark.parametrize("number", ["{0}{1}", "{1}{0}"], ids=["before the name", "behind it"])
def test_whom_several_sources_reach_is_watched(number: str) -> None:
    names = {number.format(n, name) for name in MANY.names for n in range(1, 21)}
    assert names <= {name_of(each) for each in MANY.mailboxes(20)}
    assert len(names) > 15 * len(MANY.names)  # hardly any is reached by two
    assert {name_of(each) for each in FEW.mailboxes(20)} == set(FEW.names)


def test_a_literal_cannot_end_early() -> None:
    statement = next(iter(insertions({"rcpthosts": [("it's",)]})))
    assert statement == "INSERT INTO `rcpthosts` (host) VALUES ('it''s');\n"


def test_results_are_written_with_their_verdict(tmp_path: Path) -> None:
    results = Results({"host": "here"}, {"postfix": "3.7"}, {"rounds": 1})
    results.rows.append(row((300, 310), ("postfix x", (100, 100)), key="mailboxes/4k-50"))
    path = results.write(tmp_path)
    found = json.loads(path.read_text())
    assert json.loads((tmp_path / "latest.json").read_text()) == found
    assert found["versions"]["postfix"] == "3.7"
    (written,) = found["rows"]
    assert written["series"][0]["median"] == 305
    assert written["goal"]["result"] == "missed"
    assert written["goal"]["goal"] == {"floor": 6, "aim": 10, "against": "postfix"}
    assert [each.key for each in results.missed()] == ["mailboxes/4k-50"]
    results.write(tmp_path)  # once more, over what is there


def test_smaller_work_than_its_goals_is_not_judged() -> None:
    less = replace(row((1,), ("an empty queue", (100,)), key="queue/add"), judged=False)
    assert judge(replace(less, judged=True)) is not None
    assert judge(less) is None


def test_a_row_is_readable() -> None:
    shown = row((1200,), ("postfix x", (100,)), key="mailboxes/4k-50")
    lines = render(shown, verdict(shown, GOALS[shown.key])).splitlines()
    assert lines[0] == "work  [mailboxes/4k-50]"
    assert lines[1].split() == ["restante", "1,200", "messages/s", "(1,200", "to", "1,200)"]
    assert lines[2].endswith(" 0.0833x")
    assert lines[3].strip() == "12x postfix x (floor 6x, aim 10x): aim met"


STARTING = (
    *("fill", "restante", "postfix", "prepared", "program", "free_port"),
    *("acquaint", "_sink", "sqlite_file", "mariadb_urls", "open_directory_engine"),
)
"""What benches have from elsewhere that starts something, or writes much."""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("name", sorted({key.partition("/")[0] for key in GOALS}))
def test_every_goal_belongs_to_a_row(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = BENCHES[name].run
    if name == "queue":
        monkeypatch.setattr(queue, "MESSAGES", 200)
        monkeypatch.setattr(queue, "ROUNDS", 1)
    else:
        for function in STARTING:
            monkeypatch.setattr(f"{run.__module__}.{function}", MagicMock(), raising=False)
        monkeypatch.setattr("bench.benches.lookups.SqlDirectory", lambda _engine: AsyncMock())
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr("bench.benches.idle.AT_REST", 0)
    keys: list[str] = []
    arena = MagicMock(
        options=Options(rounds=0, workers=2, messages=100, against=("postfix", "dovecot")),
        directory=lambda directory: tmp_path / directory,
        measure=lambda key, *_, **__: keys.append(key),
        add=lambda row: keys.append(row.key),
    )
    arena.pop3_hosts.return_value = arena.mail_hosts.return_value = [MagicMock(), MagicMock()]
    run(arena)
    assert {key for key in GOALS if key.startswith(f"{name}/")} <= set(keys)

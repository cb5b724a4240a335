"""kill -9 while lists are obeyed: what was recorded is not done again, and nothing is left out."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance, until
from tests.support.owner import AS_ROOT, owner, owners_home
from tests.support.serving import ANN, add_accounts, configure, deliver, start

ADDRESS = "iain@example.com"
STEPS = ("a", "b", "c")
AT_ONCE = 5
"""Programs of one account that run at the same time (a quarter of queue.concurrencyprograms)."""


@contextlib.contextmanager
def instance_in(directory: Path, lines: list[str]) -> Iterator[tuple[Instance, Path]]:
    """An instance that is not started, and the home of iain, who has these instructions."""
    with owners_home() as home, new_instance(directory, domains=()) as instance:
        add_accounts(instance)
        iain = owner(home)
        with contextlib.closing(sqlite3.connect(directory / "restante.db")) as rows:
            rows.execute(
                "UPDATE mailbox SET home = ?, uid = ?, gid = ? WHERE username = ?",
                (str(home), iain.uid, iain.gid, ADDRESS),
            )
            rows.executemany(
                f"INSERT INTO alias VALUES ('{ADDRESS}', '', ?, '')", [(line,) for line in lines]
            )
            rows.commit()
        programs = {"run_as_server_user": not AS_ROOT}
        configure(instance, {"programs": programs, "queue": {"concurrencyprograms": 4 * AT_ONCE}})
        yield instance, home


def settled(instance: Instance) -> bool:
    return not instance.queued()


def note(step: str) -> str:
    """A program that notes the message's token, and itself."""
    return f"|echo {step} $(sed -n 's/^X-Token: //p') >> log"


def token(name: str) -> bytes:
    return f"X-Token: {name}\r\n\r\nHello.\r\n".encode()


def test_a_kill_between_attempts_leaves_what_is_left(tmp_path: Path) -> None:
    lines = [note("a"), "|test -e mended || exit 111", f"&{ANN}", note("c")]
    with instance_in(tmp_path / "instance", lines) as (instance, home):
        start(instance)
        assert deliver(instance.smtp_port, ADDRESS, token("1")).startswith("250 ")
        until(lambda: "event=deferred" in instance.log(), "a program that fails for now")
        instance.kill()
        (home / "mended").touch()
        instance.here("queue", "retry", "--all")
        instance.start()
        until(lambda: settled(instance), "an end")
        assert (home / "log").read_text() == "a 1\nc 1\n"
        assert len(instance.messages(ANN)) == 1


def test_a_kill_while_a_program_runs_repeats_that_program_alone(tmp_path: Path) -> None:
    lines = [note("a"), "|echo b >> log; test -e killed || sleep 60", note("c")]
    with instance_in(tmp_path / "instance", lines) as (instance, home):
        start(instance)
        assert deliver(instance.smtp_port, ADDRESS, token("1")).startswith("250 ")
        log = home / "log"
        until(lambda: log.exists() and "b\n" in log.read_text(), "the second program running")
        instance.kill()
        (home / "killed").touch()
        instance.start()
        until(lambda: settled(instance), "an end")
        assert log.read_text() == "a 1\nb\nb\nc 1\n"


def kill_rounds(directory: Path, rounds: int, seed: int) -> None:
    """Messages, kills, starts; then every list was obeyed, in its order, with few repetitions."""
    chance = random.Random(seed)
    sent: list[str] = []
    with instance_in(directory, [note(step) for step in STEPS] + [f"&{ANN}"]) as (instance, home):
        for number in range(rounds):
            start(instance)
            for count in range(2 * AT_ONCE):
                name = f"{number}-{count}"
                assert deliver(instance.smtp_port, ADDRESS, token(name)).startswith("250 ")
                sent.append(name)
            time.sleep(chance.uniform(0, 0.3))
            instance.kill()
        instance.start()
        until(lambda: settled(instance), "an end")
        forwarded = instance.messages(ANN)
        done: dict[str, list[str]] = defaultdict(list)
        for line in (home / "log").read_text().splitlines():
            step, name = line.split()
            done[name].append(step)
    assert done.keys() == set(sent)
    in_order = {name: tuple(step for step, _ in itertools.groupby(done[name])) for name in sent}
    assert in_order == dict.fromkeys(sent, STEPS), "all of it, and nothing again that was recorded"
    repetitions = sum(len(steps) - len(STEPS) for steps in done.values())
    assert repetitions <= rounds * AT_ONCE, "at most what was in flight at each kill"
    assert len(forwarded) == len(sent)


def test_every_list_is_obeyed_to_its_end(tmp_path: Path) -> None:
    kill_rounds(tmp_path / "instance", 3, 1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_every_list_is_obeyed_to_its_end_however_often_it_is_killed(
    tmp_path: Path, seed: int
) -> None:
    kill_rounds(tmp_path / "instance", 15, seed)

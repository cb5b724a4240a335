"""What accounts have sent is counted by sliding windows, for all processes, and over restarts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from restante.usage import Counts, Limits, UsageUnusable
from restante.usage.file import FILE_NAME, UsageFile
from restante.usage.ledger import UsageLedger
from tests.support.events import capture_logs

ANN, BOB = "ann@example.com", "bob@example.com"
NOON = 1_800_000_000.0
"""At the very beginning of a minute."""
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
FREE = Limits(Counts())


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[UsageLedger]:
    ledger = UsageLedger(str(tmp_path))
    yield ledger
    await ledger.close()


async def test_an_hour_and_a_day_slide(ledger: UsageLedger) -> None:
    await ledger.take(ANN, 3, FREE, NOON)
    await ledger.take(ANN, 1, FREE, NOON + 30 * MINUTE)
    await ledger.take(BOB, 9, FREE, NOON)
    for later, expected in (
        (0.0, Counts(1, 1, 3, 3)),
        (30 * MINUTE, Counts(2, 2, 4, 4)),
        (HOUR + 59, Counts(2, 2, 4, 4)),
        (HOUR + MINUTE, Counts(1, 2, 1, 4)),
        (DAY + 59, Counts(0, 2, 0, 4)),
        (DAY + MINUTE, Counts(0, 1, 0, 1)),
        (2 * DAY, Counts()),
    ):
        assert await ledger.spent(ANN, NOON + later) == expected, later


@pytest.mark.parametrize(
    ("allowed", "limit"),
    [
        (Counts(messages_per_hour=2), "messages_per_hour"),
        (Counts(messages_per_day=2), "messages_per_day"),
        (Counts(recipients_per_hour=7), "recipients_per_hour"),
        (Counts(recipients_per_day=7), "recipients_per_day"),
    ],
)
async def test_each_limit_holds_and_what_it_refuses_is_not_counted(
    ledger: UsageLedger, allowed: Counts, limit: str
) -> None:
    limits = Limits(allowed)
    assert await ledger.take(ANN, 3, limits, NOON) == ""
    assert await ledger.take(ANN, 4, limits, NOON) == ""
    for _ in range(3):
        assert await ledger.take(ANN, 1, limits, NOON) == limit
    assert await ledger.spent(ANN, NOON) == Counts(2, 2, 7, 7)
    assert await ledger.take(BOB, 3, limits, NOON) == ""
    over = NOON + (HOUR if "hour" in limit else DAY) + MINUTE
    assert await ledger.take(ANN, 1, limits, over - 1) == limit
    assert await ledger.take(ANN, 1, limits, over) == ""


async def test_what_is_given_back_counts_no_more(ledger: UsageLedger) -> None:
    await ledger.take(ANN, 3, FREE, NOON)
    await ledger.take(ANN, 2, FREE, NOON)
    await ledger.give_back(ANN, 3, NOON)
    assert await ledger.spent(ANN, NOON) == Counts(1, 1, 2, 2)


async def test_sessions_at_the_same_moment_do_not_exceed_a_limit_together(
    ledger: UsageLedger,
) -> None:
    limits = Limits(Counts(messages_per_hour=10))
    answers = await asyncio.gather(*(ledger.take(ANN, 1, limits, NOON) for _ in range(50)))
    assert answers.count("") == 10


async def test_a_clock_that_was_wrong_holds_nobody_up(ledger: UsageLedger) -> None:
    """A year ahead for a while: neither then nor when that moment comes does it count."""
    limits = Limits(Counts(messages_per_hour=1))
    year = 365 * DAY
    assert await ledger.take(ANN, 1, limits, NOON + year) == ""
    assert await ledger.take(ANN, 1, limits, NOON) == ""
    assert await ledger.spent(ANN, NOON + year) == Counts()


async def test_what_no_window_reaches_is_removed(ledger: UsageLedger, tmp_path: Path) -> None:
    for number in range(100):
        await ledger.take(f"user{number}", 1, FREE, NOON)
    await ledger.take(ANN, 1, FREE, NOON + 2 * DAY)
    file = UsageFile.open(str(tmp_path / FILE_NAME), create=False)
    try:
        assert [each.account for each in file.everybody(NOON)] == []
        assert [each.account for each in file.everybody(NOON + 2 * DAY)] == [ANN]
    finally:
        file.close()


_WORKER = """
import asyncio, sys
from restante.usage import Counts, Limits
from restante.usage.ledger import UsageLedger

async def main() -> None:
    ledger = UsageLedger(sys.argv[1])
    limits = Limits(Counts(recipients_per_day=300))
    sys.stdin.readline()
    answers = await asyncio.gather(
        *(ledger.take("ann@example.com", 2, limits, 1_800_000_000.0) for _ in range(200))
    )
    print(answers.count(""))
    await ledger.close()

asyncio.run(main())
"""


def test_processes_count_together_and_restarts_forget_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WORKER, str(tmp_path)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for worker in workers:  # all of them make the file at the same moment
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    taken = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sum(taken) == 150
    file = UsageFile.open(str(tmp_path / FILE_NAME), create=False)
    assert file.spent(ANN, NOON) == Counts(150, 150, 300, 300)
    file.close()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_a_file_that_fails_is_said_once_and_mends_itself(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    ledger = UsageLedger(str(directory))
    with capture_logs() as events:
        for _ in range(2):
            with pytest.raises(UsageUnusable, match=r"usage\.db cannot be used"):
                await ledger.spent(ANN, NOON)
        directory.mkdir()
        (directory / FILE_NAME).write_bytes(b"this is no database " * 100)
        with pytest.raises(UsageUnusable):
            await ledger.take(ANN, 1, FREE, NOON)
        os.unlink(directory / FILE_NAME)
        assert await ledger.take(ANN, 1, FREE, NOON) == ""
    assert [event["event"] for event in events] == ["usage_failed"]
    await ledger.close()


def test_an_operators_command_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageUnusable):
        UsageFile.open(str(tmp_path / FILE_NAME), create=False)
    assert list(tmp_path.iterdir()) == []


def test_resetting_one_account(tmp_path: Path) -> None:
    file = UsageFile.open(str(tmp_path / FILE_NAME), create=True)
    try:
        for account in (ANN, BOB):
            with file.transaction():
                file.take(account, 1, FREE, NOON)
        assert file.reset(ANN)
        assert not file.reset("nobody")
        assert [each.account for each in file.everybody(NOON)] == [BOB]
    finally:
        file.close()

"""Mboxes and programs for an event loop: several at once, a bounded number, and an end to all."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from restante.config.tree import Programs
from restante.helper import messages
from restante.mda import MboxDelivery, ProgramDelivery, Ran, acts, program
from restante.mda.acts import Acts
from restante.mda.answers import Policy
from restante.routing import instructions
from restante.status import Delivered, Outcome, TemporaryFailure
from tests.support.deliveries import CONTENT, GROUP, HOST, OWNER, envelope
from tests.support.no_threads import no_more_threads
from tests.support.owner import as_owner, owner, owners_home

ADDRESSES = ("iain@example.com",)
_T = TypeVar("_T")


@pytest.fixture
def home() -> Iterator[Path]:
    with owners_home() as found:
        yield found


def as_owners_loop(work: Callable[[Acts], Awaitable[_T]]) -> _T:
    """What ``work`` returns, in a loop of the owner's."""

    async def with_acts() -> _T:
        acting = Acts(Policy(HOST, 100, 1), Programs(), is_server=False)
        try:
            return await work(acting)
        finally:
            await acting.close()

    return as_owner(lambda: asyncio.run(with_acts()))


def command(home: Path, text: str) -> ProgramDelivery:
    return ProgramDelivery(text, owner(home), ADDRESSES, "iain")


def mbox(home: Path) -> MboxDelivery:
    return MboxDelivery(str(home / "Mailbox"), owner(home), ADDRESSES)


async def until(home: Path, *names: str) -> None:
    while not all((home / name).exists() for name in names):  # noqa: ASYNC110 - made by processes
        await asyncio.sleep(0.01)


def detail_of(outcome: Outcome) -> str:
    assert isinstance(outcome, TemporaryFailure)
    return outcome.detail


def test_programs_run_beside_each_other(home: Path) -> None:
    """Each waits for all the others to have begun."""
    script = "echo >{0}; while ! [ -e 0 -a -e 1 -a -e 2 -a -e 3 ]; do sleep 0.02; done"
    programs = [command(home, script.format(number)) for number in range(4)]

    async def run_all(acting: Acts) -> list[Ran]:
        return await asyncio.gather(*(acting.run(envelope(), CONTENT, each) for each in programs))

    assert all(isinstance(ran.outcome, Delivered) for ran in as_owners_loop(run_all))


def test_a_command_of_the_longest_kind_runs_and_its_beginning_is_logged(home: Path) -> None:
    text = "touch ran; exit 111; : ".ljust(instructions.MAX_COMMAND, "x")

    async def run(acting: Acts) -> Ran:
        return await acting.run(envelope(), CONTENT, command(home, text))

    assert detail_of(as_owners_loop(run).outcome) == f"|{text[:1000]}...: exit 111"
    assert (home / "ran").exists()
    assert len(text) <= messages.MAX_COMMAND


def test_so_many_at_once_and_no_more(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "MAX_PROGRAMS", 2)
    script = "mkdir run-$$; ls -d run-* | wc -l >>counts; sleep 0.1; rmdir run-$$"

    async def run_all(acting: Acts) -> None:
        one = command(home, script)
        await asyncio.gather(*(acting.run(envelope(), CONTENT, one) for _ in range(6)))

    as_owners_loop(run_all)
    counts = [int(line) for line in (home / "counts").read_text().split()]
    assert len(counts) == 6
    assert max(counts) <= 2


def test_appends_are_all_there(home: Path) -> None:
    async def append_all(acting: Acts) -> list[Outcome]:
        one = mbox(home)
        contents = [
            replace(CONTENT, trace=b"X-Number: %d\n" % n + CONTENT.trace) for n in range(20)
        ]
        appending = (
            acting.append(envelope(n), content, one, again=False)
            for n, content in enumerate(contents)
        )
        return await asyncio.gather(*appending)

    assert as_owners_loop(append_all) == [Delivered(str(home / "Mailbox"))] * 20
    assert (home / "Mailbox").read_bytes().count(b"\n\nFrom paul@example.org ") == 19


def test_close_ends_what_runs_and_begins_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "MAX_PROGRAMS", 1)
    monkeypatch.setattr(program, "KILL_AFTER", 0.2)

    async def close_amid(acting: Acts) -> tuple[Ran, Ran, Ran, Outcome]:
        first = asyncio.create_task(
            acting.run(envelope(), CONTENT, command(home, "echo >begun; exec sleep 1000"))
        )
        second = asyncio.create_task(acting.run(envelope(), CONTENT, command(home, "echo >second")))
        await until(home, "begun")
        await acting.close()
        await acting.close()
        late = await acting.run(envelope(), CONTENT, command(home, "echo >late"))
        appended = await acting.append(envelope(), CONTENT, mbox(home), again=False)
        return await first, await second, late, appended

    first, second, late, appended = as_owners_loop(close_amid)
    assert "the server stops: killed by SIGTERM" in detail_of(first.outcome)
    for outcome in (second.outcome, late.outcome, appended):
        assert isinstance(outcome, TemporaryFailure)
        assert outcome.reply.enhanced == "4.3.2"
    assert os.listdir(home) == ["begun"]


def test_close_does_not_wait_for_others_locks(home: Path) -> None:
    (home / "Mailbox").touch(mode=0o600)
    os.chown(home / "Mailbox", OWNER, GROUP)

    async def close_amid(acting: Acts) -> Outcome:
        waiting = asyncio.create_task(acting.append(envelope(), CONTENT, mbox(home), again=False))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await acting.close()
        return await waiting

    with (home / "Mailbox").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        outcome = as_owners_loop(close_amid)
    assert "another program has locked it" in detail_of(outcome)
    assert (home / "Mailbox").read_bytes() == b""


def test_a_call_that_is_given_up_does_no_harm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "KILL_AFTER", 0.2)

    async def give_up(acting: Acts) -> Ran:
        running = asyncio.create_task(
            acting.run(envelope(), CONTENT, command(home, "echo >begun; exec sleep 1000"))
        )
        await until(home, "begun")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return await acting.run(envelope(), CONTENT, command(home, "true"))

    assert isinstance(as_owners_loop(give_up).outcome, Delivered)


def test_what_no_thread_could_be_started_for_is_done_once_when_it_is_tried_again(
    home: Path,
) -> None:
    """Nothing of the first attempt is left for the thread of the second."""

    async def twice(acting: Acts) -> list[Outcome]:
        program, letter = command(home, "echo >>ran"), mbox(home)
        with no_more_threads():
            refused = [
                (await acting.run(envelope(), CONTENT, program)).outcome,
                await acting.append(envelope(), CONTENT, letter, again=False),
            ]
        assert isinstance((await acting.run(envelope(), CONTENT, program)).outcome, Delivered)
        await acting.append(envelope(), CONTENT, letter, again=False)
        return refused

    for outcome in as_owners_loop(twice):
        assert "thread" in detail_of(outcome)
    assert (home / "ran").read_text() == "\n"
    assert (home / "Mailbox").read_bytes().count(b"From paul@example.org ") == 1

"""``restante queue`` retry, hold, release, remove and bounce, with no server running."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from restante.cli.status import ExitCode
from tests.support.shell import Shell
from tests.support.terminal import at_terminal
from tests.support.waiting import (
    Sent,
    Waiting,
    lines,
    put,
    some_mail,
    to,
)


@pytest.fixture
def logged(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """An instance with a log, whether this machine has a syslog or not."""
    monkeypatch.setenv("RESTANTE_LOG__TARGET", "mail.log")
    (hosted.directory / "mail.log").touch()
    return hosted


@pytest.fixture
def waiting(logged: Shell) -> Waiting:
    return some_mail(logged)


def test_verbs_say_what_they_did(waiting: Waiting) -> None:
    shell, here = (
        waiting.shell,
        "No server has the queue just now; the next one that does finds this.\n",
    )
    line = f"{waiting.busy}\tann@example.com\tann@busy.example\n"
    one = "1 message (1 recipient)"

    held = shell("queue", "hold", waiting.busy)
    assert held == (0, line, f"{one} held.\n{here}")
    assert waiting.states()[waiting.busy] == {"held"}
    released = shell("queue", "release", "--to", "busy.example")
    assert released == (0, line, f"{one} released.\n{here}")
    assert waiting.states()[waiting.busy] == {"waiting"}
    retried = shell("queue", "retry", waiting.busy)
    assert retried == (0, line, f"{one} put up for an attempt now.\n{here}")
    assert lines(shell("queue", "list", "--to", "busy.example").out)[0][3] == "now"
    bounced = shell("queue", "bounce", waiting.busy)
    assert bounced == (0, line, f"{one} returned to the sender.\n{here}")
    assert waiting.states()[waiting.busy] == {"failed"}
    removed = shell("queue", "remove", "--to", "dead.example")
    assert removed.err == f"{one} removed.\n{here}"
    assert waiting.dead not in waiting.states()


def test_retry_ends_a_back_off(waiting: Waiting) -> None:
    waiting.shell("queue", "retry", "--lane", "dead.example")

    (recipient,) = waiting.shell.json("queue", "show", waiting.dead)["recipients"]
    assert recipient["left_alone"] is None


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "remove", "bounce"])
def test_dry_run_changes_nothing(waiting: Waiting, verb: str) -> None:
    if verb == "release":
        waiting.shell("queue", "hold", "--all")
    before = waiting.shell("queue", "list", "--json").out

    done = waiting.shell("queue", verb, "--all", "--dry-run")

    assert done.code == 0
    assert "3 messages (3 recipients) would be " in done.err
    assert {line[0] for line in lines(done.out)} == set(waiting.ids)
    assert waiting.shell("queue", "list", "--json").out == before


USAGE: list[tuple[tuple[str, ...], str]] = [
    ((), "say which messages to "),
    (("--all", "someid"), "--all goes with neither"),
    (("--all", "--older", "1h"), "--all goes with neither"),
    (("--older", "2"), "--older: '2' is no span; write 90s"),
    (("--newer", "h"), "--newer: 'h' is no span"),
    (("--to", "a b@x"), "--to: 'a b@x' is neither an address nor a domain"),
    (("--to", ""), "--to: '' is neither"),
    (("--sender", "@"), "--sender: '@' is neither"),
    (("--sender", ""), "--sender is empty; write an address or '<>'"),
    (("--lane", ""), "--lane is empty; write a lane, or local"),
    (("--reason", "", "--to", "dead.example"), "--reason is empty; write a text"),
]


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "remove", "bounce"])
def test_usage(waiting: Waiting, verb: str) -> None:
    for arguments, said in USAGE:
        refused = waiting.shell("queue", verb, *arguments)

        assert refused.code == ExitCode.USAGE
        assert said in " ".join(refused.err.split())
        assert set().union(*waiting.states().values()) == {"waiting"}


def test_an_id_that_is_not_there(waiting: Waiting) -> None:
    done = waiting.shell("queue", "remove", "nothing", waiting.busy)

    assert done.code == ExitCode.REFUSED
    assert done.err.endswith(
        "\nrestante: no queue has a message 'nothing'; it may have been delivered by now\n"
    )
    assert waiting.busy not in waiting.states()


def test_an_id_for_which_there_is_nothing_to_do(waiting: Waiting) -> None:
    done = waiting.shell("queue", "release", waiting.busy)

    assert done.code == ExitCode.REFUSED
    assert done.err.startswith(f"restante: {waiting.busy}: nothing of it is held; ")


@pytest.mark.parametrize("verb", ["retry", "hold"])
def test_an_id_that_is_held(waiting: Waiting, verb: str) -> None:
    waiting.shell("queue", "hold", waiting.busy)

    done = waiting.shell("queue", verb, waiting.busy)

    assert done.code == ExitCode.REFUSED
    assert done.err == (
        f"restante: {waiting.busy} is held; restante queue release {waiting.busy} lets it go on\n"
    )


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        ("retry", "waits"),
        ("hold", "waits"),
        ("release", "is held"),
        ("remove", "waits or is held"),
        ("bounce", "waits or is held"),
    ],
)
@pytest.mark.parametrize("is_held", [False, True])
def test_an_id_of_which_the_filters_leave_nothing(
    waiting: Waiting, verb: str, state: str, is_held: bool
) -> None:
    if is_held:
        waiting.shell("queue", "hold", waiting.busy)
    before = waiting.states()

    done = waiting.shell("queue", verb, waiting.busy, "--to", "anne@busy.example")

    assert done.code == ExitCode.REFUSED
    assert done.err == (
        f"restante: {waiting.busy}: nothing of it that {state} matches; "
        f"restante queue show {waiting.busy} tells more\n"
    )
    assert waiting.states() == before


def test_what_was_done_stands_in_the_log_that_is_there(waiting: Waiting) -> None:
    log = waiting.shell.directory / "mail.log"
    log.unlink()
    unlogged = waiting.shell("queue", "retry", waiting.busy, waiting.dead)
    assert unlogged.err.startswith(
        f"restante: what is done now is not logged: log.target: there is no {log} now\n2 messages"
    )
    assert not log.exists()
    assert "not logged" not in waiting.shell("queue", "hold", waiting.busy, "--dry-run").err
    log.touch()
    waiting.shell("queue", "hold", waiting.busy, "--dry-run")
    waiting.shell("queue", "remove", waiting.busy)

    (line,) = log.read_text().splitlines()
    assert line.split(" ", 1)[1] == (
        f"level=info event=operated id={waiting.busy} change=remove "
        f"recipients=ann@busy.example uid={os.getuid()}"
    )


def test_of_many_recipients_every_one_stands_in_the_log(logged: Shell) -> None:
    """In lines of which none is cut, however long the addresses are."""
    domain = ".".join([63 * "x", 63 * "y", 63 * "z", "example"])
    many = [f"{number:03}{125 * 'a'}@{domain}" for number in range(35)]
    put(logged, 0, [Sent(tuple(each for one in many for each in to(one)), 0)])

    logged("queue", "remove", "--all", "--yes")

    log = (logged.directory / "mail.log").read_text().splitlines()
    told = [line.partition('recipients="')[2].partition('"')[0].split("; ") for line in log]
    assert [len(each) for each in told] == [15, 15, 5]
    assert [each for line in told for each in line] == many


def test_where_standard_error_is_the_log_and_there_is_no_syslog(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_LOG__TARGET", "stderr")
    monkeypatch.setattr("restante.cli.queues.journal.SYSLOG_SOCKET", "/none")

    done = waiting.shell("queue", "remove", waiting.busy)

    assert done.err.startswith(
        "restante: what is done now is not logged: log.target is stderr, and there is no syslog at "
        "/none\n"
    )
    assert waiting.busy not in waiting.states()


def test_a_log_that_fails_keeps_nothing_from_being_done(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_LOG__TARGET", "mail")
    done = waiting.shell("queue", "remove", waiting.busy)

    assert done.code == 0
    assert "what is done now is not logged: " in done.err
    assert waiting.busy not in waiting.states()


def test_lines_that_the_log_does_not_take_are_counted(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_LOG__TARGET", "/dev/full")
    done = waiting.shell("queue", "remove", waiting.busy, waiting.dead)

    assert done.code == 0
    assert "\nrestante: 2 lines of what was done could not be logged\n" in done.err


def test_nothing_matches(waiting: Waiting) -> None:
    done = waiting.shell("queue", "remove", "--to", "x.example", "--yes")

    assert (done.code, done.out) == (0, "")
    assert done.err == "Nothing that waits or is held matches; nothing was changed.\n"


@pytest.mark.parametrize("verb", ["remove", "bounce"])
def test_what_cannot_be_undone_is_refused_without_a_terminal(waiting: Waiting, verb: str) -> None:
    refused = waiting.shell("queue", verb, "--sender", "example.com")

    assert refused.code == ExitCode.REFUSED
    assert refused.out == ""
    assert "2 messages (2 recipients)" in refused.err
    assert "--yes" in refused.err
    assert set().union(*waiting.states().values()) == {"waiting"}


@pytest.mark.parametrize(
    "arguments",
    [("--sender", "example.com", "--yes"), ("--all", "--yes")],
)
def test_yes_is_enough(waiting: Waiting, arguments: tuple[str, ...]) -> None:
    done = waiting.shell("queue", "remove", *arguments)

    assert done.code == 0
    assert waiting.dead not in waiting.states()


def test_several_ids_are_meant(waiting: Waiting) -> None:
    assert waiting.shell("queue", "remove", waiting.dead, waiting.busy).code == 0
    assert waiting.states().keys() == {waiting.bounce}


def test_a_terminal_is_asked(waiting: Waiting) -> None:
    remove = "queue", "remove", "--sender", "example.com"

    refused = at_terminal(waiting.shell.directory, *remove, typed="n\n")
    assert refused.code == ExitCode.REFUSED
    assert "2 messages (2 recipients)? [y/N]" in refused.screen
    assert len(waiting.states()) == 3
    agreed = at_terminal(waiting.shell.directory, *remove, typed="y\n")
    assert agreed.code == 0
    assert waiting.states().keys() == {waiting.bounce}


def test_a_terminal_is_told_of_some(logged: Shell) -> None:
    put(logged, 0, [Sent(to(f"a{number}@x.example"), 0) for number in range(25)])

    shown = at_terminal(logged.directory, "queue", "hold", "--all").screen.splitlines()

    assert len(shown) == 23
    assert shown[20:] == [
        "... and 5 more",
        "25 messages (25 recipients) held.",
        "No server has the queue just now; the next one that does finds this.",
    ]


@pytest.mark.parametrize("by_link", [False, True])
def test_ids_that_a_worker_made_up_lead_root_nowhere(
    waiting: Waiting, tmp_path: Path, *, by_link: bool
) -> None:
    """The database is the workers': who took one over writes anything into it."""
    victim = tmp_path / "victim"
    victim.touch()
    slot = waiting.shell.directory / "queue" / "0"
    made_up = str(victim)
    if by_link:
        (slot / "bodies").rmdir()
        (slot / "bodies").symlink_to(tmp_path)
        made_up = victim.name
    with closing(sqlite3.connect(slot / "queue.db")) as database, database:
        for table in ("message", "recipient"):
            database.execute(
                f"UPDATE {table} SET queue_id = ? WHERE queue_id = ?", (made_up, waiting.busy)
            )

    assert waiting.shell("queue", "remove", "--all", "--yes").code == 0
    assert victim.exists() == (not by_link or os.geteuid() == 0)


def test_an_id_is_no_path(waiting: Waiting) -> None:
    shown = waiting.shell("queue", "show", "../queue.db", "--body")
    assert (shown.code, shown.err) == (1, "restante: '../queue.db' is no queue id\n")

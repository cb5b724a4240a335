"""``restante queue``: what it prints and refuses, with no server running."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from restante.address import Address
from restante.cli.status import ExitCode
from restante.queue import LastAnswer, Target
from restante.queue.bodies import IN_ROW
from restante.status import Peer, Reply
from tests.support.shell import Shell
from tests.support.terminal import at_terminal
from tests.support.waiting import (
    BODY,
    BUSY,
    GREYLISTED,
    HEADER,
    HOUR,
    TIMED_OUT,
    Sent,
    Waiting,
    lines,
    put,
    some_mail,
    to,
)

SILENT = Reply(451, "4.2", "no reply")


@pytest.fixture
def waiting(hosted: Shell) -> Waiting:
    return some_mail(hosted)


# list


def test_list_in_a_pipe(waiting: Waiting) -> None:
    listed = waiting.shell("queue", "list")

    assert (listed.code, listed.err) == (0, "")
    dead, busy, bounce = lines(listed.out)
    assert [dead[0], busy[0], bounce[0]] == waiting.ids
    assert dead[1:3] == ["2d", str(len(b"Received: here\n" + HEADER + b"\n" + BODY))]
    assert dead[4:] == ["ann@example.com", "bob@dead.example", TIMED_OUT]
    assert busy[4:] == ["ann@example.com", "ann@busy.example", str(GREYLISTED)]
    assert bounce[3:] == ["now", "<>", "iain@example.com", ""]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("--to busy.example", ["busy"]),
        ("--recipient-domain @BUSY.example", ["busy"]),
        ("-t bob@dead.example", ["dead"]),
        ("--sender example.com", ["dead", "busy"]),
        ("--sender <>", ["bounce"]),
        ("--older 1h", ["dead", "busy"]),
        ("--older 1d12h", ["dead"]),
        ("--newer 90m", ["bounce"]),
        ("--older 1h --newer 1w --sender ann@example.com --to dead.example", ["dead"]),
        ("--reason greylisted", ["busy"]),
        ("--reason 4.2.0", ["busy"]),
        ("--reason timed", ["dead"]),
        ("--lane dead.example", ["dead"]),
        ("--lane local", ["bounce"]),
        ("--state waiting", ["dead", "busy", "bounce"]),
        ("--state held", []),
        ("--limit 0", ["dead", "busy", "bounce"]),
    ],
)
def test_list_filters(waiting: Waiting, filters: str, expected: list[str]) -> None:
    listed = waiting.shell("queue", "list", *filters.split())

    assert (listed.code, listed.err) == (0, "")
    assert [line[0] for line in lines(listed.out)] == [getattr(waiting, each) for each in expected]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("", ["now", "bob@busy.example ann@slow.example", str(GREYLISTED)]),
        ("--to busy.example", ["now", "bob@busy.example", str(GREYLISTED)]),
        ("--lane busy.example", ["now", "bob@busy.example", str(GREYLISTED)]),
        ("--reason greylisted", ["now", "bob@busy.example", str(GREYLISTED)]),
        ("--reason reply", ["held", "ann@slow.example", str(SILENT)]),
        ("--lane slow.example", ["held", "ann@slow.example", str(SILENT)]),
        ("--state held", ["held", "ann@slow.example", str(SILENT)]),
        ("--state waiting", ["now", "bob@busy.example", str(GREYLISTED)]),
    ],
)
def test_list_shows_the_recipients_that_are_selected(
    hosted: Shell, filters: str, expected: list[str]
) -> None:
    slow, busy = "ann@slow.example", "bob@busy.example"
    targets = (*to(slow, "slow.example"), *to(busy, "busy.example"))
    answers = {
        "slow.example": LastAnswer(SILENT, "", None, 1.0),
        "busy.example": LastAnswer(GREYLISTED, "", BUSY, 1.0),
    }
    (queue_id,) = put(hosted, 0, [Sent(targets, HOUR, by_lane=answers)])
    hosted("queue", "hold", "--to", slow)
    hosted("queue", "retry", "--to", busy)
    words = filters.split()

    (line,) = lines(hosted("queue", "list", *words).out)
    assert line[0] == queue_id
    assert [line[3], *line[5:]] == expected
    (found,) = hosted.json("queue", "list", *words)
    told = [each["address"] for each in found["recipients"] if each["selected"]]
    assert sorted(told) == sorted(expected[1].split())
    assert len(found["recipients"]) == 2
    assert (found["next_attempt"] is None) is (expected[0] == "held")


def test_list_says_that_there_is_more(waiting: Waiting) -> None:
    listed = waiting.shell("queue", "list", "--limit", "2")

    assert [line[0] for line in lines(listed.out)] == waiting.ids[:2]
    assert listed.err.startswith("restante: these are the oldest 2, there are more: ")
    assert waiting.shell("queue", "list", "--limit", "3").err == ""


def test_list_as_json(waiting: Waiting) -> None:
    dead, busy, bounce = waiting.shell.json("queue", "list")

    assert (dead["id"], dead["queue"], dead["sender"]) == (waiting.dead, "1", "ann@example.com")
    assert (dead["ret"], dead["envid"]) == ("HDRS", "order 7")
    (recipient,) = dead["recipients"]
    assert recipient["lane"] == "dead.example"
    assert recipient["left_alone"]["why"] == TIMED_OUT
    assert recipient["next_attempt"] == recipient["left_alone"]["until"] == dead["next_attempt"]
    (recipient,) = busy["recipients"]
    assert recipient["last_reply"] == str(GREYLISTED)
    assert recipient["last"]["peer"]["command"] == BUSY.command
    assert (recipient["attempts"], recipient["state"]) == (1, "waiting")
    assert (recipient["notify"], recipient["orcpt"]) == (
        ["FAILURE", "DELAY"],
        "rfc822;ann@busy.example",
    )
    assert (bounce["sender"], bounce["recipients"][0]["last"]) == ("", None)


@pytest.mark.parametrize("columns", [60, 80, 139, 140, 200])
def test_list_fits_a_terminal(waiting: Waiting, columns: int) -> None:
    shown = at_terminal(waiting.shell.directory, "queue", "list", columns=columns)

    assert shown.code == 0
    assert max(map(len, shown.screen.splitlines())) <= columns
    for each in waiting.ids:
        assert each in shown.screen
    if columns >= 80:
        for text in ("bob@dead.example", "ann@busy.example", TIMED_OUT, "450 4.2.0"):
            assert text in shown.screen
    assert len(shown.screen.splitlines()) == (4 if columns >= 140 else 8)


@pytest.mark.parametrize("local", ["a b", "a@b", 'a"b', "a..b", "+1 a, b;"])
def test_addresses_are_shown_as_commands_take_them(hosted: Shell, local: str) -> None:
    address = Address(local, "dead.example")
    (queue_id,) = put(hosted, 0, [Sent(to(str(address)), HOUR, address)])
    quoted = address.to_mailbox()

    (line,) = lines(hosted("queue", "list", "--to", quoted, "--sender", quoted).out)
    assert line[4:6] == [quoted, quoted]
    (found,) = hosted.json("queue", "list")
    assert (found["sender"], found["recipients"][0]["address"]) == (quoted, quoted)
    told = hosted("queue", "show", queue_id).out
    assert f"<{quoted}>" in told
    assert f"\n{quoted}: waiting" in told
    assert hosted("queue", "mailq").out.count(quoted) == 2
    assert quoted in hosted("queue", "summary", "--by", "sender").out
    (line,) = lines(hosted("queue", "hold", "--to", quoted).out)
    assert line[1:] == [quoted, quoted]
    told = hosted("explain", quoted).out
    assert told.startswith(f"Routing of {quoted}\n")


def test_a_recipient_with_a_blank_is_one_on_a_terminal(hosted: Shell) -> None:
    put(hosted, 0, [Sent(to("a b@dead.example"), HOUR)])

    shown = at_terminal(hosted.directory, "queue", "list", columns=200)
    assert '"a b"@dead.example' in shown.screen
    assert "+1" not in shown.screen


def test_a_sender_for_each_member_of_a_list_is_taken_as_it_is_shown(hosted: Shell) -> None:
    sender = Address("list-owner-@example.com-", "[]")
    put(hosted, 0, [Sent(to("ann@dead.example"), HOUR, sender)])

    (line,) = lines(hosted("queue", "list", "--sender", str(sender)).out)
    assert line[4] == "list-owner-@example.com-@[]"


# mailq


def test_mailq(waiting: Waiting) -> None:
    waiting.shell("queue", "hold", waiting.bounce)

    head, *rest, last = waiting.shell("queue", "mailq").out.splitlines()

    assert head.startswith("-Queue ID-")
    assert last == "-- 1 Kbytes in 3 Requests."
    assert rest[4] == f"{waiting.busy}        59 {rest[4][30:49]}  ann@example.com"
    assert rest[5].strip() == f"({GREYLISTED})"
    assert rest[6] == " " * 51 + "ann@busy.example"
    assert rest[8].startswith(f"{waiting.bounce}! ")
    assert rest[8].endswith(" MAILER-DAEMON")


def test_mailq_of_nothing(hosted: Shell) -> None:
    assert hosted("queue", "mailq").out == "Mail queue is empty\n"


# show


def test_show(waiting: Waiting) -> None:
    shown = waiting.shell("queue", "show", waiting.busy)

    assert shown.code == 0
    for part in (
        "<ann@example.com>",
        "3h ago",
        "HDRS",
        "order 7",
        "ann@busy.example: waiting, next attempt in ",
        "asked for: NOTIFY=FAILURE,DELAY ORCPT=rfc822;ann@busy.example",
        "attempts: 1, the last ",
        "mx.busy.example [192.0.2.1] (TLSv1.3 X) said to RCPT TO:<ann@busy.example>:",
        f"    {GREYLISTED}",
        "lane: busy.example",
    ):
        assert part in shown.out
    silent = LastAnswer(
        Reply(451, "4.2", "no reply"), "", Peer("mx.x", "192.0.2.2", "greeting", silent=True), 1.0
    )
    (unheard,) = put(waiting.shell, 0, [Sent(to("a@x.example"), 0, answer=silent)])
    assert (
        "\n  this host says of mx.x [192.0.2.2], at greeting:\n    451 4.4.2 no reply\n"
        in waiting.shell("queue", "show", unheard).out
    )
    assert f"after 1 failure: {TIMED_OUT}" in waiting.shell("queue", "show", waiting.dead).out
    assert (
        waiting.shell.json("queue", "show", waiting.busy) == waiting.shell.json("queue", "list")[1]
    )


def test_show_what_is_left_of_a_list(waiting: Waiting) -> None:
    left = Target(
        "iain-x@example.com", "|sort\n&ann@x.org", lane="|iain", reverse_path="l-owner@example.com"
    )
    (listed,) = put(waiting.shell, 0, [Sent((left, replace(left, reverse_path="")), 0)])

    shown = waiting.shell("queue", "show", listed).out
    assert "\n  only: |sort\n  only: &ann@x.org\n  from: <l-owner@example.com>\n" in shown
    assert "\n  from: <>\n  lane: |iain\n" in shown
    record = waiting.shell.json("queue", "show", listed)["recipients"][0]
    assert (record["instruction"], record["reverse_path"], record["lane"]) == (
        "|sort\n&ann@x.org",
        "l-owner@example.com",
        "|iain",
    )
    (found,) = waiting.shell.json("queue", "list", "--lane", "|iain")
    assert found["id"] == listed
    (odd,) = put(waiting.shell, 0, [Sent((Target("iain@example.com", "|\udcff"),), 0)])
    assert "\n  only: |\\udcff\n" in waiting.shell("queue", "show", odd).out
    assert waiting.shell.json("queue", "show", odd)["recipients"][0]["instruction"] == "|\\udcff"


def test_show_the_message_itself(waiting: Waiting) -> None:
    show = "queue", "show", waiting.busy

    assert waiting.shell(*show, "--headers").out.encode() == b"Received: here\n" + HEADER
    assert waiting.shell(*show, "--body").out.encode() == BODY
    whole = waiting.shell(*show, "--body", "--headers").out.encode()
    assert whole == b"Received: here\n" + HEADER + b"\n" + BODY
    assert waiting.shell(*show, "--body", "--json").code == ExitCode.USAGE


def test_show_a_large_message(waiting: Waiting) -> None:
    text = b"0123456789abcde\n" * (IN_ROW // 8)
    (large,) = put(waiting.shell, 0, [Sent(to("a@x.example"), 0, body=b"Subject: x\n\n" + text)])

    assert waiting.shell("queue", "show", large, "--body").out.encode() == text
    assert waiting.shell("queue", "show", large, "--headers").out.endswith("\nSubject: x\n")

    (path,) = waiting.shell.directory.glob(f"queue/*/bodies/{large}")
    os.truncate(path, IN_ROW)
    short = waiting.shell("queue", "show", large, "--body", "--headers")
    assert short.code == ExitCode.REFUSED
    assert short.out.encode().endswith(b"Subject: x\n\n" + text[: IN_ROW - 12])
    assert "cannot be read to its end: a spooled body is " in short.err


def test_a_terminal_obeys_no_message(waiting: Waiting) -> None:
    shown = at_terminal(waiting.shell.directory, "queue", "show", waiting.busy, "--headers")

    assert "X-Bell: \N{REPLACEMENT CHARACTER}\n" in shown.screen


# summary


def test_summary(waiting: Waiting) -> None:
    waiting.shell("queue", "hold", waiting.bounce)

    summed = waiting.shell("queue", "summary")

    assert summed.code == 0
    first, *_ = summed.out.splitlines()
    assert first == "3 messages for 3 recipients, 1 of them held; the oldest came 2d ago."
    assert "\ndead.example\t1\t1\t0\t2d\tin " in summed.out
    assert f"\t1 failure: {TIMED_OUT}\n" in summed.out
    assert "\nlocal\t1\t0\t1\t" in summed.out
    assert "\n450 4.2.0 ... Greylisted for ... seconds\t1\t1\t0\t" in summed.out
    assert "\nnot tried yet\t1\t0\t1\t" in summed.out


def test_summary_as_json(waiting: Waiting) -> None:
    summed = waiting.shell.json("queue", "summary")

    assert (summed["messages"], summed["waiting"], summed["held"]) == (3, 3, 0)
    assert {each["lane"] for each in summed["lanes"]} == {"dead.example", "busy.example", "local"}
    assert [each["age"] for each in summed["ages"]] == [
        "up to 5 minutes",
        "up to 4 hours",
        "up to 4 days",
    ]


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("lane", ["local", "busy.example", "dead.example"]),
        ("domain", ["busy.example", "dead.example", "example.com"]),
        ("sender", ["ann@example.com", "<>"]),
        ("age", ["up to 5 minutes", "up to 4 hours", "up to 4 days"]),
    ],
)
def test_summary_by(waiting: Waiting, by: str, keys: list[str]) -> None:
    summed = waiting.shell("queue", "summary", "--by", by)

    assert [line[0] for line in lines(summed.out)] == keys
    assert [each[by] for each in waiting.shell.json("queue", "summary", "--by", by)] == keys


def test_summary_of_a_selection(waiting: Waiting) -> None:
    summed = waiting.shell.json("queue", "summary", "--by", "lane", "--older", "1h", "--limit", "9")

    assert {each["lane"] for each in summed} == {"dead.example", "busy.example"}


def test_summary_says_that_there_is_more(waiting: Waiting) -> None:
    summed = waiting.shell("queue", "summary", "--by", "domain", "--limit", "1")

    assert len(summed.out.splitlines()) == 1
    assert "there are 2 more" in summed.err


def test_summary_of_nothing(hosted: Shell) -> None:
    assert hosted("queue", "summary").out == "Nothing waits.\n"
    assert hosted.json("queue", "summary")["messages"] == 0


# check


def test_check_names_mail_that_needs_an_eye(waiting: Waiting) -> None:
    waiting.shell("queue", "hold", waiting.busy)
    dead = to("bob@dead.example", "dead.example")
    put(waiting.shell, 0, [Sent(dead, 0)] * 100)

    held, long, alone = waiting.shell.json("check")["advice"][-3:]

    assert held.startswith("1 message (the oldest came 3h ago) is held by an operator: ")
    assert long.startswith("1 message (the oldest came 2d ago) is waiting for more than a day: ")
    assert alone == (
        "101 messages (the oldest came 2d ago) are waiting for dead.example, which is left alone "
        f"({TIMED_OUT}): restante queue retry --lane dead.example tries it now"
    )


def test_check_names_what_a_start_has_set_aside(waiting: Waiting) -> None:
    left = waiting.shell.directory / "queue" / "bodies.left"
    left.mkdir()
    (left / waiting.busy).touch()

    told = waiting.shell.json("check")["advice"][-1]

    assert told.startswith(f"{left} has 1 file of large messages that no queue names")


def test_check_names_a_queue_that_cannot_be_read(hosted: Shell) -> None:
    (hosted.directory / "queue" / "0").mkdir()
    (hosted.directory / "queue" / "0" / "queue.db").write_bytes(b"this is no database" * 100)

    (problem,) = json.loads(hosted("check", "--json").out)["problems"]

    assert "queue.db cannot be read" in problem


@pytest.mark.parametrize("arguments", [("list",), ("summary",), ("hold", "--all")])
def test_a_queue_that_cannot_be_read(hosted: Shell, arguments: tuple[str, ...]) -> None:
    (hosted.directory / "queue" / "0").mkdir()
    (hosted.directory / "queue" / "0" / "queue.db").write_bytes(b"this is no database" * 100)

    refused = hosted("queue", *arguments)

    assert refused.code == ExitCode.REFUSED
    assert "queue.db cannot be read" in refused.err
    assert refused.err.count("\n") == 1


def test_help_knows_the_words_of_others(hosted: Shell) -> None:
    told = hosted("queue", "--help").out

    for word in ("mailq", "postqueue", "postsuper", "exim"):
        assert word in told


def test_json_is_one_list_even_when_it_is_long(hosted: Shell) -> None:
    put(hosted, 0, [Sent(to(f"a{number}@x.example"), 0) for number in range(3)])

    text = hosted("queue", "list", "--json").out

    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"

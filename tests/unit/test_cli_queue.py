"""``restante queue``: what it prints, changes and refuses, with no server running."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.cli.status import ExitCode
from restante.envelope import Envelope, Notify, RecipientDsn, memory_content
from restante.queue import BackOff, LastAnswer, RecipientState, Target
from restante.queue.bodies import IN_ROW
from restante.queue.rows import Result
from restante.queue.store import QueueStore
from restante.queue.work import LaneNews
from restante.status import Peer, Reply
from tests.support.queued import due, new_id
from tests.support.shell import Shell
from tests.support.terminal import at_terminal

HOUR = 3600.0
ANN = Address("ann", "example.com")
BUSY = Peer("mx.busy.example", "192.0.2.1", "RCPT TO:<ann@busy.example>", "TLSv1.3 X")
GREYLISTED = Reply(450, "2.0", "<ann@busy.example>: Greylisted for 287 seconds")
TIMED_OUT = "connect to mx.dead.example timed out"
HEADER = b"Subject: hello\nX-Bell: \x07\n"
BODY = b"Dear all,\n\nhello.\n"


@dataclass(frozen=True)
class Sent:
    """A message to be queued, and the answer to its first attempt."""

    targets: tuple[Target, ...]
    age: float
    sender: ReversePath = ANN
    answer: LastAnswer | None = None
    back_off: BackOff | None = None
    body: bytes = HEADER + b"\n" + BODY


def put(shell: Shell, slot: int, sent: Sequence[Sent]) -> list[str]:
    """Queue the messages as a server would have; their ids."""
    return asyncio.run(_put(shell, slot, sent))


async def _put(shell: Shell, slot: int, sent: Sequence[Sent]) -> list[str]:
    now = time.time()
    store = QueueStore.open(str(shell.directory / "queue"), slot)
    ids = []
    for each in sent:
        addresses = tuple(Address.parse(target.address) for target in each.targets)
        envelope = Envelope(
            new_id(), each.sender, addresses, now - each.age, ret="HDRS", envid="order 7"
        )
        await store.add(envelope, memory_content(b"Received: here\n", each.body), each.targets)
        ids.append(envelope.queue_id)
        if each.answer is None and each.back_off is None:
            continue
        for message in await due(store, now):
            if message.envelope == envelope:
                results = [
                    Result(r.id, RecipientState.WAITING, each.answer, now + HOUR)
                    for r in message.recipients
                    if each.answer
                ]
                await store.record(message, results, now, LaneNews(now, each.back_off))
    await store.close()
    return ids


def to(address: str, lane: str = "", dsn: RecipientDsn | None = None) -> tuple[Target, ...]:
    return (Target(address, lane=lane, dsn=dsn or RecipientDsn()),)


@dataclass(frozen=True)
class Waiting:
    """A hosted instance, and what waits there, the oldest first."""

    shell: Shell
    dead: str
    """Two days old, its lane left alone."""
    busy: str
    """Three hours old, greylisted."""
    bounce: str
    """A minute old, from the null reverse-path, for a mailbox here."""

    @property
    def ids(self) -> list[str]:
        return [self.dead, self.busy, self.bounce]

    def states(self) -> dict[str, set[str]]:
        """Of the recipients of every message."""
        listed = self.shell.json("queue", "list")
        return {each["id"]: {r["state"] for r in each["recipients"]} for each in listed}


@pytest.fixture
def waiting(hosted: Shell) -> Waiting:
    now = time.time()
    answer = LastAnswer(GREYLISTED, "", BUSY, now - 60)
    dsn = RecipientDsn(Notify.FAILURE | Notify.DELAY, "rfc822;ann@busy.example")
    (dead,) = put(
        hosted,
        1,
        [Sent(to("bob@dead.example", "dead.example"), 48 * HOUR, back_off=BackOff(TIMED_OUT, 99))],
    )
    busy, bounce = put(
        hosted,
        0,
        [
            Sent(to("ann@busy.example", "busy.example", dsn), 3 * HOUR, answer=answer),
            Sent(to("iain@example.com"), 60, NULL_REVERSE_PATH),
        ],
    )
    return Waiting(hosted, dead, busy, bounce)


def lines(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


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


# retry, hold, release, remove, bounce


def test_verbs_say_what_they_did(waiting: Waiting) -> None:
    shell, here = (
        waiting.shell,
        "No server has the queue just now; the next one that does finds this.\n",
    )
    line = f"{waiting.busy}\tann@example.com\tann@busy.example\n"
    one = "1 message (1 recipient)"

    assert shell("queue", "hold", waiting.busy).out == f"{line}{one} held.\n{here}"
    assert waiting.states()[waiting.busy] == {"held"}
    assert shell("queue", "release", "--to", "busy.example").out == f"{line}{one} released.\n{here}"
    assert waiting.states()[waiting.busy] == {"waiting"}
    assert (
        shell("queue", "retry", waiting.busy).out
        == f"{line}{one} put up for an attempt now.\n{here}"
    )
    assert lines(shell("queue", "list", "--to", "busy.example").out)[0][3] == "now"
    bounced = shell("queue", "bounce", waiting.busy).out
    assert bounced == f"{line}{one} returned to the sender.\n{here}"
    assert waiting.states()[waiting.busy] == {"failed"}
    assert shell("queue", "remove", "--to", "dead.example").out.endswith(f"{one} removed.\n{here}")
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
    assert "3 messages (3 recipients) would be " in done.out
    assert {line[0] for line in lines(done.out)[:3]} == set(waiting.ids)
    assert waiting.shell("queue", "list", "--json").out == before


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "remove", "bounce"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say which messages to "),
        (("--all", "someid"), "--all goes with neither"),
        (("--all", "--older", "1h"), "--all goes with neither"),
        (("--older", "2"), "--older: '2' is no span; write 90s"),
        (("--newer", "h"), "--newer: 'h' is no span"),
        (("--to", "a b@x"), "--to: 'a b@x' is neither an address nor a domain"),
        (("--to", ""), "--to: '' is neither"),
        (("--sender", "@"), "--sender: '@' is neither"),
    ],
)
def test_usage(waiting: Waiting, verb: str, arguments: tuple[str, ...], said: str) -> None:
    refused = waiting.shell("queue", verb, *arguments)

    assert refused.code == ExitCode.USAGE
    assert said in " ".join(refused.err.split())
    assert set().union(*waiting.states().values()) == {"waiting"}


def test_an_id_that_is_not_there(waiting: Waiting) -> None:
    done = waiting.shell("queue", "remove", "nothing", waiting.busy)

    assert done.code == ExitCode.REFUSED
    assert done.err == (
        "restante: no queue has a message 'nothing'; it may have been delivered by now\n"
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


def test_what_was_done_stands_in_the_log_that_is_there(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_LOG__TARGET", "mail.log")
    log = waiting.shell.directory / "mail.log"
    waiting.shell("queue", "retry", waiting.busy)
    assert not log.exists()
    log.touch()
    waiting.shell("queue", "hold", waiting.busy, "--dry-run")
    waiting.shell("queue", "remove", waiting.busy)

    (line,) = log.read_text().splitlines()
    assert line.split(" ", 1)[1] == (
        f"level=info event=operated id={waiting.busy} change=remove "
        f"recipients=ann@busy.example uid={os.getuid()}"
    )


def test_a_log_that_fails_keeps_nothing_from_being_done(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_LOG__TARGET", "mail")
    done = waiting.shell("queue", "remove", waiting.busy)

    assert done.code == 0
    assert "what is done now is not logged: " in done.err
    assert waiting.busy not in waiting.states()


def test_nothing_matches(waiting: Waiting) -> None:
    done = waiting.shell("queue", "remove", "--to", "x.example", "--yes")

    assert (done.code, done.err) == (0, "")
    assert done.out == "Nothing that waits or is held matches; nothing was changed.\n"


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


def test_a_terminal_is_told_of_some(hosted: Shell) -> None:
    put(hosted, 0, [Sent(to(f"a{number}@x.example"), 0) for number in range(25)])

    shown = at_terminal(hosted.directory, "queue", "hold", "--all").screen.splitlines()

    assert len(shown) == 23
    assert shown[20:] == [
        "... and 5 more",
        "25 messages (25 recipients) held.",
        "No server has the queue just now; the next one that does finds this.",
    ]


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

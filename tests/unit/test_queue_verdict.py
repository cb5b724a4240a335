"""What attempts make of recipients, and of what senders are told (RFC 3461)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from restante.address import NULL_REVERSE_PATH, ReversePath
from restante.envelope import NO_DSN, Envelope, Notify, RecipientDsn
from restante.queue import (
    LOCAL_LANE,
    Action,
    Answer,
    Expanded,
    Moved,
    Partly,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Target,
    Untried,
)
from restante.queue.retry import LOCAL_STEP, RetryPolicy
from restante.queue.rows import Result
from restante.queue.verdict import handed_on, judge, uncertain
from restante.status import Delivered, Peer, PermanentFailure, Reply, TemporaryFailure
from tests.support.jumping_clock import START
from tests.support.queued import SENDER, content

DAY = 86400.0
HOUR = 3600.0
POLICY = RetryPolicy(7 * DAY, lambda: 0.0, delay_notice=4 * HOUR)
EVERYTHING = RecipientDsn(Notify.SUCCESS | Notify.FAILURE | Notify.DELAY, "rfc822;a@example.com")
NEVER = RecipientDsn(Notify.NEVER)
HERE = Delivered("/mail/iain/Maildir")
THERE = Delivered("250 ok", Peer("mx.example.net", "192.0.2.1", "end of data", dsn=False))
THERE_TOO = Delivered("250 ok", Peer("mx.example.net", "192.0.2.1", "end of data", dsn=True))
LATER = TemporaryFailure(Reply(451, "4.1", "no answer"), "timed out", THERE.peer)
NO_USER = PermanentFailure(Reply(550, "1.1", "no such user"), "", THERE.peer)


def message(
    *dsns: RecipientDsn, sender: ReversePath = SENDER, lane: str = LOCAL_LANE, told: bool = False
) -> QueuedMessage:
    recipients = tuple(
        QueuedRecipient(
            number,
            Target(f"a{number}@example.com", lane=lane, dsn=dsn),
            RecipientState.WAITING,
            3,
            START,
            START,
            None,
            delay_told=told,
        )
        for number, dsn in enumerate(dsns or (NO_DSN,))
    )
    return QueuedMessage(
        Envelope("id", sender, (), START), content(), recipients, again=False, lane=lane
    )


def result(
    answer: Answer,
    dsn: RecipientDsn = NO_DSN,
    *,
    age: float = 0.0,
    sender: ReversePath = SENDER,
    lane: str = LOCAL_LANE,
    told: bool = False,
) -> Result:
    tried = message(dsn, sender=sender, lane=lane, told=told)
    (verdict,) = judge(tried, [answer], START + age, START + age, POLICY)
    return verdict.result


@pytest.mark.parametrize(
    ("answer", "dsn", "age", "action"),
    [
        (HERE, NO_DSN, 0.0, None),
        (HERE, EVERYTHING, 0.0, Action.DELIVERED),
        (HERE, RecipientDsn(Notify.FAILURE), 0.0, None),
        (HERE, NEVER, 0.0, None),
        (THERE, EVERYTHING, 0.0, Action.RELAYED),
        (THERE, NO_DSN, 0.0, None),
        (THERE_TOO, EVERYTHING, 0.0, None),
        (NO_USER, NO_DSN, 0.0, Action.FAILED),
        (NO_USER, EVERYTHING, 0.0, Action.FAILED),
        (NO_USER, RecipientDsn(Notify.SUCCESS), 0.0, None),
        (NO_USER, NEVER, 0.0, None),
        (LATER, EVERYTHING, 4 * HOUR - 1, None),
        (LATER, EVERYTHING, 4 * HOUR, Action.DELAYED),
        (LATER, NO_DSN, 4 * HOUR, Action.DELAYED),
        (LATER, RecipientDsn(Notify.FAILURE), 4 * HOUR, None),
        (LATER, NEVER, 4 * HOUR, None),
        (LATER, NO_DSN, 7 * DAY, Action.FAILED),
        (LATER, NEVER, 7 * DAY, None),
        (Expanded((Target("b@x"), Target("c@x"))), EVERYTHING, 0.0, Action.EXPANDED),
        (Expanded((Target("b@x"), Target("c@x"))), NO_DSN, 0.0, None),
        (Expanded((Target("b@x"),)), EVERYTHING, 0.0, None),
    ],
)
def test_senders_are_told_what_they_asked_to_be_told(
    answer: Answer, dsn: RecipientDsn, age: float, action: Action | None
) -> None:
    assert result(answer, dsn, age=age).notice is action
    if action is not Action.FAILED:
        nobody = result(answer, dsn, age=age, sender=NULL_REVERSE_PATH)
        assert nobody.notice in (None, Action.FAILED)


@pytest.mark.parametrize("dsn", [NO_DSN, EVERYTHING, NEVER])
def test_that_a_report_failed_is_told_whatever_it_asked_for(dsn: RecipientDsn) -> None:
    assert result(NO_USER, dsn, sender=NULL_REVERSE_PATH).notice is Action.FAILED
    assert result(LATER, dsn, sender=NULL_REVERSE_PATH, age=7 * DAY).notice is Action.FAILED
    assert result(LATER, dsn, sender=NULL_REVERSE_PATH, age=4 * HOUR).notice is None
    assert result(HERE, dsn, sender=NULL_REVERSE_PATH).notice is None


def test_a_delay_is_told_once() -> None:
    first = result(LATER, age=5 * HOUR)
    assert (first.notice, first.late) == (Action.DELAYED, True)
    second = result(LATER, age=6 * HOUR, told=True)
    assert (second.notice, second.state) == (None, RecipientState.WAITING)


def test_that_nobody_is_to_be_told_of_a_delay_is_remembered_too() -> None:
    assert result(LATER, NEVER, age=5 * HOUR).late


def test_what_was_answered_is_kept() -> None:
    failed = result(NO_USER, age=60.0).last
    assert failed is not None
    assert (failed.reply, failed.peer, failed.at) == (NO_USER.reply, NO_USER.peer, START + 60)
    given_up = result(LATER, age=7 * DAY)
    assert given_up.state is RecipientState.FAILED
    assert given_up.last is not None
    assert given_up.last.reply == LATER.reply, "the actual problem, not that time is over"


@pytest.mark.parametrize("age", [5 * HOUR, 7 * DAY])
def test_that_an_answer_has_put_off_is_kept_whatever_its_code(age: float) -> None:
    greeted = replace(LATER, reply=Reply(554, "7.1", "blocked"))
    for answer in (LATER, greeted):
        last = result(answer, age=age).last
        assert last is not None
        assert (last.put_off, last.is_temporary) == (True, True)
    failed = result(NO_USER, age=age).last
    assert failed is not None
    assert (failed.put_off, failed.is_temporary) == (False, False)


@pytest.mark.parametrize(("lane", "step"), [(LOCAL_LANE, 10.0), ("example.net", 20.0)])
def test_other_hosts_are_tried_half_as_often(lane: str, step: float) -> None:
    assert result(LATER, lane=lane).next_attempt == START + step**2


def test_those_who_are_tried_together_stay_together() -> None:
    luck = iter([0.1, 0.9])
    policy = RetryPolicy(DAY, lambda: next(luck))
    verdicts = judge(message(NO_DSN, NO_DSN), [LATER, LATER], START, START, policy)
    assert len({verdict.result.next_attempt for verdict in verdicts}) == 1


def test_each_recipient_has_a_time_of_its_own() -> None:
    two = message(NO_DSN, NO_DSN)
    first, second = two.recipients
    young = replace(two, recipients=(first, replace(second, born=START + 7 * DAY)))
    old, new = judge(young, [LATER, LATER], START + 7 * DAY, START + 7 * DAY, POLICY)
    assert (old.result.state, old.result.late) == (RecipientState.FAILED, False)
    assert (new.result.state, new.result.late) == (RecipientState.WAITING, False)
    assert new.result.next_attempt == START + 7 * DAY + LOCAL_STEP**2


def test_an_attempt_that_began_in_time_is_not_the_last_one() -> None:
    """The machine may have been asleep for most of it."""
    (verdict,) = judge(message(), [LATER], START + 7 * DAY - 1, START + 9 * DAY, POLICY)
    assert verdict.result.state is RecipientState.WAITING
    assert verdict.result.next_attempt > START + 9 * DAY


def test_one_too_many_for_a_transaction_is_in_the_next() -> None:
    left_over = replace(LATER, at_once=True)
    two = message(NO_DSN, NO_DSN, lane="example.net")
    _, second = judge(two, [THERE, left_over], START + 5, START + 5, POLICY)
    assert second.result.next_attempt == START + 5
    assert second.result.state is RecipientState.WAITING


def test_nothing_is_tried_at_once_without_progress() -> None:
    left_over = replace(LATER, at_once=True)
    two = message(NO_DSN, NO_DSN, lane="example.net")
    verdicts = judge(two, [LATER, left_over], START, START, POLICY)
    assert verdicts[1].result.next_attempt == verdicts[0].result.next_attempt > START


def test_a_move_is_no_attempt() -> None:
    moved = result(Moved("example.net"))
    assert (moved.state, moved.lane, moved.next_attempt) == (
        RecipientState.WAITING,
        "example.net",
        START,
    )
    assert moved.last is None


def test_who_was_not_tried_is_due_as_before() -> None:
    """Nothing is recorded: of a list with an owner there may be very many, at every attempt."""
    two = message(NO_DSN, NO_DSN, lane="example.net")
    (verdict,) = judge(two, [Untried(), THERE], START, START, POLICY)
    assert verdict.result.recipient == two.recipients[1].id


def test_moves_cannot_spin() -> None:
    assert result(Moved("b.example"), lane="a.example").next_attempt == START + 1
    stuck = result(Moved("a.example"), lane="a.example")
    assert stuck.lane is None
    assert stuck.next_attempt > START + 100


@pytest.mark.parametrize(
    ("dsn", "targets", "inherited"),
    [
        (NO_DSN, 1, NO_DSN),
        (NO_DSN, 2, NO_DSN),
        (EVERYTHING, 1, EVERYTHING),
        (EVERYTHING, 2, RecipientDsn(Notify.FAILURE | Notify.DELAY, EVERYTHING.orcpt)),
        (RecipientDsn(Notify.SUCCESS), 2, NEVER),
        (NEVER, 2, NEVER),
    ],
)
def test_targets_inherit_what_was_asked_of_their_alias(
    dsn: RecipientDsn, targets: int, inherited: RecipientDsn
) -> None:
    goals = tuple(Target(f"t{number}@x", lane="x") for number in range(targets))
    expanded = result(Expanded(goals), dsn)
    assert [target.dsn for target in expanded.targets] == [inherited] * targets
    assert [target.lane for target in expanded.targets] == ["x"] * targets


LIST = "list-owner@example.com"


def test_what_a_list_sends_on_asks_for_nothing_of_its_own_sender() -> None:
    """RFC 3461 §5.2.7.1: for the sender, the list is where the message ends."""
    members = (Target("b@x", reverse_path=LIST), Target("a0@example.com", "./Archive/"))
    expanded = result(Expanded(members), EVERYTHING)
    assert expanded.notice is Action.DELIVERED
    no_success = RecipientDsn(Notify.FAILURE | Notify.DELAY, EVERYTHING.orcpt)
    assert [target.dsn for target in expanded.targets] == [NO_DSN, no_success]
    assert result(Expanded(members), NO_DSN).notice is None
    never = result(Expanded(members[:1]), NEVER)
    assert (never.notice, never.targets[0].dsn) == (None, NO_DSN), "the owner said nothing"


def test_a_list_inside_a_list_with_the_same_owner_is_an_alias() -> None:
    recipient = Target("a0@example.com", dsn=EVERYTHING, reverse_path=LIST)
    (inner,) = handed_on(recipient, Expanded((Target("b@x", reverse_path=LIST),)))
    assert inner.dsn == EVERYTHING


def test_a_forward_beside_a_delivery_here_is_one_of_two() -> None:
    expanded = result(Expanded((Target("b@x"),), here="the program ended with 0"), EVERYTHING)
    assert expanded.notice is Action.EXPANDED
    assert not expanded.targets[0].dsn.wants(Notify.SUCCESS)


def test_who_is_told_is_the_sender_of_the_copy() -> None:
    (verdict,) = judge(
        replace(
            message(NO_DSN, sender=NULL_REVERSE_PATH),
            recipients=(
                QueuedRecipient(
                    1,
                    Target("b@x", dsn=EVERYTHING, reverse_path=LIST),
                    RecipientState.WAITING,
                    0,
                    START,
                    START,
                    None,
                ),
            ),
        ),
        [HERE],
        START,
        START,
        POLICY,
    )
    assert verdict.result.notice is Action.DELIVERED, "null is the sender of another copy"


def test_what_is_left_of_a_list_follows_at_once() -> None:
    answer = Partly("./Maildir/\n&ann@example.net", "iain", "the program ended with 0")
    partly = result(answer, age=DAY)
    assert (partly.state, partly.next_attempt) == (RecipientState.WAITING, START + DAY)
    assert (partly.instruction, partly.account) == ("./Maildir/\n&ann@example.net", "iain")
    assert (partly.last, partly.notice, partly.lane) == (None, None, None)


def test_a_target_that_leads_back_inherits_too() -> None:
    expanded = result(Expanded((Target("A0@example.com"), Target("b@x"))), EVERYTHING)
    (looping,) = expanded.looping
    assert looping.target.dsn.wants(Notify.FAILURE)


def test_a_circle_of_aliases_is_named() -> None:
    circle = QueuedRecipient(
        1,
        Target("c@x"),
        RecipientState.WAITING,
        0,
        START,
        START,
        None,
        trail=("all@x", "a@x", "b@x"),
    )
    looping = replace(message(), recipients=(circle,))
    answer = Expanded((Target("A@x"), Target("c@x"), Target("c@x", "./Maildir/"), Target("d@x")))
    (verdict,) = judge(looping, [answer], START, START, POLICY)
    assert [each.address for each in verdict.result.targets] == ["c@x", "d@x"]
    assert [str(each.failure) for each in verdict.result.looping] == [
        "554 5.4.6 the alias leads back to itself: a@x > b@x > c@x > A@x",
        "554 5.4.6 the alias leads back to itself: c@x > c@x",
    ]


def test_what_nobody_planned_for_is_temporary_and_uncertain() -> None:
    verdicts = uncertain(message(NO_DSN, NO_DSN), START, START, POLICY)
    assert [(each.result.state, each.result.certain) for each in verdicts] == [
        (RecipientState.WAITING, False)
    ] * 2


def test_every_recipient_must_have_its_answer() -> None:
    with pytest.raises(ValueError, match="shorter"):
        judge(message(NO_DSN, NO_DSN), [HERE], START, START, POLICY)


@pytest.mark.parametrize("age", [0.0, 30 * DAY])
def test_to_stand_back_for_others_is_nobody_s_last_attempt(age: float) -> None:
    found = result(replace(LATER, pause=30.0), age=age)
    assert (found.state, found.next_attempt) == (RecipientState.WAITING, START + age + 30.0)

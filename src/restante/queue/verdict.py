"""From an attempt's answers to what is recorded: pure decisions, no state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from restante import maillog
from restante.address import fold
from restante.queue import (
    LOCAL_LANE,
    Action,
    Answer,
    Expanded,
    LastAnswer,
    Moved,
    Notice,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Target,
)
from restante.queue.retry import LOCAL_STEP, REMOTE_STEP, RetryPolicy
from restante.queue.rows import Result
from restante.status import Delivered, PermanentFailure, Reply, TemporaryFailure

REPORT_RETRY = 3600.0
"""Seconds until a failure that could not be reported is tried, and reported, again."""

UNPLANNED = Reply(451, "3.0", "the attempt failed for an internal reason")
ALIAS_LOOP = Reply(554, "4.6", "the alias leads back to itself")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one recipient, what its sender is told, and what the log says."""

    result: Result
    notices: tuple[Notice, ...]
    log: Callable[[], None]
    """Called when the result is durable."""


def judge(
    message: QueuedMessage,
    recipient: QueuedRecipient,
    answer: Answer,
    now: float,
    policy: RetryPolicy,
) -> Verdict:
    """The verdict on one recipient's answer."""
    match answer:
        case Delivered():
            return _delivered(message, recipient, answer)
        case Expanded():
            return _expanded(message, recipient, answer, now)
        case Moved():
            return _waiting(message, recipient, TemporaryFailure(UNPLANNED), now, now)
        case PermanentFailure():
            return _failed(message, recipient, answer, now)
        case TemporaryFailure():
            return _deferred(message, recipient, answer, now, policy)


def uncertain(message: QueuedMessage, now: float, policy: RetryPolicy) -> list[Verdict]:
    """The verdicts after an attempt that ended in an exception nobody planned for."""
    answer = TemporaryFailure(UNPLANNED)
    verdicts = (judge(message, each, answer, now, policy) for each in message.recipients)
    return [replace(each, result=replace(each.result, certain=False)) for each in verdicts]


def postpone(message: QueuedMessage, verdicts: Sequence[Verdict], now: float) -> list[Verdict]:
    """The verdicts with every failure turned into another attempt: it cannot be reported now."""
    return [_postponed(message, each, now) if each.notices else each for each in verdicts]


def _delivered(message: QueuedMessage, recipient: QueuedRecipient, answer: Delivered) -> Verdict:
    return Verdict(
        Result(recipient.id, RecipientState.DELIVERED),
        (),
        lambda: maillog.delivered(_id(message), recipient.target.address, answer.detail),
    )


def _expanded(
    message: QueuedMessage, recipient: QueuedRecipient, answer: Expanded, now: float
) -> Verdict:
    come_by = {fold(alias) for alias in (*recipient.trail, recipient.target.address)}
    looping = tuple(target for target in answer.targets if _leads_back(target, come_by))
    targets = tuple(target for target in answer.targets if target not in looping)
    looped = LastAnswer(ALIAS_LOOP, "", None, now)
    result = Result(
        recipient.id,
        RecipientState.EXPANDED,
        last=looped if looping else None,
        targets=targets,
        looping=looping,
    )

    def log() -> None:
        maillog.expanded(_id(message), recipient.target.address, len(targets))
        for target in looping:
            maillog.failed(_id(message), target.address, str(ALIAS_LOOP), "")

    told = Notice(replace(recipient, last=looped), Action.FAILED)
    return Verdict(result, (told,) if looping else (), log)


def _leads_back(target: Target, come_by: set[str]) -> bool:
    return not target.instruction and fold(target.address) in come_by


def _failed(
    message: QueuedMessage,
    recipient: QueuedRecipient,
    answer: PermanentFailure | TemporaryFailure,
    now: float,
) -> Verdict:
    last = LastAnswer(answer.reply, answer.detail, answer.peer, now)
    ended = replace(recipient, last=last, attempts=recipient.attempts + 1)
    return Verdict(
        Result(recipient.id, RecipientState.FAILED, last),
        (Notice(ended, Action.FAILED),),
        lambda: maillog.failed(
            _id(message), recipient.target.address, str(answer.reply), answer.detail
        ),
    )


def _deferred(
    message: QueuedMessage,
    recipient: QueuedRecipient,
    answer: TemporaryFailure,
    now: float,
    policy: RetryPolicy,
) -> Verdict:
    born = message.envelope.received_at
    step = LOCAL_STEP if message.lane == LOCAL_LANE else REMOTE_STEP
    next_attempt = policy.next_attempt(born, now, step)
    if next_attempt is None:
        return _failed(message, recipient, answer, now)
    return _waiting(message, recipient, answer, now, next_attempt)


def _postponed(message: QueuedMessage, verdict: Verdict, now: float) -> Verdict:
    recipient = verdict.notices[0].recipient
    reply = recipient.last.reply if recipient.last else UNPLANNED
    answer = TemporaryFailure(reply, "it failed, but the report could not be made")
    return _waiting(message, recipient, answer, now, now + REPORT_RETRY)


def _waiting(
    message: QueuedMessage,
    recipient: QueuedRecipient,
    answer: TemporaryFailure,
    now: float,
    next_attempt: float,
) -> Verdict:
    return Verdict(
        Result(
            recipient.id,
            RecipientState.WAITING,
            LastAnswer(answer.reply, answer.detail, answer.peer, now),
            next_attempt,
        ),
        (),
        lambda: maillog.deferred(
            _id(message),
            recipient.target.address,
            str(answer.reply),
            answer.detail,
            recipient.attempts + 1,
            next_attempt,
        ),
    )


def _id(message: QueuedMessage) -> str:
    return message.envelope.queue_id

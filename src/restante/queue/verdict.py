"""From an attempt's answers to what is recorded: pure decisions, no state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from restante import maillog
from restante.address import fold
from restante.queue import (
    Answer,
    Expanded,
    Failure,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    RemoteDeferral,
    Target,
)
from restante.queue.retry import LOCAL_STEP, REMOTE_STEP, RetryPolicy
from restante.queue.rows import Result
from restante.status import Delivered, PermanentFailure, Reply, TemporaryFailure

MAX_REPLY_TEXT = 2000
"""Characters of a reply that are kept with the recipient."""

REPORT_RETRY = 3600.0
"""Seconds until a failure that could not be reported is tried, and reported, again."""

UNPLANNED = Reply(451, "3.0", "the attempt failed for an internal reason")
ALIAS_LOOP = Reply(554, "4.6", "the alias leads back to itself")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one recipient, what its sender is told, and what the log says."""

    result: Result
    failures: tuple[Failure, ...]
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
            return _expanded(message, recipient, answer)
        case PermanentFailure():
            return _failed(message, recipient, answer)
        case TemporaryFailure():
            return _deferred(message, recipient, answer, now, policy)


def uncertain(message: QueuedMessage, now: float, policy: RetryPolicy) -> list[Verdict]:
    """The verdicts after an attempt that ended in an exception nobody planned for."""
    answer = TemporaryFailure(UNPLANNED)
    verdicts = (judge(message, each, answer, now, policy) for each in message.recipients)
    return [replace(each, result=replace(each.result, certain=False)) for each in verdicts]


def postpone(message: QueuedMessage, verdicts: Sequence[Verdict], now: float) -> list[Verdict]:
    """The verdicts with every failure turned into another attempt: it cannot be reported now."""
    return [_postponed(message, each, now) if each.failures else each for each in verdicts]


def _delivered(message: QueuedMessage, recipient: QueuedRecipient, answer: Delivered) -> Verdict:
    return Verdict(
        Result(recipient.id, RecipientState.DELIVERED),
        (),
        lambda: maillog.delivered(_id(message), recipient.target.address, answer.detail),
    )


def _expanded(message: QueuedMessage, recipient: QueuedRecipient, answer: Expanded) -> Verdict:
    come_by = {fold(alias) for alias in (*recipient.trail, recipient.target.address)}
    looping = tuple(target for target in answer.targets if _leads_back(target, come_by))
    targets = tuple(target for target in answer.targets if target not in looping)
    result = Result(
        recipient.id,
        RecipientState.EXPANDED,
        reply=str(ALIAS_LOOP) if looping else "",
        targets=targets,
        looping=looping,
    )

    def log() -> None:
        maillog.expanded(_id(message), recipient.target.address, len(targets))
        for target in looping:
            maillog.failed(_id(message), target.address, str(ALIAS_LOOP), "")

    return Verdict(result, (Failure(recipient, ALIAS_LOOP),) if looping else (), log)


def _leads_back(target: Target, come_by: set[str]) -> bool:
    return not target.instruction and fold(target.address) in come_by


def _failed(
    message: QueuedMessage, recipient: QueuedRecipient, answer: PermanentFailure
) -> Verdict:
    return Verdict(
        Result(recipient.id, RecipientState.FAILED, reply=_kept(answer.reply, answer.detail)),
        (Failure(recipient, answer.reply),),
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
    step = REMOTE_STEP if isinstance(answer, RemoteDeferral) else LOCAL_STEP
    next_attempt = policy.next_attempt(born, now, step)
    if next_attempt is None:
        expired = Reply(
            554, "4.7", f"given up after {_span(now - born)}; the last answer: {answer.reply}"
        )
        return _failed(message, recipient, PermanentFailure(expired, answer.detail))
    return _waiting(message, recipient, answer.reply, answer.detail, next_attempt)


def _postponed(message: QueuedMessage, verdict: Verdict, now: float) -> Verdict:
    failure = verdict.failures[0]
    return _waiting(
        message,
        failure.recipient,
        failure.reply,
        "it failed, but the report could not be made",
        now + REPORT_RETRY,
    )


def _waiting(
    message: QueuedMessage,
    recipient: QueuedRecipient,
    reply: Reply,
    detail: str,
    next_attempt: float,
) -> Verdict:
    return Verdict(
        Result(recipient.id, RecipientState.WAITING, _kept(reply, detail), next_attempt),
        (),
        lambda: maillog.deferred(
            _id(message),
            recipient.target.address,
            str(reply),
            detail,
            recipient.attempts + 1,
            next_attempt,
        ),
    )


def _kept(reply: Reply, detail: str = "") -> str:
    """Reply and detail as a row can hold them: bounded, and without what UTF-8 cannot say."""
    text = f"{reply} ({detail})" if detail else str(reply)
    return text[:MAX_REPLY_TEXT].encode("utf-8", "replace").decode("utf-8")


def _span(seconds: float) -> str:
    hours = round(seconds / 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"


def _id(message: QueuedMessage) -> str:
    return message.envelope.queue_id

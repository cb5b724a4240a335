"""From an attempt's answers to what is recorded: pure decisions, no state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from restante import maillog
from restante.address import fold
from restante.envelope import NO_DSN, Notify
from restante.queue import (
    LOCAL_LANE,
    Action,
    Answer,
    Expanded,
    LastAnswer,
    Moved,
    Partly,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Target,
    Untried,
    is_here,
)
from restante.queue.retry import LOCAL_STEP, REMOTE_STEP, RetryPolicy
from restante.queue.rows import Looping, Result
from restante.queue.wishes import wants
from restante.status import Delivered, Outcome, PermanentFailure, Reply, TemporaryFailure

MOVE_PAUSE = 1.0
"""Seconds until a recipient is tried that was sent from one next hop to another: routes that
contradict each other must not spin."""

UNPLANNED = Reply(451, "3.0", "the attempt failed for an internal reason")
IN_MAILBOX = Reply(250, "1.5", "delivered")
ACCEPTED_ELSEWHERE = Reply(250, "0.0", "accepted by another host")
EXPANDED_HERE = Reply(250, "0.0", "sent on to the addresses of the alias")


_Tried = Outcome | Expanded | Moved | Partly


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one recipient, and what the log says."""

    result: Result
    log: Callable[[RecipientState | None], None]
    """Called when the result is durable, with what the recipient is now; None: the result is void.

    What the message has reached is told of in any case."""


def judge(
    message: QueuedMessage,
    answers: Sequence[Answer],
    began: float,
    now: float,
    policy: RetryPolicy,
) -> list[Verdict]:
    """The verdicts on an attempt's answers; none for whoever was not tried, who is due as before.

    ``began``: when the attempt did. Raises ValueError unless there is an answer for each recipient.
    """
    progress = any(isinstance(each, Delivered) for each in answers)
    bench = _Judge(message, began, now, policy, progress)
    pairs = zip(message.recipients, answers, strict=True)
    return [
        bench.judge(recipient, answer)
        for recipient, answer in pairs
        if not isinstance(answer, Untried)
    ]


def uncertain(
    message: QueuedMessage, began: float, now: float, policy: RetryPolicy
) -> list[Verdict]:
    """The verdicts after an attempt that ended in an exception nobody planned for."""
    answers = [TemporaryFailure(UNPLANNED)] * len(message.recipients)
    verdicts = judge(message, answers, began, now, policy)
    return [replace(each, result=replace(each.result, certain=False)) for each in verdicts]


class _Judge:
    """The decisions on one attempt."""

    def __init__(
        self,
        message: QueuedMessage,
        began: float,
        now: float,
        policy: RetryPolicy,
        progress: bool,
    ) -> None:
        """``progress``: somebody has got the message by this attempt."""
        self._message = message
        self._id = message.envelope.queue_id
        self._began = began
        self._now = now
        self._progress = progress
        self._policy = policy
        self._again: dict[float, float] = {}

    def judge(self, recipient: QueuedRecipient, answer: _Tried) -> Verdict:
        match answer:
            case Delivered():
                return self._delivered(recipient, answer)
            case Expanded():
                return self._expanded(recipient, answer)
            case Moved():
                return self._moved(recipient, answer)
            case PermanentFailure():
                return self._failed(recipient, answer)
            case TemporaryFailure():
                return self._deferred(recipient, answer)
            case Partly():
                return self._partly(recipient, answer)

    def _delivered(self, recipient: QueuedRecipient, answer: Delivered) -> Verdict:
        reply = ACCEPTED_ELSEWHERE if answer.peer else IN_MAILBOX
        result = Result(
            recipient.id,
            RecipientState.DELIVERED,
            LastAnswer(reply, answer.detail, answer.peer, self._now),
            notice=self._success(recipient, answer),
        )

        def log(_: RecipientState | None) -> None:
            if answer.peer is None:
                maillog.delivered(self._id, recipient.target.address, answer.detail)
            else:
                maillog.sent(self._id, recipient.target.address, answer.peer, answer.detail)

        return Verdict(result, log)

    def _success(self, recipient: QueuedRecipient, answer: Delivered) -> Action | None:
        """RFC 3461 §§ 5.2.1 to 5.2.3: to tell of it is the duty of the last host that knows how."""
        if not self._wants(recipient.target, Notify.SUCCESS):
            return None
        if answer.peer is None:
            return Action.DELIVERED
        return None if answer.peer.dsn else Action.RELAYED

    def _expanded(self, recipient: QueuedRecipient, answer: Expanded) -> Verdict:
        trail = (*recipient.trail, recipient.target.address)
        targets = handed_on(recipient.target, answer)
        circles = [(target, _circle(target, trail)) for target in targets]
        looping = tuple(
            Looping(target, LastAnswer(alias_loop(circle), "", None, self._now))
            for target, circle in circles
            if circle
        )
        onward = tuple(target for target, circle in circles if not circle)
        result = Result(
            recipient.id,
            RecipientState.EXPANDED,
            LastAnswer(EXPANDED_HERE, "", None, self._now),
            notice=self._told_of_expansion(recipient, answer),
            targets=onward,
            looping=looping,
        )

        def log(now: RecipientState | None) -> None:
            if answer.here:
                maillog.partly_delivered(self._id, recipient.target.address, answer.here)
            if now is None:
                return
            maillog.expanded(self._id, recipient.target.address, len(onward))
            for each in looping:
                failure = PermanentFailure(each.failure.reply)
                maillog.failed(self._id, each.target.address, failure)

        return Verdict(result, log)

    def _told_of_expansion(self, recipient: QueuedRecipient, answer: Expanded) -> Action | None:
        """For a sender, a list that has an owner is where the message ends (RFC 3461 §5.2.7.1)."""
        if not self._wants(recipient.target, Notify.SUCCESS):
            return None
        if _has_owner(recipient.target, answer):
            return Action.DELIVERED
        return Action.EXPANDED if _ways(answer) > 1 else None

    def _partly(self, recipient: QueuedRecipient, answer: Partly) -> Verdict:
        result = Result(
            recipient.id,
            RecipientState.WAITING,
            next_attempt=self._now,
            instruction=answer.instruction,
            account=answer.account,
        )
        address = recipient.target.address
        return Verdict(result, lambda _: maillog.partly_delivered(self._id, address, answer.detail))

    def _moved(self, recipient: QueuedRecipient, answer: Moved) -> Verdict:
        if answer.lane == self._message.lane:  # a bug, which must not become a loop
            return self._deferred(recipient, TemporaryFailure(UNPLANNED, "moved to where it was"))
        pause = 0.0 if self._message.lane == LOCAL_LANE else MOVE_PAUSE
        result = Result(
            recipient.id,
            RecipientState.WAITING,
            next_attempt=self._now + pause,
            lane=answer.lane,
        )

        def log(now: RecipientState | None) -> None:
            if now is not None:
                maillog.moved(self._id, recipient.target.address, answer.lane)

        return Verdict(result, log)

    def _failed(
        self, recipient: QueuedRecipient, answer: PermanentFailure | TemporaryFailure
    ) -> Verdict:
        wanted = self._wants(recipient.target, Notify.FAILURE)
        result = Result(
            recipient.id,
            RecipientState.FAILED,
            self._last(answer),
            notice=Action.FAILED if wanted else None,
        )

        def log(now: RecipientState | None) -> None:
            if now is not None:
                maillog.failed(self._id, recipient.target.address, answer)

        return Verdict(result, log)

    def _deferred(self, recipient: QueuedRecipient, answer: TemporaryFailure) -> Verdict:
        next_attempt = self._next_attempt(recipient.born)
        if answer.at_once and self._progress:  # without progress it would be a loop
            next_attempt = self._now
        elif answer.pause:
            next_attempt = self._now + answer.pause
        elif self._policy.is_last(recipient.born, self._began):
            return self._failed(recipient, answer)
        late = self._policy.is_late(recipient.born, self._now)
        told = late and not recipient.delay_told and self._wants(recipient.target, Notify.DELAY)
        result = Result(
            recipient.id,
            RecipientState.WAITING,
            self._last(answer),
            next_attempt,
            notice=Action.DELAYED if told else None,
            late=late,
        )

        def log(now: RecipientState | None) -> None:
            if now is not None:
                until = None if now is RecipientState.HELD else next_attempt
                attempts = recipient.attempts + 1
                maillog.deferred(self._id, recipient.target.address, answer, attempts, until)

        return Verdict(result, log)

    def _next_attempt(self, born: float) -> float:
        """One time for all of an age: those that are tried together stay together."""
        if born not in self._again:
            step = LOCAL_STEP if is_here(self._message.lane) else REMOTE_STEP
            self._again[born] = self._policy.next_attempt(born, self._now, step)
        return self._again[born]

    def _last(self, answer: PermanentFailure | TemporaryFailure) -> LastAnswer:
        put_off = isinstance(answer, TemporaryFailure)
        return LastAnswer(answer.reply, answer.detail, answer.peer, self._now, put_off)

    def _wants(self, target: Target, what: Notify) -> bool:
        return wants(self._message.envelope, target, what)


def handed_on(alias: Target, answer: Expanded) -> list[Target]:
    """The targets of an alias with what they inherit of its wishes (RFC 3461 §5.2.7).

    A single target inherits them all (§5.2.7.2).
    Of several, each inherits all but SUCCESS: that the alias was expanded is told
    instead (§5.2.7.3, case c). What has the owner of a list as its sender inherits nothing
    (§5.2.7.1): whom it concerns is another, and he or she asked for nothing.
    """
    own = alias.dsn
    if own.notify is not None and (_ways(answer) > 1 or _has_owner(alias, answer)):
        own = replace(own, notify=own.notify & ~Notify.SUCCESS)
    return [
        replace(target, dsn=own if target.reverse_path == alias.reverse_path else NO_DSN)
        for target in answer.targets
    ]


def _ways(answer: Expanded) -> int:
    return len(answer.targets) + bool(answer.here)


def _has_owner(alias: Target, answer: Expanded) -> bool:
    return any(target.reverse_path != alias.reverse_path for target in answer.targets)


def alias_loop(circle: Sequence[str]) -> Reply:
    """What the sender is told of aliases that lead from one to the next, and back."""
    return Reply(554, "4.6", f"the alias leads back to itself: {' > '.join(circle)}")


def _circle(target: Target, trail: Sequence[str]) -> tuple[str, ...]:
    """The way from the target back to it, if it came by itself; empty: it did not."""
    if target.instruction:
        return ()
    names = [fold(alias) for alias in trail]
    if fold(target.address) not in names:
        return ()
    return (*trail[names.index(fold(target.address)) :], target.address)

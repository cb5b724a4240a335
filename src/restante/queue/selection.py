"""Which of the queued recipients an operator means, as a condition in SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from restante.address import VERP, Address, NullReversePath, check_domain, fold
from restante.labels import forms
from restante.queue import RecipientState

TABLES = "recipient r JOIN message m ON m.queue_id = r.queue_id LEFT JOIN lane l ON l.name = r.lane"
"""What a condition speaks of."""

Condition = tuple[str, tuple[str | float, ...]]
"""An expression over TABLES, and its parameters."""

_LAST = "nullif(r.last, '')"
_ENHANCED = f"(({_LAST} ->> 'code') / 100) || '.' || nullif({_LAST} ->> 'topic', '') || ' '"
_DETAIL = f"' (' || nullif({_LAST} ->> 'detail', '') || ')'"
_ANSWER = (
    f"({_LAST} ->> 'code') || ' ' || coalesce({_ENHANCED}, '') || ({_LAST} ->> 'text')"
    f" || coalesce({_DETAIL}, '')"
)
"""A recipient's last answer, as ``str(LastAnswer)`` has it but for line ends; NULL before one."""
_HOST = f"{_LAST} -> 'peer' ->> 'host'"
LEFT_ALONE = "CASE WHEN l.blocked_until > unixepoch() THEN l.why END"


class By(StrEnum):
    """What recipients are grouped by."""

    LANE = "lane"
    DOMAIN = "domain"
    SENDER = "sender"
    REASON = "reason"
    AGE = "age"


@dataclass(frozen=True, slots=True)
class AddressPattern:
    """One address, or every address of a domain."""

    domain: str
    local: str | None = None
    """None: every one."""

    @classmethod
    def parse(cls, text: str) -> AddressPattern:
        """What ``user@example.com``, ``@example.com`` or ``example.com`` mean.

        Raises AddressSyntaxError.
        """
        if "@" not in text[1:]:
            return cls(check_domain(text.removeprefix("@")))
        address = Address.from_stored(text) if text.endswith(VERP) else Address.parse(text)
        return cls(address.domain, address.local)


@dataclass(frozen=True, slots=True)
class Selection:
    """Queued recipients; each field that is set leaves fewer of them."""

    ids: frozenset[str] = frozenset()
    """Of these messages; empty: of all."""
    sender: AddressPattern | NullReversePath | None = None
    to: AddressPattern | None = None
    lane: str | None = None
    """Leaving by this lane; None: by any."""
    accepted_before: float | None = None
    """Seconds since the epoch."""
    ahead: frozenset[str] = frozenset()
    """Messages that count as accepted before that: they came by a clock that was ahead."""
    accepted_after: float | None = None
    reason: str = ""
    """A part of their last answer or of why their lane is left alone, in whatever case."""
    states: tuple[RecipientState, ...] = ()
    """Empty: whatever keeps a message in the queue."""

    def condition(self) -> Condition:
        """What is true of them, and only of them."""
        parts = list(self._conditions())
        return (
            " AND ".join(f"({text})" for text, _ in parts),
            tuple(each for _, parameters in parts for each in parameters),
        )

    def _conditions(self) -> Iterator[Condition]:
        yield _standing(self.states)
        if self.ids:
            yield "r.queue_id IN (SELECT value FROM json_each(?))", (json.dumps([*self.ids]),)
        if self.sender is not None:
            yield _sender(self.sender)
        if self.to is not None:
            yield _recipient(self.to)
        if self.lane is not None:
            # Plus: not by the lane's index, for whoever reads goes by the order of messages.
            yield "+r.lane = ?", (self.lane,)
        if self.accepted_before is not None:
            yield (
                "r.received_at <= ? OR r.queue_id IN (SELECT value FROM json_each(?))",
                (self.accepted_before, json.dumps([*self.ahead])),
            )
        if self.accepted_after is not None:
            yield "r.received_at >= ?", (self.accepted_after,)
        if self.reason:
            sought = fold(self.reason)
            texts = (_ANSWER, _HOST, LEFT_ALONE)
            yield " OR ".join(f"instr(lower({text}), ?)" for text in texts), (sought,) * len(texts)


EVERYTHING = Selection()
"""Whatever keeps a message in the queue."""


def _standing(states: tuple[RecipientState, ...]) -> Condition:
    if not states:
        return "r.state IN ('waiting', 'held') OR r.notice <> ''", ()
    return f"r.state IN ({', '.join('?' * len(states))})", states


def _sender(pattern: AddressPattern | NullReversePath) -> Condition:
    if isinstance(pattern, NullReversePath):
        return "m.sender_local IS NULL", ()
    domains = forms(pattern.domain)
    in_domain = f"m.sender_domain IN ({', '.join('?' * len(domains))})"
    if pattern.local is None:
        return in_domain, domains
    return f"{in_domain} AND lower(m.sender_local) = ?", (*domains, fold(pattern.local))


def _recipient(pattern: AddressPattern) -> Condition:
    """SQLite's ``lower`` folds ASCII alone, as ``fold`` does."""
    endings = [f"@{domain}" for domain in forms(pattern.domain)]
    if pattern.local is None:
        parameters = [each for ending in endings for each in (-len(ending), ending)]
        return " OR ".join(["substr(lower(r.address), ?) = ?"] * len(endings)), tuple(parameters)
    addresses = [fold(pattern.local) + ending for ending in endings]
    return f"lower(r.address) IN ({', '.join('?' * len(addresses))})", tuple(addresses)

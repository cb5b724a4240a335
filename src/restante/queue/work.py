"""What the store hands out, and what it is told of it: values between store and scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from restante.queue import BackOff, Notice, QueuedMessage, RecipientState


@dataclass(frozen=True, slots=True)
class PendingReport:
    """A message, without its recipients, and what one sender is to be told of them."""

    message: QueuedMessage
    """Its envelope has that sender, who may be the owner of a list by which it went."""
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What is due."""

    messages: tuple[QueuedMessage, ...]
    reports: tuple[PendingReport, ...]
    next_due: float
    """When there is more, unless something changes before; infinity: never."""


@dataclass(frozen=True, slots=True)
class LaneNews:
    """What an attempt taught about its lane."""

    began: float
    """When the attempt did, in seconds since the epoch."""
    back_off: BackOff | None
    """None: the lane works."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a record led to."""

    finished: bool
    """Nothing of the message waits any more, and nobody is to be told: it is gone."""
    states: Mapping[int, RecipientState | None]
    """What each recipient is now. None: the result was void, for an operator had settled the
    recipient, or removed it, meanwhile."""
    blocked_until: float | None
    """The lane is left alone from now on (seconds since the epoch); None: no change."""
    recovered: bool
    """The lane had been failing, and works again."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a report."""

    told: bool
    """False: an operator had made it needless; it was not queued."""
    finished: bool
    """See Recorded."""

"""Where the events of this process go: to one keeper, which may be another one at any time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DEBUG, INFO, WARNING, ERROR, NONE = range(5)
"""How much an event matters; no event is of level NONE."""

Fields = dict[str, Any]
"""What an event tells, in the order of the log; ``exc_info`` is an exception."""
Keep = Callable[[str, str, Fields], None]
"""Takes an event: its level in words, its name, and its fields, which are the keeper's to change.
Called in any thread; never raises."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Who keeps events, and from which level on."""

    keep: Keep
    least: int


def _forget(_level: str, _event: str, _fields: Fields) -> None:
    """Nobody asked."""


NOWHERE = Destination(_forget, NONE)


class EventLog:
    """Takes events and hands them on; at first nobody keeps them."""

    __slots__ = ("destination",)

    def __init__(self) -> None:
        self.destination = NOWHERE
        """May be set at any time; whoever borrows it puts back what was there."""

    def debug(self, event: str, /, **fields: Any) -> None:
        """What is wanted only where something is looked for."""
        to = self.destination
        if to.least <= DEBUG:
            to.keep("debug", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """What happens every day."""
        to = self.destination
        if to.least <= INFO:
            to.keep("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """What an operator may have to look into."""
        to = self.destination
        if to.least <= WARNING:
            to.keep("warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """What an operator has to look into."""
        to = self.destination
        if to.least <= ERROR:
            to.keep("error", event, fields)


log = EventLog()
"""The process's own. The functions of ``maillog`` write to it, and nothing else does."""

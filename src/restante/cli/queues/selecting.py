"""How the messages that a command is about are named on the command line."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from restante.address import AddressSyntaxError

if TYPE_CHECKING:
    from restante.address import NullReversePath
    from restante.queue.selection import AddressPattern, Selection

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(?:\d+[smhdw])+")
_PART = re.compile(r"(\d+)([smhdw])")


class State(StrEnum):
    """The states of recipients that keep a message in the queue."""

    WAITING = "waiting"
    HELD = "held"


Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="These messages.", show_default=False),
]
SenderFilter = Annotated[
    str | None,
    typer.Option(
        "--sender",
        "-s",
        metavar="ADDRESS",
        help="From this address or this domain; '<>': reports of failures.",
        show_default=False,
    ),
]
ToFilter = Annotated[
    str | None,
    typer.Option(
        "--to",
        "--recipient-domain",
        "-t",
        metavar="ADDRESS",
        help="Only recipients with this address or in this domain.",
        show_default=False,
    ),
]
LaneFilter = Annotated[
    str | None,
    typer.Option(
        "--lane",
        metavar="LANE",
        help="Only recipients that leave by this lane, as summary names it.",
        show_default=False,
    ),
]
OlderFilter = Annotated[
    str | None,
    typer.Option(
        "--older", metavar="SPAN", help="Accepted longer ago: 90s, 15m, 2h, 1d12h, 1w.",
        show_default=False,
    ),
]  # fmt: skip
NewerFilter = Annotated[
    str | None,
    typer.Option("--newer", metavar="SPAN", help="Accepted since then.", show_default=False),
]
ReasonFilter = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", show_default=False,
        help="Only recipients who wait for a reason that holds this text.",
    ),
]  # fmt: skip
StateFilter = Annotated[
    State | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help="Only recipients in this state: waiting, held.",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="All messages.")]

HERE = "local"
"""What the lane of deliveries here is called."""


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a command line, as they were written."""

    sender: str | None
    to: str | None
    lane: str | None
    older: str | None
    newer: str | None
    reason: str | None
    state: State | None = None

    @property
    def given(self) -> bool:
        """Whether there is any."""
        named = (self.sender, self.to, self.lane, self.older, self.newer, self.reason)
        return any(value is not None for value in named)

    def selection(self, ids: list[str] | None = None) -> Selection:
        """What they mean now; raises BadParameter, which ends the command with a usage error."""
        from restante.queue import RecipientState
        from restante.queue.selection import Selection

        now = time.time()
        return Selection(
            ids=frozenset(ids or ()),
            sender=None if self.sender is None else _sender(self.sender),
            to=None if self.to is None else _pattern("--to", self.to),
            lane=None if self.lane is None else _lane(self.lane),
            accepted_before=None if self.older is None else now - span("--older", self.older),
            accepted_after=None if self.newer is None else now - span("--newer", self.newer),
            reason="" if self.reason is None else _text("--reason", self.reason, "a text"),
            states=() if self.state is None else (RecipientState(self.state),),
        )


def lane_name(lane: str) -> str:
    """What a lane is called here, and by --lane."""
    return lane or HERE


def span(option: str, text: str) -> float:
    """The seconds that ``2h`` or ``1d12h`` are; raises BadParameter."""
    if not _SPAN.fullmatch(text):
        raise typer.BadParameter(f"{option}: {text!r} is no span; write 90s, 15m, 2h, 1d12h or 1w")
    return float(sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def _sender(text: str) -> AddressPattern | NullReversePath:
    from restante.address import NULL_REVERSE_PATH

    if _text("--sender", text, "an address or '<>'") == "<>":
        return NULL_REVERSE_PATH
    return _pattern("--sender", text)


def _lane(text: str) -> str:
    from restante.queue import LOCAL_LANE

    return LOCAL_LANE if _text("--lane", text, f"a lane, or {HERE}") == HERE else text


def _text(option: str, text: str, wanted: str) -> str:
    """``text``, which must not be empty, as a variable of a script that was never set is."""
    if not text:
        raise typer.BadParameter(f"{option} is empty; write {wanted}")
    return text


def _pattern(option: str, text: str) -> AddressPattern:
    from restante.queue.selection import AddressPattern

    try:
        return AddressPattern.parse(text)
    except AddressSyntaxError as error:
        raise typer.BadParameter(
            f"{option}: {text!r} is neither an address nor a domain: {error}"
        ) from None


def not_found(queue_id: str) -> str:
    """What is said of an id that no message has."""
    return f"no queue has a message {queue_id!r}; it may have been delivered by now"

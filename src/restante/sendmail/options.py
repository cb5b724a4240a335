"""The command line of sendmail, as programs have called it for forty years.

Options come first, may be joined (``-ti``), and take their value attached or as the next
argument (``-fann`` or ``-f ann``); ``--`` or the first other argument ends them. What other
sendmails know and this one has no use for is accepted and ignored.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from restante.sendmail import Refusal

MAX_ENVID = 100
"""Octets of an envelope id as SMTP writes it (RFC 3461 §4.4)."""

_FLAGS = frozenset("cGIimnstUvx")
_WITH_VALUE = frozenset("ABbCDFfhLNOopRrVX")
_WITH_ATTACHED = frozenset("deq")
"""Their value, if any, is in the same argument."""
_NOTIFY = ("SUCCESS", "FAILURE", "DELAY")
_REFUSED_MODES = {
    "d": "the server is started with: restante serve",
    "D": "the server is started with: restante serve",
    "t": "how an address is routed is shown by: restante explain ADDRESS",
    "v": "how an address is routed is shown by: restante explain ADDRESS",
}


class Mode(Enum):
    """What the program is to do."""

    DELIVER = auto()
    SMTP = auto()
    QUEUE = auto()
    """Show it."""
    RETRY = auto()
    """Try what is in the queue."""
    ALIASES = auto()


class Options(NamedTuple):
    """What the command line says."""

    mode: Mode = Mode.DELIVER
    recipients: tuple[str, ...] = ()
    """As they stand: address lists."""
    from_header: bool = False
    """-t: the header's recipients count too."""
    ends_with_dot: bool = True
    """A line that is a single dot ends the message; -i and -oi switch that off."""
    sender: str | None = None
    """-f or -r; ``""`` and ``<>`` are the null reverse-path."""
    name: str | None = None
    """-F."""
    notify: str = ""
    ret: str = ""
    envid: str = ""
    """The three as in ``drop.record``."""


_MODES = {"m": Mode.DELIVER, "s": Mode.SMTP, "p": Mode.QUEUE, "i": Mode.ALIASES}
"""By the value of -b."""
_PROGRAMS = {"mailq": Mode.QUEUE, "newaliases": Mode.ALIASES}
"""Other names of the program, and what they mean."""


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line, its program name included; raises Refusal (EX_USAGE)."""
    program = os.path.basename(arguments[0])
    reading = _Reading(arguments[1:], Options(mode=_PROGRAMS.get(program, Mode.DELIVER)))
    return reading.options()


class _Reading:
    def __init__(self, arguments: Sequence[str], options: Options) -> None:
        self._left = list(reversed(arguments))
        self._options = options

    def options(self) -> Options:
        while self._left and self._left[-1].startswith("-") and self._left[-1] != "-":
            argument = self._left.pop()
            if argument == "--":
                break
            self._take_argument(argument)
        return self._options._replace(recipients=tuple(reversed(self._left)))

    def _take_argument(self, argument: str) -> None:
        """``-x``, ``-xyz``, ``-xVALUE``."""
        for position, letter in enumerate(argument[1:], start=2):
            rest = argument[position:]
            if letter in _FLAGS:
                self._take_flag(letter)
            elif letter in _WITH_VALUE:
                self._take_value(letter, rest or self._next(letter))
                return
            elif letter in _WITH_ATTACHED:
                self._take_attached(letter, rest)
                return
            else:
                raise _usage(f"there is no option -{letter}")

    def _next(self, letter: str) -> str:
        if not self._left:
            raise _usage(f"option -{letter} needs a value")
        return self._left.pop()

    def _take_flag(self, letter: str) -> None:
        if letter == "t":
            self._options = self._options._replace(from_header=True)
        elif letter == "i":
            self._options = self._options._replace(ends_with_dot=False)
        elif letter == "I":
            self._options = self._options._replace(mode=Mode.ALIASES)

    def _take_attached(self, letter: str, value: str) -> None:
        if letter == "q" and value:
            raise _usage("-q takes no value: the server keeps its own times; see restante queue")
        if letter == "q":
            self._options = self._options._replace(mode=Mode.RETRY)

    def _take_value(self, letter: str, value: str) -> None:
        options = self._options
        if letter in "fr":
            options = options._replace(sender="" if value == "<>" else value)
        elif letter == "F":
            options = options._replace(name=value)
        elif letter == "b":
            options = options._replace(mode=_mode(value))
        elif letter == "o" and value == "i":
            options = options._replace(ends_with_dot=False)
        elif letter == "N":
            options = options._replace(notify=_notify(value))
        elif letter == "R":
            options = options._replace(ret=_one_of("-R", value, ("FULL", "HDRS")))
        elif letter == "V":
            options = options._replace(envid=_envid(value))
        elif letter == "B":
            _one_of("-B", value, ("7BIT", "8BITMIME"))  # the content itself says which it is
        self._options = options


def _mode(value: str) -> Mode:
    if value in _REFUSED_MODES:
        raise _usage(f"there is no -b{value}: {_REFUSED_MODES[value]}")
    if value not in _MODES:
        raise _usage(f"there is no -b{value}")
    return _MODES[value]


def _notify(value: str) -> str:
    if value.upper() == "NEVER":
        return "NEVER"
    return ",".join(_one_of("-N", each, _NOTIFY) for each in value.split(","))


def _one_of(option: str, value: str, known: Sequence[str]) -> str:
    if value.upper() not in known:
        raise _usage(f"{option} knows {', '.join(known)}, not {value!r}")
    return value.upper()


def _envid(value: str) -> str:
    size = len(value) + 2 * sum(map(value.count, " +="))  # these are three octets in xtext
    if not (value.isascii() and value.isprintable() and 0 < size <= MAX_ENVID):
        raise _usage(
            f"-V takes 1 to {MAX_ENVID} printable ASCII characters; a space, + and = count as three"
        )
    return value


def _usage(text: str) -> Refusal:
    return Refusal(os.EX_USAGE, text)

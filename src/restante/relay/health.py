"""Which hosts did not answer lately: they are left alone for a while, as qmail's tcpto does.

A dead host costs each attempt a time-out. Many domains may share it, so it is
remembered by address and port, whatever mail was for. It is so until it answers, when
its rest is over too: or else a host that hangs would keep mail from the one behind it, as an
attempt has time for two of them.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from restante.relay.resolver import Endpoint

FIRST_REST = 60.0
"""Seconds for which a host is left alone that did not answer; doubled each time."""
LONGEST_REST = 1800.0
PROBE_TIME = 60.0
"""Seconds for which others keep off while one attempt finds out whether the host is back."""
MAX_HOSTS = 10_000
"""Hosts that are remembered; who failed longest ago makes room."""


@dataclass(slots=True)
class _Silence:
    rest: float
    until: float
    probed: bool = False
    """One attempt finds out whether the host is back."""


class Health:
    """What connections to hosts came to."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds and never goes back."""
        self._clock = clock
        self._silent: OrderedDict[tuple[str, int], _Silence] = OrderedDict()

    def rest(self, endpoint: Endpoint) -> float:
        """Seconds for which the host is to be left alone; 0: whoever asked tries it now."""
        silence = self._silent.get(_key(endpoint))
        if silence is None:
            return 0.0
        now = self._clock()
        if now < silence.until:
            return silence.until - now
        silence.until = now + PROBE_TIME
        silence.probed = True
        return 0.0

    def failed(self, endpoint: Endpoint) -> None:
        """It did not answer: it could not be connected to, or said nothing.

        Attempts that were under way together fail together, and count once.
        """
        known = self._silent.get(_key(endpoint))
        if known is not None and not known.probed:
            return
        self._silent.pop(_key(endpoint), None)
        rest = FIRST_REST if known is None else min(known.rest * 2 or FIRST_REST, LONGEST_REST)
        self._silent[_key(endpoint)] = _Silence(rest, self._clock() + rest)
        self._make_room()

    def stalled(self, endpoint: Endpoint) -> None:
        """It answered, and fell silent over TLS, or during a message.

        That may be TLS's trouble alone, or the message's own. So it does not rest; but it has its
        turn as those that do.
        """
        silence = _Silence(0.0, self._clock(), probed=True)
        self._silent.setdefault(_key(endpoint), silence)
        self._make_room()

    def in_turn(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """In the order in which one attempt is to try them: those that were silent come last.

        But for one of those in front, whose rest is over or ends first: it keeps its place, so
        that a good host gets its mail again once it is back.
        """
        silent = [each for each in endpoints if _key(each) in self._silent]
        in_front = list(itertools.takewhile(silent.__contains__, endpoints))
        if in_front:
            silent.remove(min(in_front, key=self._end_of_rest))
        return (*(each for each in endpoints if each not in silent), *silent)

    def _end_of_rest(self, endpoint: Endpoint) -> float:
        return self._silent[_key(endpoint)].until

    def _make_room(self) -> None:
        if len(self._silent) > MAX_HOSTS:
            self._silent.popitem(last=False)

    def forget(self) -> None:
        """All of them may be tried: an operator may know that a host is back."""
        self._silent.clear()

    def answered(self, endpoint: Endpoint) -> None:
        """It said something, whatever it was."""
        self._silent.pop(_key(endpoint), None)


def _key(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.address, endpoint.port

"""Which hosts did not answer lately: they are left alone for a while, as qmail's tcpto does.

A dead host costs each attempt a time-out. Many domains may share it, so it is
remembered by address and port, whatever mail was for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
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
        rest = FIRST_REST if known is None else min(known.rest * 2, LONGEST_REST)
        self._silent[_key(endpoint)] = _Silence(rest, self._clock() + rest)
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

"""What the supervisor waits for: signals, and whoever writes to one of its descriptors.

No event loop, and nothing that a fork would share with a child but the descriptors themselves
(poll(2), not epoll(7)). Signals stay blocked and are taken one at a time, so that none of them
interrupts anything; a signalfd(2) says when there are some.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable, Collection, Iterator
from socket import socket
from typing import Any, cast

_SIGSET_OCTETS = 128
"""Of ``sigset_t``, with glibc and musl alike."""
_SFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Descriptors with what to call when they can be read, and the signals that have come."""

    def __init__(self, signals: Collection[signal.Signals]) -> None:
        """``signals`` must be blocked already; raises OSError."""
        self._signals = tuple(signals)
        self._come: deque[int] = deque()
        self._selector = selectors.PollSelector()
        self.add(_signal_descriptor(self._signals), self._take_signals)

    def add(self, readable: socket | int, call: Callable[[], None]) -> None:
        """Have ``call`` called by ``serve`` whenever there is something to read."""
        self._selector.register(readable, selectors.EVENT_READ, call)

    def drop(self, readable: socket | int) -> None:
        """No more, before the descriptor is closed; nothing if it is not watched."""
        if readable in self._selector.get_map():
            self._selector.unregister(readable)

    def serve(self, timeout: float | None) -> None:
        """Wait for something, so many seconds at most, and make the calls that are due."""
        for key, _ in self._selector.select(timeout):
            if self._is_watched(key):
                key.data()

    @property
    def come(self) -> Collection[int]:
        """The signals that have come and were not taken yet."""
        return self._come

    def signals(self) -> Iterator[int]:
        """The signals that have come while it served, each once."""
        while self._come:
            yield self._come.popleft()

    def close(self) -> None:
        """Close all that is watched; in a child, which leaves it to its parent, as well."""
        watched = [key.fileobj for key in self._selector.get_map().values()]
        self._selector.close()
        for each in watched:
            if isinstance(each, int):
                os.close(each)
            else:
                cast(socket, each).close()

    def _take_signals(self) -> None:
        while (info := signal.sigtimedwait(self._signals, 0)) is not None:
            self._come.append(info.si_signo)

    def _is_watched(self, key: selectors.SelectorKey) -> bool:
        """A call before this one may have dropped it."""
        known: Any = self._selector.get_map().get(key.fileobj)
        return known is key


def _signal_descriptor(signals: Collection[signal.Signals]) -> int:
    mask = ctypes.create_string_buffer(_SIGSET_OCTETS)
    _libc.sigemptyset(mask)
    for number in signals:
        _libc.sigaddset(mask, int(number))
    descriptor: int = _libc.signalfd(-1, mask, _SFD_FLAGS)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return descriptor

"""Taking connections from a socket that all workers share, by turns.

One queue of connections for all: none waits for a worker that is busy while another is free, and
none is lost with a worker that ends.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from restante.net.shares import Share

PATIENCE = 0.002
"""Seconds for which a connection is left to the worker that is due, ..."""
MOST_PATIENCE = 0.016
"""... and no more than so many, twice as long each time until this worker is due again."""
ALONE = 0.1
"""Seconds for which nobody is waited for, where whoever was due has left one lying so long."""
ACCEPT_PAUSE = 0.1
"""Seconds to wait when a connection cannot be accepted."""


class Accepted(socket.socket):
    """A connection. Its family and type are the numbers that they are to the kernel.

    A socket's are members of enumerations otherwise, which are looked up whenever an event loop
    asks: some twenty calls for each connection.
    """

    __slots__ = ()

    family = socket.SocketType.family  # type: ignore[assignment]
    type = socket.SocketType.type  # type: ignore[assignment]


class Acceptor:
    """One listening socket in one worker."""

    def __init__(
        self,
        bound: socket.socket,
        share: Share,
        due: Callable[[], int],
        take: Callable[[socket.socket, str], bool],
        failed: Callable[[OSError], None],
    ) -> None:
        """``bound`` does not block, as others take connections from it too.

        ``due`` says, by what ``share`` knows, which worker's the next one is.
        ``take`` is given each connection and the client's address, and says whether it is held
        from now on; ``failed``: why there is none, if that is for the operator to know.
        """
        self._bound = bound
        self._kind = int(bound.family), int(bound.type), bound.proto
        self._share = share
        self._due = due
        self._take = take
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = None
        """Until it listens again."""
        self._alone_until = 0.0
        self._patience = PATIENCE
        self._left_to = 0
        """The worker that was due when a connection was left to it ..."""
        self._had_taken = 0
        """... and how many it had taken then."""
        self._listen()

    def close(self) -> None:
        """Accept no more, and close the socket."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self._loop.remove_reader(self._bound.fileno())
        self._bound.close()

    def _listen(self) -> None:
        self._loop.add_reader(self._bound.fileno(), self._knocked)

    def _knocked(self) -> None:
        due = self._due()
        if self._share.is_own(due):
            if self._accept():
                self._patience = PATIENCE
        elif self._loop.time() < self._alone_until:
            self._accept()
        else:
            self._left_to, self._had_taken = due, self._share.taken_by(due)
            self._pause(self._patience, self._insist)
            self._share.when_due(self._resume, self._due)

    def _accept(self) -> bool:
        """Take one connection, if another worker has not been faster; whether it is held now."""
        try:
            # What accept() itself calls, which would make a socket of the usual class.
            descriptor, (address, *_) = self._bound._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:  # no descriptor is left, for instance
            self._failed(error)
            self._pause(ACCEPT_PAUSE, self._resume)
            return False
        if self._take(Accepted(*self._kind, descriptor), address):
            return True
        self._alone_until = 0.0  # it was turned away, and whoever is due may have room for the next
        return False

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._bound.fileno())
        self._waiting = self._loop.call_later(seconds, then)

    def _resume(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            self._listen()

    def _insist(self) -> None:
        """Listen again, and take what lies there, unless whoever was due has taken any meanwhile.

        It may have listened no more itself, for MOST_PATIENCE at the longest; then it hangs.
        """
        self._resume()
        patience, self._patience = self._patience, min(2 * self._patience, MOST_PATIENCE)
        is_at_work = self._share.taken_by(self._left_to) != self._had_taken
        if not is_at_work and self._accept() and patience >= MOST_PATIENCE:
            self._alone_until = self._loop.time() + ALONE

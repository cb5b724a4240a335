"""Several servers that have the same rows: which of them is asked.

The nodes of a Galera cluster are such servers; the nearest one is named first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from restante import maillog
from restante.directory.engine import MySQLServer

REST = 10.0
"""Seconds for which a server that failed is left alone while there are others."""


class Servers:
    """The first one in the order given that has not failed lately.

    When one has been left alone for long enough, a single connection finds out whether it is
    back, while everybody else goes on with another. Belongs to one event loop.
    """

    def __init__(
        self, servers: Sequence[MySQLServer], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._servers = tuple(servers)
        self._clock = clock
        self._until: dict[MySQLServer, float] = {}
        self._nearest = self._last = self._servers[0]

    @property
    def first(self) -> MySQLServer:
        """The one to be asked now."""
        if not self._until:
            return self._nearest
        return next(self._well(), self._last)

    @property
    def is_any_well(self) -> bool:
        """Whether there is one that has not failed lately."""
        return next(self._well(), None) is not None

    def turns(self) -> Iterator[MySQLServer]:
        """Those to which a connection is to be tried, in this order.

        Those that are left alone are not among them, but the one that answered last, as the last
        resort: where none is well, a question has its failure soon, and one that was only slow its
        answer. One that has not ``failed`` by then, though nobody got a connection, is better than
        that.
        """
        well = list(self._well())
        for server in well:
            if server in self._until:
                self.failed(server)  # until it has answered, others need not try it as well
            yield server
        if self._last not in well and not self.is_any_well:
            yield self._last

    def failed(self, server: MySQLServer) -> None:
        """It did not answer, or said that it must not."""
        self._until[server] = self._clock() + REST

    def answered(self, server: MySQLServer) -> None:
        """It did what it was asked: it is well. To be connected is not enough."""
        if self._until:
            self._until.pop(server, None)
        if server is not self._last:
            self._last = server
            maillog.database_server(str(server))

    def _well(self) -> Iterator[MySQLServer]:
        now = self._clock()
        return (each for each in self._servers if self._until.get(each, 0.0) <= now)

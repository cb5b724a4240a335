"""Bound sockets: one for each worker at each address, so that the kernel spreads connections."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from restante.config import Settings
from restante.config.tree import HostPort
from restante.errors import OperatorError

BIND_PATIENCE = 3.0
"""Seconds to wait for the workers of a killed supervisor to leave their ports."""
BIND_INTERVAL = 0.1
BACKLOG = 1024
"""Connections that the kernel holds until a worker accepts them."""


class PortTaken(OperatorError):
    """An address cannot be listened on; the text says which and why."""


@dataclass(slots=True)
class Listener:
    """One address of one service: ``sockets[n]`` is for the n-th worker."""

    service: str
    wanted: HostPort
    bound: HostPort
    sockets: list[socket.socket] = field(default_factory=list)

    def widen(self, workers: int) -> None:
        """Have a socket for each of so many workers."""
        while len(self.sockets) < workers:
            self.sockets.append(_listen(self.service, self.bound, shared=True))
        while len(self.sockets) > workers:
            self.sockets.pop().close()

    def close(self) -> None:
        """Leave the address."""
        for bound in self.sockets:
            bound.close()
        self.sockets.clear()


class Listeners:
    """All addresses that the settings name."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, HostPort], Listener] = {}

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._listeners.values())

    def adjust(self, settings: Settings) -> list[Listener]:
        """Bind what is new in the settings; nothing changes when that fails.

        Returns the listeners that the settings no longer name: they are to be closed when
        the workers that serve them are gone. Raises PortTaken.
        """
        wanted = list(wanted_listeners(settings))
        new: dict[tuple[str, HostPort], Listener] = {}
        try:
            for key in wanted:
                if key not in self._listeners:
                    new[key] = _bind(*key)
        except OperatorError:
            for listener in new.values():
                listener.close()
            raise
        unused = [listener for key, listener in self._listeners.items() if key not in wanted]
        kept = self._listeners | new
        self._listeners = {key: kept[key] for key in wanted}
        for listener in self:
            listener.widen(settings.server.workers)
        return unused

    def for_worker(self, number: int) -> dict[str, list[socket.socket]]:
        """The sockets of the ``number``-th worker, by service."""
        sockets: dict[str, list[socket.socket]] = {}
        for listener in self:
            sockets.setdefault(listener.service, []).append(listener.sockets[number])
        return sockets

    def close(self) -> None:
        """Leave all addresses."""
        for listener in self:
            listener.close()


def wanted_listeners(settings: Settings) -> Iterator[tuple[str, HostPort]]:
    """Service and address of every listener that the settings name, each once."""
    named = [("smtp", address) for address in settings.smtp.listen]
    named += [("pop3", address) for address in settings.pop3.listen]
    named += [("metrics", address) for address in settings.metrics.listen]
    return iter(dict.fromkeys(named))


def probe(service: str, address: HostPort) -> None:
    """Raise PortTaken unless the address is free to listen on."""
    _listen(service, address, shared=False).close()


def _bind(service: str, address: HostPort) -> Listener:
    _await_free(service, address)
    first = _listen(service, address, shared=True)
    bound = HostPort(address.host, first.getsockname()[1])
    return Listener(service, address, bound, [first])


def _await_free(service: str, address: HostPort) -> None:
    """Sockets that share a port would hide another server on it, so ask for it alone first."""
    deadline = time.monotonic() + BIND_PATIENCE
    while True:
        try:
            probe(service, address)
        except PortTaken:
            if time.monotonic() > deadline:
                raise
            time.sleep(BIND_INTERVAL)
        else:
            return


def _listen(service: str, address: HostPort, *, shared: bool) -> socket.socket:
    bound: socket.socket | None = None
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(target)
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise PortTaken(
            f"cannot listen on {address} for {service}: {error.strerror or error}; "
            f"end what uses it or change {service}.listen"
        ) from error
    return bound

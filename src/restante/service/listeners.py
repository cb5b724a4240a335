"""Bound sockets: one for each worker at each address, so that the kernel spreads connections.

A socket that the service manager has bound is shared by all workers.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from restante.config import Settings
from restante.config.listeners import LISTENERS, setting_of
from restante.config.tree import HostPort
from restante.errors import OperatorError
from restante.service.manager import Passed

BIND_PATIENCE = 3.0
"""Seconds to wait for the workers of a killed supervisor to leave their ports."""
BIND_INTERVAL = 0.1
BACKLOG = 1024
"""Connections that the kernel holds until a worker accepts them."""


class PortTaken(OperatorError):
    """An address cannot be listened on; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One address of one service: ``sockets[n]`` is for the n-th worker."""

    service: str
    wanted: HostPort
    bound: HostPort
    sockets: tuple[socket.socket, ...]
    passed: socket.socket | None = None
    """What the service manager has bound: each socket is the same one as this."""


class Listeners:
    """All addresses that some settings name; never changed, so that a reload can be undone.

    Where the service manager has passed sockets for a service, they stand in place of what the
    settings name for it.
    """

    def __init__(self, listeners: Iterable[Listener] = (), passed: Passed | None = None) -> None:
        self._listeners = {(each.service, each.wanted): each for each in listeners}
        self._passed = passed or {}

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._listeners.values())

    def adjusted(self, settings: Settings) -> Listeners:
        """The listeners of ``settings``, which share what they can with these.

        These stay as they are: whichever is not wanted any more is closed with ``close``.
        Raises PortTaken, with nothing new bound.
        """
        fresh: list[Listener] = []
        try:
            for listener in self._wanted(settings):
                fresh.append(listener)
                fresh[-1] = _widened(listener, settings.server.workers)
        except OperatorError:
            Listeners(fresh).close(keep=self)
            raise
        return Listeners(fresh, self._passed)

    def _wanted(self, settings: Settings) -> Iterator[Listener]:
        for key in wanted_listeners(settings):
            if key[0] not in self._passed:
                yield self._listeners.get(key) or _bind(*key)
        for service, sockets in self._passed.items():
            if _needs_tls(service) and not settings.tls.is_offered:
                raise OperatorError(
                    f"a socket is passed for {service}, which needs a certificate; set "
                    "tls.certificate and tls.key"
                )
            for bound in sockets:
                address = HostPort(*bound.getsockname()[:2])
                known = self._listeners.get((service, address))
                yield known or Listener(service, address, address, (), bound)

    def for_worker(self, number: int) -> dict[str, list[socket.socket]]:
        """The sockets of the ``number``-th worker, by service."""
        sockets: dict[str, list[socket.socket]] = {}
        for listener in self:
            sockets.setdefault(listener.service, []).append(listener.sockets[number])
        return sockets

    def close(self, keep: Listeners | None = None) -> None:
        """Leave all addresses, but for the sockets that ``keep`` has too."""
        kept = {id(bound) for listener in keep or () for bound in listener.sockets}
        for listener in self:
            _close(bound for bound in listener.sockets if id(bound) not in kept)

    def close_for_worker(self, number: int) -> None:
        """In a worker: give up the sockets of its fellows.

        A socket that nobody accepts from, but that somebody holds, still takes connections.
        """
        for listener in self:
            _close(bound for place, bound in enumerate(listener.sockets) if place != number)


def wanted_listeners(settings: Settings) -> Iterator[tuple[str, HostPort]]:
    """Service and address of every listener that the settings name, each once."""
    named = ((each.name, address) for each in LISTENERS for address in each.addresses(settings))
    return iter(dict.fromkeys(named))


def _needs_tls(service: str) -> bool:
    return next(each.tls for each in LISTENERS if each.name == service)


def probe(service: str, address: HostPort) -> None:
    """Raise PortTaken unless the address is free to listen on."""
    _listen(service, address, shared=False).close()


def _bind(service: str, address: HostPort) -> Listener:
    _await_free(service, address)
    first = _listen(service, address, shared=True)
    bound = HostPort(address.host, first.getsockname()[1])
    return Listener(service, address, bound, (first,))


def _widened(listener: Listener, workers: int) -> Listener:
    """The listener with a socket for each of so many workers; raises PortTaken."""
    sockets = list(listener.sockets[:workers])
    mine = len(sockets)
    try:
        while len(sockets) < workers:
            sockets.append(_another(listener))
    except OperatorError:
        _close(sockets[mine:])
        raise
    return replace(listener, sockets=tuple(sockets))


def _another(listener: Listener) -> socket.socket:
    """One more socket at the listener's address; raises PortTaken."""
    if listener.passed is None:
        return _listen(listener.service, listener.bound, shared=True)
    try:
        return listener.passed.dup()
    except OSError as error:
        raise PortTaken(f"the socket passed for {listener.service}: {error.strerror}") from error


def _close(sockets: Iterable[socket.socket]) -> None:
    for bound in sockets:
        bound.close()


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
            f"{_remedies(error.errno)}change {'.'.join(setting_of(service))}"
        ) from error
    return bound


def _remedies(number: int | None) -> str:
    """What else can be done about it than listening elsewhere."""
    if number == errno.EADDRINUSE:
        return "end what uses it or "
    if number == errno.EACCES:
        return "start the server as root or "
    return ""

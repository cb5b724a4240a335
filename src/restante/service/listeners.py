"""Bound sockets: one at each address, which all workers share."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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
    """One address of one service."""

    service: str
    wanted: HostPort
    bound: HostPort
    socket: socket.socket


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
                fresh.append(listener)  # noqa: PERF402 - those before one that fails are closed
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
                yield known or Listener(service, address, address, bound)

    def by_service(self) -> dict[str, list[socket.socket]]:
        """The sockets of each service."""
        sockets: dict[str, list[socket.socket]] = {}
        for listener in self:
            sockets.setdefault(listener.service, []).append(listener.socket)
        return sockets

    def close(self, keep: Listeners | None = None) -> None:
        """Leave all addresses, but for those that ``keep`` has too."""
        kept = {id(listener.socket) for listener in keep or ()}
        for listener in self:
            if id(listener.socket) not in kept:
                listener.socket.close()


def wanted_listeners(settings: Settings) -> Iterator[tuple[str, HostPort]]:
    """Service and address of every listener that the settings name, each once."""
    named = ((each.name, address) for each in LISTENERS for address in each.addresses(settings))
    return iter(dict.fromkeys(named))


def _needs_tls(service: str) -> bool:
    return next(each.tls for each in LISTENERS if each.name == service)


def probe(service: str, address: HostPort) -> None:
    """Raise PortTaken unless the address is free to listen on."""
    _listen(service, address).close()


def _bind(service: str, address: HostPort) -> Listener:
    """Raises PortTaken, if the address is so for longer than a killed server's workers need."""
    deadline = time.monotonic() + BIND_PATIENCE
    while True:
        try:
            bound = _listen(service, address)
        except PortTaken:
            if time.monotonic() > deadline:
                raise
            time.sleep(BIND_INTERVAL)
        else:
            port = bound.getsockname()[1]
            return Listener(service, address, HostPort(address.host, port), bound)


def _listen(service: str, address: HostPort) -> socket.socket:
    bound: socket.socket | None = None
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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

"""What this host itself is called and where it takes mail: so that it never sends to itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address

from restante.config.tree import HostPort
from restante.interfaces import is_own_address
from restante.relay.names import NoDomainName, to_ascii


class Here:
    """This host among others."""

    def __init__(self, names: Iterable[str], listeners: Sequence[HostPort]) -> None:
        """``names`` it bears, and the addresses at which it takes mail for others."""
        self._names = frozenset(_names(names))
        self._listeners = listeners

    def is_called(self, name: str) -> bool:
        """Whether ``name``, in A-labels and lower case, is one of its own."""
        return name in self._names

    def takes_mail_at(self, address: str, port: int) -> bool:
        """Whether a connection to this IP address and port would reach this host's own door."""
        return any(
            listener.port == port and _reaches(address, listener.host)
            for listener in self._listeners
        )


def _names(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            yield to_ascii(name)
        except NoDomainName:
            continue  # nothing in the DNS can be called so


def _reaches(address: str, listens_on: str) -> bool:
    try:
        wanted, listener = ip_address(address), ip_address(listens_on.partition("%")[0])
    except ValueError:
        return False  # a listener that is a name, for trying things out
    if isinstance(wanted, IPv6Address) and wanted.ipv4_mapped is not None:
        wanted = wanted.ipv4_mapped
    if not listener.is_unspecified:
        return wanted == listener or (wanted.is_unspecified and listener.is_loopback)
    if listener.version == 4 and wanted.version == 6:
        return False
    return is_own_address(wanted)

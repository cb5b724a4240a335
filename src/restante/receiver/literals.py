"""Addresses of this host in brackets: ``ann@[192.0.2.1]`` (RFC 5321 §4.1.3)."""

from __future__ import annotations

from dataclasses import replace

from restante.address import Address, fold
from restante.interfaces import is_own_address
from restante.network import literal_address


class Literals:
    """``routing.localiphost``, which stands for any IP address of this host at the front door."""

    def __init__(self, localiphost: str) -> None:
        self._domain = fold(localiphost)

    def resolved(self, address: Address) -> Address:
        """The address, in the domain that a literal of this host stands for."""
        if not (self._domain and address.domain.startswith("[")):
            return address
        try:
            own = is_own_address(literal_address(address.domain))
        except ValueError:
            return address  # a literal of another kind, or a malformed one: for routing to judge
        return replace(address, domain=self._domain) if own else address

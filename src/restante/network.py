"""Whose address it is: what counts as one client where clients are counted."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from functools import lru_cache

REMEMBERED = 4096
"""Addresses whose networks are kept at hand."""


@dataclass(frozen=True, slots=True)
class Network:
    """The networks that an address is of."""

    narrow: str
    """One customer: an IPv4 address, or the /64 of an IPv6 address (RFC 6177 §2)."""
    wide: str
    """One provider's block: the /24 of an IPv4 address, the /48 of an IPv6 address."""


def plain_address(address: str) -> str:
    """An IPv4 peer of a dual-stack socket is known by its IPv4 address."""
    return address.removeprefix("::ffff:") if "." in address else address.partition("%")[0]


def literal_address(domain: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IP address that a folded address literal is (RFC 5321 §4.1.3); raises ValueError.

    It has no zone (``%1``), with which an address of this host is not known as one.
    """
    if "%" in domain:
        raise ValueError("an address literal has no zone")
    return ipaddress.ip_address(domain.removeprefix("[").removesuffix("]").removeprefix("ipv6:"))


@lru_cache(REMEMBERED)
def is_loopback(address: str) -> bool:
    """Whether this is an address that only this host itself can reach, and no other text."""
    try:
        return ipaddress.ip_address(plain_address(address)).is_loopback
    except ValueError:
        return False


@lru_cache(REMEMBERED)
def network_of(address: str) -> Network:
    """The networks of a peer's address; what is no address is a network of its own."""
    try:
        octets = socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        return _network_of_ipv6(address)
    return Network(address, socket.inet_ntoa(octets[:3] + b"\0") + "/24")


def _network_of_ipv6(address: str) -> Network:
    try:
        octets = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return Network(address, address)
    if octets.startswith(b"\0" * 10 + b"\xff\xff"):
        return network_of(socket.inet_ntoa(octets[12:]))
    return Network(_prefix(octets, 64), _prefix(octets, 48))


def _prefix(octets: bytes, bits: int) -> str:
    kept = octets[: bits // 8].ljust(16, b"\0")
    return f"{socket.inet_ntop(socket.AF_INET6, kept)}/{bits}"

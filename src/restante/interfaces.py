"""The IP addresses of this host itself."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

_ANY_PORT = 9
"""Nothing is sent to it."""


def is_own_address(address: IPv4Address | IPv6Address) -> bool:
    """Whether an interface of this host has the IP address; 0.0.0.0 and :: lead here as well.

    Asking the system for a way is faster than to read a list of all interfaces. That it lets
    somebody bind to an address says nothing where net.ipv4.ip_nonlocal_bind is set, as it is for
    failover.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    try:
        return _is_own4(address) if isinstance(address, IPv4Address) else _is_own6(address)
    except OSError:
        return False


def _is_own4(address: IPv4Address) -> bool:
    """No way begins at an address that is not this host's; raises OSError then."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((str(address), 0))
        probe.connect((str(address), _ANY_PORT))
    return True


def _is_own6(address: IPv6Address) -> bool:
    """The way to an address of this host begins there, that to :: at ::1; raises OSError.

    IPv4 may begin at another address of the same network.
    """
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), _ANY_PORT))
        return address.is_unspecified or probe.getsockname()[0] == str(address)

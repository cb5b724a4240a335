"""The IP addresses of this host itself."""

from __future__ import annotations

import socket


def is_own_address(address: str) -> bool:
    """Whether an interface of this host has the IP address; 0.0.0.0 and :: lead here as well.

    The system lets nobody bind to an address that it does not have, which is
    known faster than a list of all interfaces is read.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True

"""Ports for whoever has to be told theirs before they listen."""

from __future__ import annotations

import contextlib
import random
import socket


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def free_port() -> int:
    """A port that nobody has, at any address of this machine.

    None of those that connections get by themselves (ip(7), ip_local_port_range): such a one may
    be gone before somebody listens on it, or while a server is started again.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port


HAS_IPV6 = _has_ipv6()
"""Whether this host can be reached by IPv6, if only by itself."""

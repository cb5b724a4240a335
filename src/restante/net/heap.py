"""Where malloc(3) puts what a TLS connection needs.

uvloop gives each one a buffer of 256 KiB, of which a session that sends little touches a page or
two; the rest would take no memory. But malloc(3) cuts it out of what was freed last, and that is
what the handshake before had written to: those 80 KiB stay in memory for as long as the session
lasts, of use to nobody, and the next handshake writes to others.
"""

from __future__ import annotations

import asyncio

HANDSHAKE = 120_000
"""Octets: what a handshake takes and gives back, with some to spare, and less than the 128 KiB from
which on malloc(3) may ask the system for them instead (mallopt(3), M_MMAP_THRESHOLD)."""


def set_aside(loop: asyncio.AbstractEventLoop) -> None:
    """Hold what the last handshake gave back until the loop's next turn, for the next handshake.

    To be called in the turn in which a connection's buffer is made, right before.
    """
    loop.call_soon(bytearray(HANDSHAKE).clear)

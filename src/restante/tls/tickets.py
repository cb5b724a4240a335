"""What a handshake begins with: one key for the tickets of all workers, and a new one each week.

A client that comes again with a ticket (RFC 8446 §2.2, RFC 5077) needs no certificate and no
signature: with an RSA key that is a third of the work. OpenSSL gives each context a key for
tickets that nobody can read or set from here. But a process that is forked has the contexts of the
one it comes from, and so the key: whichever worker such a client comes to, the ticket is good.

The context of a certificate is chosen later, while OpenSSL reads what the client says (SNI); the
key for tickets stays that of the context in which the handshake began.
"""

from __future__ import annotations

import ssl
import time
from collections import deque

LIFETIME = 7 * 24 * 3600.0
"""Seconds after which a key is used no more (RFC 9325 §4.4: "e.g., once every week")."""
SHARED = 8
"""Keys that are made in advance, for so many weeks of a server that is neither started anew nor
reloaded. Each takes 14 KiB. Later on each worker makes its own."""
TICKETS = 1
"""For each handshake, where OpenSSL would make two, for browsers: they cost as much as a signature
of ECDSA, and who fetches or sends mail comes by one connection at a time."""


class TicketContexts:
    """Contexts without a certificate, one after the other. To be made before workers are forked."""

    def __init__(self, made: float | None = None) -> None:
        """``made``: when, by ``time.monotonic``; now."""
        self._made = time.monotonic() if made is None else made
        self._contexts = deque(_context() for _ in range(SHARED))
        """The first of them is that of this week ..."""
        self._week = 0
        """... which began so many weeks after they were made."""

    def at(self, now: float) -> ssl.SSLContext:
        """The one for handshakes that begin ``now``, by ``time.monotonic``; never goes back.

        Former ones are let go: each remembers up to 20,480 clients that know no tickets (TLS 1.2),
        with the keys of their sessions, in 21 MiB.
        """
        while now >= self._made + (self._week + 1) * LIFETIME:
            self._contexts.popleft()
            self._week += 1
            if not self._contexts:
                self._contexts.append(_context())
        return self._contexts[0]


def _context() -> ssl.SSLContext:
    """TLS 1.2 and up, without compression or renegotiation (RFC 8996, RFC 9325 §§ 3.3, 3.5)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = TICKETS
    return context

"""How a connection to another host must be protected, and the contexts of ssl that do it."""

from __future__ import annotations

import ssl
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Literal, cast

from restante.address import domain_keys
from restante.config.nexthop import NextHop
from restante.network import is_loopback
from restante.relay.routes import Destination, key_in_ascii

SUBMISSIONS_PORT = 465
"""Of next hops where TLS comes first (RFC 8314 §3.3)."""

Policy = Literal["none", "may", "encrypt", "verify"]
"""RFC 7435 calls ``may`` opportunistic: no check, and clear text rather than no mail."""


class TlsPolicies:
    """``relay.tls_policy``, most exact key first.

    What the table does not name is ``may``, but a next hop that gets a password must show
    that it is the right one: ``verify``.
    """

    def __init__(self, table: Mapping[str, str], with_password: Collection[str]) -> None:
        """``with_password``: next hops that this host logs in to."""
        self._table = {key_in_ascii(key): cast(Policy, value) for key, value in table.items()}
        self._with_password = frozenset(with_password)

    def of(self, destination: Destination) -> Policy:
        """The policy for a domain, or for the host of a route."""
        is_route = isinstance(destination, NextHop)
        name = destination.host if isinstance(destination, NextHop) else destination.domain
        for key in (*domain_keys(name), ""):
            if key in self._table:
                return self._table[key]
        gets_password = is_route and str(destination) in self._with_password
        return "verify" if gets_password and not is_loopback(name) else "may"


class TlsContexts:
    """What ssl needs for the handshakes of a client, TLS 1.2 and up; made when first used.

    A server cannot have another handshake on the same connection, which TLS 1.2 has: one is enough
    for mail, costs what the server likes, and would come in the midst of what is sent.
    """

    @cached_property
    def verifying(self) -> ssl.SSLContext:
        """The certificate must be valid by the system's authorities, and bear the host's name.

        Python's defaults are others from 3.13 on, and mail must not wait because it was upgraded,
        or was not. So what the system believes need not be a root, as 3.13 has it; and it need not
        follow every letter of RFC 5280, as up to 3.12: a site's own authority is often older.
        """
        context = ssl.create_default_context()
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
        context.options |= ssl.OP_NO_RENEGOTIATION
        return context

    @cached_property
    def trusting(self) -> ssl.SSLContext:
        """Any certificate will do, so that authorities need not lie in memory."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.options |= ssl.OP_NO_RENEGOTIATION
        return context

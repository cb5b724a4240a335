"""Certificates and their keys: the contract between a handshake and what it shows."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from restante.errors import OperatorError


class CertificateRefused(OperatorError):
    """A certificate and its key cannot be served; the text says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class TlsSession:
    """What a handshake came to."""

    version: str
    """``TLSv1.3``."""
    cipher: str
    """``TLS_AES_256_GCM_SHA384``."""
    server_name: str = ""
    """The host that the client asked for (SNI, RFC 6066 §3); empty: none."""
    bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What both ends can recognise the connection by, by type (RFC 5929); empty: nothing.

    Only where the type that clients use by default can be had: ``tls-unique`` in TLS 1.2. In
    TLS 1.3 that is ``tls-exporter`` (RFC 9266), which Python's ssl module does not give.
    """

    @classmethod
    def of(cls, handshake: ssl.SSLObject, server_name: str) -> TlsSession:
        """Of a handshake that is done."""
        version, cipher = handshake.version() or "", handshake.cipher()
        return cls(version, cipher[0] if cipher else "", server_name, _bindings(handshake))

    def __str__(self) -> str:
        """Version and cipher, as the Received field has them."""
        return f"{self.version} {self.cipher}"


def _bindings(handshake: ssl.SSLObject) -> dict[str, bytes]:
    """``tls-unique`` of a full handshake in TLS 1.2.

    A session that is resumed may have the same one as another, whose ends are others, unless
    both have negotiated the extended master secret (RFC 7627 §1): ssl does not tell.
    """
    if handshake.version() != "TLSv1.2" or handshake.session_reused:
        return {}
    unique = handshake.get_channel_binding("tls-unique")
    return {"tls-unique": unique} if unique else {}


class HandshakeContexts(Protocol):
    """Who this host is to clients: certificates that may change while it serves."""

    def for_handshake(self) -> ssl.SSLContext:
        """The context of a handshake that begins now."""
        ...

    def server_name(self, handshake: ssl.SSLObject) -> str:
        """The host that the client asked for in a handshake; empty if it named none."""
        ...

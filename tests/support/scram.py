"""A client of SCRAM-SHA-256, written from RFC 5802 alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from restante.auth.saslprep import saslprep


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


@dataclass
class ScramClient:
    """One authentication."""

    login: str
    password: str
    flag: str = "n"
    """``n``, ``y`` or ``p=TYPE``."""
    binding: bytes = b""
    authzid: str | None = None
    nonce: str = "rOprNGfwEbeRWgbNEkqO"
    _expected: bytes = field(default=b"", repr=False)

    @property
    def _header(self) -> bytes:
        authzid = "" if self.authzid is None else f"a={_escaped(self.authzid)}"
        return f"{self.flag},{authzid},".encode()

    @property
    def _bare(self) -> bytes:
        return f"n={_escaped(self.login)},r={self.nonce}".encode()

    def first(self) -> bytes:
        """The first message."""
        return self._header + self._bare

    def final(self, server_first: bytes) -> bytes:
        """The last message, in answer to the server's first."""
        nonce, salt, iterations = (part[2:] for part in server_first.split(b",", 2))
        assert nonce.startswith(self.nonce.encode())
        assert len(nonce) > len(self.nonce)
        without_proof = b"c=%b,r=%b" % (b64(self._header + self.binding), nonce)
        message = b",".join((self._bare, server_first, without_proof))
        salted = hashlib.pbkdf2_hmac(
            "sha256", saslprep(self.password).encode(), base64.b64decode(salt), int(iterations)
        )
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        mask = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(one ^ other for one, other in zip(client_key, mask, strict=True))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._expected = b"v=" + b64(hmac.digest(server_key, message, "sha256"))
        return without_proof + b",p=" + b64(proof)

    def trusts(self, server_final: bytes) -> bool:
        """Whether the server knows the password too."""
        return server_final == self._expected


def _escaped(name: str) -> str:
    return saslprep(name).replace("=", "=3D").replace(",", "=2C")

"""A client's end of TLS between two heaps of octets: what goes over a wire, and when, is a test's.

It can also do what Python's ssl module does not offer: new keys and renegotiations, by the
library that this module has loaded.
"""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import ssl
from functools import cache

HOST = "mx.example.com"
ALL = 1 << 24


class TlsClient:
    """One handshake, and what is said after it."""

    def __init__(
        self,
        context: ssl.SSLContext,
        name: str | None = HOST,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=name, session=session
        )
        self.is_shaken = False

    def shake_hands(self, octets: bytes = b"") -> bytes:
        """What to answer to ``octets``; raises ssl.SSLError, with an alert for ``outgoing``."""
        self._incoming.write(octets)
        try:
            self.tls.do_handshake()
            self.is_shaken = True
        except ssl.SSLWantReadError:
            pass
        return self.outgoing()

    def outgoing(self) -> bytes:
        """What it has to say."""
        return self._outgoing.read()

    def seal(self, text: bytes) -> bytes:
        """Records with ``text`` in them."""
        self.tls.write(text)
        return self.outgoing()

    def open(self, octets: bytes) -> bytes:
        """The text of all records that are complete by now; raises ssl.SSLError."""
        self._incoming.write(octets)
        text = b""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while piece := self.tls.read(ALL):
                text += piece
        return text

    def has_heard_the_end(self) -> bool:
        """Whether a close_notify is the last of what came."""
        try:
            return self.tls.read(1) == b""
        except ssl.SSLZeroReturnError:  # it has said goodbye itself
            return True
        except ssl.SSLWantReadError:
            return False

    def say_goodbye(self) -> bytes:
        """close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing()

    def ask_for_keys(self) -> bytes:
        """KeyUpdate, and that the server does the same (RFC 8446 §4.6.3)."""
        assert _library().SSL_key_update(self._pointer(), 1) == 1
        self.tls.do_handshake()
        return self.outgoing()

    def renegotiate(self) -> bytes:
        """The beginning of another handshake, in TLS 1.2."""
        assert _library().SSL_renegotiate(self._pointer()) == 1
        return self.shake_hands()

    def _pointer(self) -> int:
        """OpenSSL's own object: the second field of Python's, behind its head."""
        inner = self.tls._sslobj  # type: ignore[attr-defined]
        address = id(inner) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
        pointer = ctypes.c_void_p.from_address(address).value
        assert pointer
        return pointer


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_ssl.__file__)
    library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.SSL_renegotiate.argtypes = [ctypes.c_void_p]
    return library

"""An end of TLS between two heaps of octets: what goes over a wire, and when, is a test's.

It can also do what Python's ssl module does not offer: new keys and renegotiations, by the
library that this module has loaded.
"""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import ssl
from collections.abc import Callable
from functools import cache, partial

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HOST = "mx.example.com"
ALL = 1 << 24


def objection_to(octets: bytes, protocol: int = ssl.PROTOCOL_TLS_SERVER) -> str:
    """What this OpenSSL finds wrong with octets that begin no handshake.

    Mostly WRONG_VERSION_NUMBER; 3.5.5 looks at the length first, and has RECORD_LAYER_FAILURE.
    """
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    is_server = protocol == ssl.PROTOCOL_TLS_SERVER
    end = TlsEnd(lambda comes, goes: context.wrap_bio(comes, goes, server_side=is_server))
    try:
        end.shake_hands(octets)
    except ssl.SSLError as error:
        return error.reason
    raise AssertionError("these may begin a handshake")


class TlsEnd:
    """One handshake, and what is said after it."""

    def __init__(
        self,
        wrap: Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject],
    ) -> None:
        """``wrap``: what a context does for this end, with what comes and what goes."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = wrap(self._incoming, self._outgoing)
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
        """KeyUpdate, and that the other end does the same (RFC 8446 §4.6.3)."""
        assert _library().SSL_key_update(self._pointer(), 1) == 1
        self.tls.do_handshake()
        return self.outgoing()

    def renegotiate(self) -> bytes:
        """The beginning of another handshake, in TLS 1.2; a server's wish for one."""
        assert _library().SSL_renegotiate(self._pointer()) == 1
        return self.shake_hands()

    def _pointer(self) -> int:
        """OpenSSL's own object: the second field of Python's, behind its head."""
        inner = self.tls._sslobj  # type: ignore[attr-defined]
        address = id(inner) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
        pointer = ctypes.c_void_p.from_address(address).value
        assert pointer
        return pointer


class TlsClient(TlsEnd):
    """The end that begins."""

    def __init__(
        self,
        context: ssl.SSLContext,
        name: str | None = HOST,
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(partial(context.wrap_bio, server_hostname=name, session=session))


class TlsServer(TlsEnd):
    """The end that waits."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(partial(context.wrap_bio, server_side=True))


def nothing_in_records(secret: bytes, first: int, records: int) -> bytes:
    """Records without an octet of text, as OpenSSL never makes them (RFC 8446 §5.4).

    For TLS_AES_256_GCM_SHA384 and a ``*_TRAFFIC_SECRET_0``; ``first``: how many it has sealed.
    """
    cipher, start = AESGCM(_expand(secret, b"key", 32)), _expand(secret, b"iv", 12)
    made = b""
    for number in range(first, first + records):
        nonce = (int.from_bytes(start) ^ number).to_bytes(12)
        header = b"\x17\x03\x03" + (1 + 16).to_bytes(2)
        made += header + cipher.encrypt(nonce, b"\x17", header)
    return made


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 §7.1)."""
    label = b"tls13 " + label
    info = length.to_bytes(2) + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(hashes.SHA384(), length, info).derive(secret)


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_ssl.__file__)
    library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.SSL_renegotiate.argtypes = [ctypes.c_void_p]
    return library

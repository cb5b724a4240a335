"""TLS between a connection and its socket, from the handshake to close_notify; either end of it.

The cryptography is OpenSSL's; this moves octets between it and the event loop. uvloop has such a
layer too. It reads into a buffer of 256 KiB for each connection, and sends what OpenSSL says piece
by piece where one piece would do: a session took a tenth more processor time, and up to four times
the memory (docs/performance.md, "TLS" and "Memory").
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol

RECORD = 16 * 1024
"""Octets of text in a record at the most (RFC 8446 §5.1): as many are read and written at a time.

What lies between OpenSSL and here keeps the memory of the most that it ever held.
"""
MAX_UNREAD = 1024 * 1024
"""Octets that wait unsent at the most while a peer asks for more of TLS's own (KeyUpdate)."""

_NOBODY = asyncio.Protocol()
"""Where a session was; hears all and does nothing."""


class Transport(Protocol):
    """What a connection sends by: of asyncio.Transport what it needs."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def get_extra_info(self, name: str) -> Any: ...


class TlsStream(asyncio.Protocol):
    """A transport for ``session``, in TLS, by way of another one in clear text."""

    __slots__ = (
        "_incoming",
        "_is_closing",
        "_is_ended",
        "_outgoing",
        "_plain",
        "_session",
        "_shaken",
        "handshake",
    )

    def __init__(
        self,
        plain: asyncio.Transport,
        session: asyncio.Protocol,
        context: ssl.SSLContext,
        shaken: Callable[[Exception | None], None],
        server_name: str | None = None,
    ) -> None:
        """Wait for a client's handshake, or begin one; ``plain`` is this stream's from now on.

        ``server_name``: the host that this end is a client of, or its IP address: whom to ask for
        (SNI) and whose certificate to expect, if ``context`` checks that. None: this end is the
        server. Raises ValueError, with ``plain`` left alone, for what can be no host's name.

        ``shaken`` is called when the handshake is done, or with what it failed of; the connection
        is closed then. That may be before this returns. Nothing of the session is called before.
        """
        self._plain = plain
        self._session = session
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.handshake = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self._shaken: Callable[[Exception | None], None] | None = shaken
        """Until the handshake is done, or has failed."""
        self._is_closing = False
        """Nothing more is sent, but for the end itself."""
        self._is_ended = False
        """The peer has sent its close_notify, or nothing that it sends counts: nothing is kept."""
        plain.set_protocol(self)
        if server_name is not None:
            self._shake_hands(shaken)

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        """Records, or pieces of them."""
        if self._is_ended:
            return  # nothing counts behind a close_notify (RFC 8446 §6.1), nor is it kept
        text: list[bytes] = []
        for part in _parts(data):
            self._incoming.write(part)
            if self._is_closing:
                self._take_leave()
            elif self._shaken is None or self._shake_hands(self._shaken):
                self._read(text)
            if self._is_ended:
                break
        if self._is_closing:
            return  # nobody is left to hear it; nor what came with nonsense, which has no answer
        if text:
            self._session.data_received(text[0] if len(text) == 1 else b"".join(text))
        if self._is_ended and not self._session.eof_received():
            self.close()

    def eof_received(self) -> bool:
        """The peer sends no more; after a close_notify it may still read, else it is gone."""
        if self._is_closing or self._shaken is not None:
            return False
        if not self._is_ended:
            self._session.eof_received()
        return self._is_ended

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing can be sent or received any more."""
        shaken, self._shaken = self._shaken, None
        if shaken is not None:
            shaken(exc or ConnectionResetError("the connection was closed"))
        session, self._session = self._session, _NOBODY  # who holds this stream: no circle is left
        session.connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer reads slower than the session writes."""
        self._session.pause_writing()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._session.resume_writing()

    # From the peer

    def _shake_hands(self, shaken: Callable[[Exception | None], None]) -> bool:
        """Go on with the handshake; whether it is done."""
        try:
            self.handshake.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return False
        except ssl.SSLError as error:
            self._shaken = None
            self._fail()
            shaken(error)
            return False
        # A server's, in TLS 1.3, are tickets, which may as well go with the first octets of the
        # session; a client's are what the server waits for.
        if self.handshake.version() != "TLSv1.3" or not self.handshake.server_side:
            self._send()
        self._shaken = None
        shaken(None)
        return True

    def _read(self, text: list[bytes]) -> None:
        """Add what is there to ``text``."""
        unsent = self._outgoing.pending
        try:
            # OpenSSL keeps nothing of a record that is read as a whole. To ask it in vain costs
            # more than to see that nothing is left.
            while self._incoming.pending:
                piece = self.handshake.read(RECORD)
                if not piece:
                    self._is_ended = True
                    break
                text.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._fail()
            return
        if self._outgoing.pending > unsent:
            self._answer()

    def _answer(self) -> None:
        """Send what TLS itself has to say, to a peer that reads it."""
        self._send()
        if self._plain.get_write_buffer_size() > MAX_UNREAD:
            self._plain.abort()

    # To the peer

    def write(self, data: bytes) -> None:
        """Send octets of the session; dropped where there is nobody to take them."""
        if self.is_closing():
            return
        records = []
        try:
            for part in _parts(data):
                self.handshake.write(part)
                records.append(self._outgoing.read())
        except ssl.SSLError:
            self._fail()
        else:
            self._plain.write(b"".join(records))  # no copy of a single one

    def close(self) -> None:
        """Send close_notify behind all else, and close when the peer has said as much."""
        if not self._is_closing:
            self._is_closing = True
            self._plain.resume_reading()  # the session may have read enough
            is_over = self._unwrap()
            self._send()
            if is_over:
                self._plain.close()

    def _take_leave(self) -> None:
        """See whether this is the peer's end; all else that it says now is for nobody."""
        if self._unwrap():
            self._is_ended = True
            self._plain.close()
        self._outgoing.read()  # nothing is said behind a close_notify, to new keys neither

    def _unwrap(self) -> bool:
        """Say close_notify, if that is to be said yet; whether the peer has said it, or cannot."""
        try:
            self.handshake.unwrap()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            pass
        return True

    def _fail(self) -> None:
        """Tell the peer what it did wrong, if that can go at once, and close."""
        self._is_closing = True
        self._send()
        if self._plain.get_write_buffer_size():
            self._plain.abort()
        else:
            self._plain.close()

    def _send(self) -> None:
        octets = self._outgoing.read()
        if octets and not self._plain.is_closing():
            self._plain.write(octets)

    # As the transport in clear text does it

    def abort(self) -> None:
        """Close at once."""
        self._plain.abort()

    def is_closing(self) -> bool:
        """Whether nothing is sent any more."""
        return self._is_closing or self._plain.is_closing()

    def pause_reading(self) -> None:
        """Let the peer wait."""
        self._plain.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._plain.resume_reading()

    def set_write_buffer_limits(self, high: int) -> None:
        """Octets unsent from which on the session is told to wait."""
        self._plain.set_write_buffer_limits(high=high)

    def get_write_buffer_size(self) -> int:
        """Octets that are unsent."""
        return self._plain.get_write_buffer_size()

    def get_extra_info(self, name: str) -> Any:
        """About the socket."""
        return self._plain.get_extra_info(name)


def _parts(data: bytes) -> Sequence[bytes | memoryview]:
    """Of no more than RECORD octets each."""
    if len(data) <= RECORD:
        return (data,)
    view = memoryview(data)
    return [view[start : start + RECORD] for start in range(0, len(data), RECORD)]

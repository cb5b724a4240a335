"""One connection to one address of one host, from its greeting to QUIT."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from restante import maillog
from restante.network import is_loopback
from restante.protocol.smtp.client import MECHANISMS, SmtpClient
from restante.protocol.smtp.client_commands import BLOCK_TIMEOUT
from restante.protocol.smtp.client_events import (
    Authenticated,
    AuthRefused,
    ClientEvent,
    ClientWait,
    Closed,
    Ready,
    StartTls,
    TlsRefused,
    TransactionDone,
)
from restante.relay import Parcel
from restante.relay.outgoing import bearing, outgoing, pieces
from restante.relay.resolver import Endpoint
from restante.relay.tls import Policy, TlsContexts
from restante.relay.wire import Wire, WireLost, WireTimeout
from restante.status import Peer, PermanentFailure, Reply, TemporaryFailure
from restante.threads import NoThread, in_thread

HOST_TAKES_NO_MAIL = 521
"""A greeting that will always be the same (RFC 7504 §3)."""
HANDSHAKE_TIMEOUT = 60.0
"""Seconds; RFC 5321 names none for STARTTLS."""
TRANSACTION_TIME = 3600.0
"""Seconds that one transaction may last, however slowly the peer goes on answering."""
SLOWEST_TRANSFER = 2048
"""Octets a second of content for which it may last longer than that."""
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of what this host has none left of: they say nothing of another one. (That there is no
address, EADDRNOTAVAIL, is no want of ports alone: a host without IPv6 has none for IPv6.)"""
QUIT_PATIENCE = 10.0
"""Seconds that a peer may take to answer QUIT."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what conditions this host speaks with others."""

    helo: str
    timeoutconnect: float
    timeoutremote: float
    contexts: TlsContexts
    policy: Policy = "may"
    implicit_tls: bool = False
    """The handshake comes first (RFC 8314 §3.3)."""
    login: str = ""
    password: str = field(default="", repr=False)


class HostFailed(Exception):
    """No mail can be handed to this address of this host now."""

    def __init__(
        self,
        failure: TemporaryFailure | PermanentFailure,
        *,
        answered: bool,
        is_our_own: bool = False,
    ) -> None:
        """``answered``: it is up, whatever it said; ``is_our_own``: it was not even asked."""
        super().__init__(str(failure.reply))
        self.failure = failure
        self.answered = answered
        self.is_our_own = is_our_own
        self.session: Session | None = None
        """The session that came to nothing, of which leave is still to be taken."""


class TlsFailed(HostFailed):
    """STARTTLS had no answer, the handshake failed, or TLS after it; the host may do without."""


class ContentLost(Exception):
    """The message's own file cannot be read; the peer has not got it."""


async def open_session(endpoint: Endpoint, terms: Terms) -> Session:
    """A session in which messages can be sent; raises HostFailed.

    Where TLS is opportunistic, a handshake that fails is followed by another
    connection, in clear text; so is a STARTTLS that has no answer, and an EHLO in TLS.
    """
    try:
        return await _open(endpoint, terms)
    except TlsFailed as error:
        if terms.policy != "may" or terms.implicit_tls or error.session is None:
            raise
        await error.session.quit()
        maillog.relay_tls_failed(endpoint.host, endpoint.where, error.failure.detail)
    return await _open(endpoint, replace(terms, policy="none"))


async def _open(endpoint: Endpoint, terms: Terms) -> Session:
    try:
        wire = await Wire.connect(endpoint, terms.timeoutconnect)
    except OSError as error:
        peer = Peer(endpoint.host, endpoint.where, "connect", silent=True)
        reply = Reply(451, "4.1", _connect_error(error, terms.timeoutconnect))
        failure = TemporaryFailure(reply, peer=peer)
        is_our_own = error.errno in _OUR_OWN
        raise HostFailed(failure, answered=False, is_our_own=is_our_own) from None
    session = Session(endpoint, wire, terms)
    try:
        await session.establish()
    except HostFailed as error:
        error.session = session
        raise
    except BaseException:
        wire.abort()
        raise
    return session


def _connect_error(error: OSError, seconds: float) -> str:
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no connection within {seconds:g} seconds"
    return f"no connection: {os.strerror(error.errno) if error.errno else error}"


class Session:
    """A peer that was greeted, and perhaps secured and logged in to."""

    def __init__(self, endpoint: Endpoint, wire: Wire, terms: Terms) -> None:
        self.endpoint = endpoint
        self._wire = wire
        self._terms = terms
        self._engine = SmtpClient(terms.helo)
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._awaited: object = None
        self._deadline = 0.0
        self._block_deadline = 0.0
        self._is_silent = False
        self._has_ended = False
        self._last_moment = self._opened_at + TRANSACTION_TIME
        self._is_open = False
        self.tls = ""
        """Version and cipher; empty: clear text."""
        self.messages = 0
        """How many were sent, whatever became of them."""
        self.content_sent = False
        """The end of the last message's content was sent: the peer may have the message."""

    def peer(self, command: str, *, silent: bool = False) -> Peer:
        """This host, as the one that had the last word, or that was silent."""
        dsn = self._engine.extensions.dsn
        return Peer(self.endpoint.host, self.endpoint.where, command, self.tls, dsn, silent)

    # From the connection to the first message

    async def establish(self) -> None:
        """Greeting, EHLO, TLS and AUTH, as the terms ask for them; raises HostFailed."""
        if self._terms.implicit_tls:
            await self._handshake()
        await self._expect_ready()
        if self._terms.policy != "none" and not self.tls:
            await self._secure()
        if self._terms.login:
            await self._log_in()
        self._is_open = True
        seconds = self._loop.time() - self._opened_at
        maillog.relay_opened(self.endpoint.host, self.endpoint.where, self.tls, seconds)

    async def _secure(self) -> None:
        if not self._engine.extensions.starttls:
            if self._terms.policy != "may":
                raise self._unsafe("the host does not offer STARTTLS, which is required of it")
            return
        self._engine.start_tls()
        event = await self._next()
        if isinstance(event, StartTls):
            await self._handshake()
            self._engine.tls_started()
            await self._expect_ready_in_tls()
        elif isinstance(event, TlsRefused):
            if self._terms.policy != "may":
                raise HostFailed(_put_off(event.reply, self.peer("STARTTLS")), answered=True)
        else:
            raise self._closed_over_tls(event)

    async def _handshake(self) -> None:
        contexts = self._terms.contexts
        context = contexts.verifying if self._terms.policy == "verify" else contexts.trusting
        name = self.endpoint.host.strip("[]")
        if name.startswith("ipv6:"):
            name = self.endpoint.address
        try:
            self.tls = await self._wire.start_tls(context, name, HANDSHAKE_TIMEOUT)
        except ssl.SSLCertVerificationError as error:
            why = f"the host's certificate is not accepted: {error.verify_message}"
            raise self._tls_failed(why) from None
        except OSError as error:
            self._is_silent = isinstance(error, TimeoutError)
            why = f"the TLS handshake failed: {_handshake_error(error)}"
            raise self._tls_failed(why) from None

    def _tls_failed(self, why: str) -> TlsFailed:
        self._engine.receive_eof(why)
        failure = TemporaryFailure(Reply(454, "7.5", why), why, self.peer("STARTTLS", silent=True))
        return TlsFailed(failure, answered=True)

    async def _log_in(self) -> None:
        if not self.tls and not is_loopback(self.endpoint.address):
            raise self._unsafe("no password is sent to another host in clear text")
        offered = self._engine.extensions.auth
        mechanism = next((each for each in MECHANISMS if each in offered), None)
        if mechanism is None:
            raise self._unsafe(f"the host offers no AUTH by {' or '.join(MECHANISMS)}")
        self._engine.authenticate(mechanism, self._terms.login, self._terms.password)
        event = await self._next()
        if isinstance(event, AuthRefused):
            raise HostFailed(_put_off(event.reply, self.peer(f"AUTH {mechanism}")), answered=True)
        if not isinstance(event, Authenticated):
            raise self._closed(event)

    def _unsafe(self, why: str) -> HostFailed:
        peer = self.peer("EHLO", silent=True)
        failure = TemporaryFailure(Reply(451, "7.4", why), peer=peer)
        return HostFailed(failure, answered=True)

    async def _expect_ready_in_tls(self) -> None:
        """In TLS 1.3 a client is done before the host has judged (RFC 8446 §2).

        That it wants a certificate of the client, say, is known only by what follows.
        """
        event = await self._next()
        if not isinstance(event, Ready):
            raise self._closed_over_tls(event)

    async def _expect_ready(self) -> None:
        event = await self._next()
        if not isinstance(event, Ready):
            raise self._closed(event)

    def _closed_over_tls(self, event: ClientEvent | ClientWait) -> HostFailed:
        """A host that has no word for STARTTLS, or in TLS for EHLO, does not get on with TLS."""
        assert isinstance(event, Closed), event
        command, after = ("EHLO", "the TLS handshake") if self.tls else ("STARTTLS", "STARTTLS")
        was_answered = event.reply is not None or not event.command.startswith(command)
        if was_answered or not (self._has_ended or self._is_silent):
            return self._closed(event)
        did = "was silent" if self._is_silent else "ended the connection"
        return self._tls_failed(f"the host {did} right after {after}")

    def _closed(self, event: ClientEvent | ClientWait) -> HostFailed:
        assert isinstance(event, Closed), event
        peer = self.peer(event.command, silent=event.reply is None)
        if event.reply is None:
            failure = TemporaryFailure(Reply(451, "4.2", event.why), peer=peer)
            return HostFailed(failure, answered=event.command != "greeting" and not self._is_silent)
        if event.reply.code == HOST_TAKES_NO_MAIL and event.command == "greeting":
            return HostFailed(PermanentFailure(event.reply, event.why, peer), answered=True)
        return HostFailed(_put_off(event.reply, peer, event.why), answered=True)

    # Messages

    async def send(self, parcel: Parcel) -> TransactionDone:
        """Send a message; every recipient has a result. Raises ContentLost.

        Afterwards ``is_usable`` says whether another message can follow.
        """
        self.messages += 1
        self.content_sent = False
        self._awaited = None
        spooled = isinstance(parcel.content.body, str)
        extensions = self._engine.extensions
        parcel = replace(parcel, content=bearing(parcel, extensions))
        try:
            message = (
                await in_thread(outgoing, parcel, extensions)
                if spooled
                else outgoing(parcel, extensions)
            )
            self._last_moment = (
                self._loop.time() + TRANSACTION_TIME + message.size / SLOWEST_TRANSFER
            )
            self._engine.send(message)
            with pieces(parcel.content) as blocks:
                return await self._transact(blocks, spooled=spooled)
        except (OSError, NoThread) as error:
            self.abort()
            raise ContentLost(str(error)) from error

    async def _transact(self, blocks: Iterator[bytes], *, spooled: bool) -> TransactionDone:
        while True:
            event = await self._next()
            if isinstance(event, TransactionDone):
                return event
            assert event is ClientWait.NEED_CONTENT, event
            if self._wire.must_drain:
                await self._drain()
            elif not spooled:
                # Small: the queue keeps what is not in files. It goes out with its end.
                self._engine.content(b"".join(blocks))
                self._end_content()
            elif block := await in_thread(next, blocks, b""):
                self._send_block(block)
            else:
                self._end_content()

    def _end_content(self) -> None:
        self.content_sent = True
        self._engine.end_content()

    def _send_block(self, block: bytes) -> None:
        """The peer has a time to take it, whatever it says meanwhile."""
        self._engine.content(block)
        self._wire.send(self._engine.outgoing())
        patience = min(BLOCK_TIMEOUT, self._terms.timeoutremote)
        self._block_deadline = self._loop.time() + patience

    async def _drain(self) -> None:
        """Wait until the peer takes more, or says something: perhaps that it does not."""
        seconds = min(self._block_deadline - self._loop.time(), self._seconds_left())
        try:
            await self._wire.drain(max(seconds, 0.0))
        except WireLost:
            self._engine.receive(self._wire.take())
            self._engine.receive_eof()
            return
        except WireTimeout:
            self._give_up("the peer takes no more of the content")
            return
        if not self._wire.is_quiet:
            self._engine.receive(self._wire.take())

    @property
    def is_usable(self) -> bool:
        """Whether another message can be sent: nothing is under way, and the peer is there."""
        return self._wire.is_quiet and self._engine.next_event() is ClientWait.NEED_ACTION

    @property
    def is_silent(self) -> bool:
        """Whether the peer has let a time pass in which it had to say, or take, something."""
        return self._is_silent

    # Ends

    async def quit(self) -> None:
        """Take leave (RFC 5321 §4.1.1.10), and close whatever the answer."""
        usable = self.is_usable
        if usable:
            self._engine.quit()
            self._awaited = None
            self._last_moment = self._loop.time() + QUIT_PATIENCE
            await self._next()
        await self._wire.close(QUIT_PATIENCE)
        self._log_end("quit" if usable else "closed by the peer")

    def abort(self) -> None:
        """Drop the connection."""
        self._wire.abort()
        self._log_end("aborted")

    def _log_end(self, why: str) -> None:
        if self._is_open:
            self._is_open = False
            seconds = self._loop.time() - self._opened_at
            maillog.relay_closed(
                self.endpoint.host, self.endpoint.where, self.messages, seconds, why
            )

    # The conversation

    async def _next(self) -> ClientEvent | ClientWait:
        """What happened, or what the engine wants; the peer's answers are waited for."""
        while True:
            event = self._engine.next_event()
            self._wire.send(self._engine.outgoing())
            if event is not ClientWait.NEED_DATA:
                return event
            await self._receive()

    async def _receive(self) -> None:
        """The peer has a time for each answer, however it is cut into octets."""
        if self._engine.awaited is not self._awaited:
            self._awaited = self._engine.awaited
            patience = min(self._engine.timeout, self._terms.timeoutremote)
            self._deadline = self._loop.time() + patience
        seconds = min(self._deadline - self._loop.time(), self._seconds_left())
        try:
            data = await self._wire.receive(max(seconds, 0.0))
        except WireTimeout:
            self._give_up("the answer did not come in time")
            return
        if data:
            self._engine.receive(data)
        else:
            self._has_ended = True
            self._engine.receive_eof()

    def _give_up(self, why: str) -> None:
        self._is_silent = True
        self._wire.abort()
        self._engine.receive_eof(why)

    def _seconds_left(self) -> float:
        return max(self._last_moment - self._loop.time(), 0.0)


def _put_off(reply: Reply, peer: Peer, detail: str = "") -> TemporaryFailure:
    """What a host says before it knows of a message is about this host and that one.

    So it returns nobody's mail: an operator may mend it, or the host may be mended.
    """
    return TemporaryFailure(reply, detail, peer)


def _handshake_error(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__

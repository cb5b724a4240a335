"""POP3 on a connection: the core's events, answered by logins and maildrops."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable
from dataclasses import replace
from typing import assert_never

from restante import maillog
from restante.auth import Authenticator, LoginAttempt, Refusal, Refused
from restante.config.tree import Auth as AuthSettings
from restante.config.tree import Pop3 as Pop3Settings
from restante.directory import Account
from restante.errors import TemporaryError
from restante.net.connection import (
    Connection,
    PeerLost,
    PeerTimeout,
    Stopping,
    TlsFailed,
    always,
)
from restante.net.handshakes import Handshakes
from restante.net.scram import Scram
from restante.protocol.pop3.events import (
    Closed,
    Event,
    Login,
    LoginEvent,
    Need,
    ResponseCode,
    Retrieve,
    StartTls,
    Update,
)
from restante.protocol.pop3.profile import Limits, Profile
from restante.protocol.pop3.server import Pop3Server
from restante.protocol.sasl import ScramBegun, ScramDone, ScramProof
from restante.store import Maildrop, MaildropInUse, MailStore, MessageGone

BUSY = b"-ERR [SYS/TEMP] too many connections, try again later\r\n"
FAILING = b"-ERR [SYS/TEMP] a system failure, try again later\r\n"
SYSTEM_FAILURE = "a system failure, try again later"
TOO_MANY_GUESSES = "too many wrong passwords, try again later"


class Pop3Service:
    """Holds POP3 sessions."""

    name = "pop3"
    busy = BUSY
    failing = FAILING
    in_company = False
    """It would cost a message of 4 KiB that is fetched a fourteenth more."""

    def __init__(
        self,
        settings: Pop3Settings,
        host: str,
        auth: AuthSettings,
        authenticator: Authenticator,
        store: MailStore,
        handshakes: Handshakes | None,
    ) -> None:
        """Without ``handshakes`` there is no STLS."""
        self.settings = settings
        self.authenticator = authenticator
        self.store = store
        self.handshakes = handshakes
        self._profile = Profile(
            host,
            Limits(max_errors=settings.max_errors, max_refused_logins=auth.max_attempts),
            stls=handshakes is not None,
            plaintext_logins=auth.plaintext == "always",
            mechanisms=auth.mechanisms,
        )
        self._loopback = replace(self._profile, plaintext_logins=auth.plaintext != "never")

    def core(self, connection: Connection) -> Pop3Server:
        """A session's core, which takes passwords as its connection allows."""
        profile = self._loopback if connection.is_loopback else self._profile
        return Pop3Server(profile, tls=connection.tls is not None, bindings=connection.bindings)

    async def serve(self, connection: Connection, session: str) -> str:
        """Hold one session to its end; the reason why it ended."""
        held = _Session(self, connection, session)
        try:
            return await held.converse()
        except PeerTimeout:
            return "timeout"  # without a response (RFC 1939 §3)
        except PeerLost:
            return "lost"
        except TlsFailed:
            return "tls failed"
        except Stopping:
            held.say("-ERR [SYS/TEMP] the server shuts down, try again later\r\n")
            return "shutdown"
        finally:
            held.close()


class _Session:
    """One client and the maildrop it has opened."""

    __slots__ = (
        "_account",
        "_connection",
        "_core",
        "_deleted",
        "_event",
        "_login_by",
        "_maildrop",
        "_retrieved",
        "_scram",
        "_service",
        "_session",
    )

    def __init__(self, service: Pop3Service, connection: Connection, session: str) -> None:
        self._service = service
        self._connection = connection
        self._session = session
        self._core = service.core(connection)
        self._scram = Scram(service.authenticator, self._core, session, "pop3", connection.peer)
        self._account: Account | None = None
        self._maildrop: Maildrop | None = None
        self._event: Event | Need | None = None
        """What the core said when octets were taken as they came."""
        self._login_by = asyncio.get_running_loop().time() + service.settings.login_timeout
        self._retrieved = 0
        self._deleted = 0

    async def converse(self) -> str:
        self._connection.send(self._core.greet())
        while True:
            event, self._event = self._event or self._next_event(), None
            if not isinstance(event, (Need, Closed)):
                await self._answer(event)
                continue
            await self._flush()
            if event is Need.DATA:
                if not await self._more():
                    self._core.receive_eof()
            elif isinstance(event, Closed):
                return str(event.reason)
            else:
                await asyncio.sleep(0)  # who asks for so much at once is not alone here

    def say(self, line: str) -> None:
        """The last words to a session that the core cannot end by itself."""
        self._connection.send(line.encode())

    def close(self) -> None:
        """Give the maildrop back."""
        if self._maildrop is None or self._account is None:
            return
        maildrop, self._maildrop = self._maildrop, None
        maildrop.close()
        maillog.maildrop_closed(self._session, self._account.name, self._retrieved, self._deleted)

    def _next_event(self) -> Event | Need:
        """What the core says once all is answered that needs no wait."""
        while True:
            event = self._core.next_event()
            if event is Need.DATA:
                return event
            if isinstance(event, Retrieve) and (message := self._at_hand(event)) is not None:
                self._core.send_message(message)
                self._retrieved += 1
            elif isinstance(event, Update) and not event.deleted:
                self._sign_off()
            else:
                return event

    def _more(self) -> Awaitable[bool]:
        """Wait for the client; False when it sends no more.

        No coroutine: each one more that waits takes a quarter of a kibibyte of an idle session.
        """
        return self._connection.listen(
            self._take,
            self._service.settings.timeout,
            interruptible=always,
            until=self._until,
        )

    @property
    def _until(self) -> float:
        """Whoever never lets the session wait would have all the time it wants for a login."""
        return self._login_by if self._account is None else math.inf

    def _take(self, data: bytes) -> bool:
        """Answer what the client sends at once; False if something has to be waited for."""
        self._core.receive(data)
        event = self._next_event()
        if event is Need.DATA and self._tell():
            return True
        self._event = event
        return False

    def _tell(self) -> bool:
        """Send what has been answered; False if the client has to catch up first."""
        self._connection.send(self._core.outgoing())
        return not self._connection.is_behind

    async def _flush(self) -> None:
        if not self._tell():
            await self._connection.drain(self._service.settings.timeout, until=self._until)

    def _answer(self, event: StartTls | LoginEvent | Retrieve | Update) -> Awaitable[None]:
        """Do what has to be waited for; no coroutine either."""
        match event:
            case Login():
                return self._login(event)
            case Retrieve():
                return self._retrieve(event)
            case Update():
                return self._update(event)
            case StartTls():
                return self._start_tls()
            case ScramBegun() | ScramProof():
                return self._scram.step(event, self._refuse)
            case ScramDone():
                return self._open_maildrop(self._scram.account)
            case _:
                assert_never(event)

    async def _start_tls(self) -> None:
        assert self._service.handshakes is not None
        await self._service.handshakes.start(self._connection, self._session, self._core.outgoing())
        self._core.tls_started(self._connection.bindings)

    # Login

    async def _login(self, event: Login) -> None:
        attempt = LoginAttempt(
            self._session, event.login, event.password, "pop3", self._connection.peer
        )
        answer = await self._service.authenticator.login(attempt)
        if isinstance(answer, Refused):
            self._refuse(answer.reason)
        else:
            await self._open_maildrop(answer.account)

    async def _open_maildrop(self, account: Account) -> None:
        try:
            # It may take hours, on a file system that hangs, and hold the lock afterwards.
            opening = self._service.store.open(account)
            maildrop = await self._connection.while_there(opening, until=self._login_by)
        except MaildropInUse:
            self._no_maildrop(account, ResponseCode.IN_USE, "another session has the maildrop")
            return
        except TemporaryError as error:
            self._no_maildrop(account, ResponseCode.SYS_TEMP, SYSTEM_FAILURE, str(error))
            return
        self._account, self._maildrop = account, maildrop
        messages = maildrop.messages
        octets = sum(messages.sizes)
        maillog.maildrop_opened(self._session, account.name, len(messages), octets)
        self._core.login_accepted(messages)

    def _refuse(self, reason: Refusal) -> None:
        if reason is Refusal.SYSTEM_ERROR:
            self._core.login_refused(ResponseCode.SYS_TEMP, SYSTEM_FAILURE)
        elif reason is Refusal.TOO_MANY_GUESSES:
            # Not [SYS/TEMP]: a program that tries again by itself would only go on (RFC 3206 §4).
            self._core.login_refused(ResponseCode.AUTH, TOO_MANY_GUESSES)
        else:
            self._core.login_refused(ResponseCode.AUTH, "wrong user name or password")

    def _no_maildrop(self, account: Account, code: ResponseCode, text: str, why: str = "") -> None:
        maillog.maildrop_refused(self._session, account.name, why or text)
        self._core.login_refused(code, text)

    # Transaction

    def _at_hand(self, event: Retrieve) -> bytes | None:
        assert self._maildrop is not None
        return self._maildrop.at_hand(event.index)

    async def _retrieve(self, event: Retrieve) -> None:
        assert self._maildrop is not None
        core = self._core
        try:
            async with contextlib.aclosing(self._maildrop.read(event.index)) as pieces:
                async for piece in pieces:
                    wants_more = core.send_message_chunk(piece)
                    if core.must_flush:
                        await self._flush()
                    if not wants_more:
                        break
        except MessageGone:
            core.message_unavailable("the message is gone: another program removed it")
        except TemporaryError as error:
            self._log_failure(error)
            core.message_unavailable(SYSTEM_FAILURE, ResponseCode.SYS_TEMP)
        else:
            core.end_message()
            self._retrieved += 1

    async def _update(self, event: Update) -> None:
        assert self._maildrop is not None
        try:
            await self._maildrop.remove(event.deleted)
        except TemporaryError as error:
            self._log_failure(error)
            self._core.updated(ok=False, text="some deleted messages were not removed")
        else:
            self._deleted = len(event.deleted)
            self._sign_off()

    def _sign_off(self) -> None:
        """The next session may begin as soon as the client has its answer."""
        self.close()
        self._core.updated(ok=True)

    def _log_failure(self, error: TemporaryError) -> None:
        assert self._account is not None
        maillog.maildrop_refused(self._session, self._account.name, str(error))

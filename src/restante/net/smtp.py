"""SMTP on a connection: the core's events, answered by the receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from restante import maillog
from restante.address import fold
from restante.auth import Authenticator, LoginAttempt, Refusal, Welcome
from restante.config import Settings
from restante.config.live import Derived
from restante.directory import Account
from restante.envelope import Origin
from restante.labels import in_a_labels
from restante.net.connection import Connection, PeerLost, PeerTimeout, Stopping, TlsFailed
from restante.net.handshakes import Handshakes
from restante.net.scram import Scram
from restante.protocol.sasl import ScramBegun, ScramDone, ScramProof
from restante.protocol.smtp.events import (
    NEED_DATA,
    Authenticate,
    AuthEvent,
    BodyChunk,
    BodyRefused,
    Closed,
    EndOfMessage,
    Event,
    Mail,
    MailRefused,
    Rcpt,
    RcptRefused,
    Reset,
    StartTls,
    Wait,
)
from restante.protocol.smtp.profile import Extension, Limits, Profile
from restante.protocol.smtp.server import SmtpServer
from restante.receiver import ServiceName, Transaction
from restante.receiver.door import Receiver
from restante.spool import Spool, SpoolFailed
from restante.status import Reply

T = TypeVar("T")

SYSTEM_FAILURE = Reply(451, "3.0", "A system failure, try again later")
TIMEOUT = Reply(421, "4.2", "Timeout, closing the connection")
SHUTDOWN = Reply(421, "3.2", "The server shuts down, try again later")
FAILING = Reply(421, "3.0", "A system failure, try again later")
BUSY = Reply(421, "3.2", "Too many connections, try again later")
WELCOME = Reply(235, "7.0", "Authentication succeeded")
LOGIN_REFUSED = Reply(535, "7.8", "Authentication credentials invalid")
TOO_MANY_GUESSES = Reply(535, "7.8", "Too many wrong passwords, try again later")
LOGIN_FAILURE = Reply(454, "7.0", "Temporary authentication failure")
_REFUSALS = {Refusal.SYSTEM_ERROR: LOGIN_FAILURE, Refusal.TOO_MANY_GUESSES: TOO_MANY_GUESSES}
UNPLANNED = "unplanned"
"""Why there was a system failure: the log has more under this name."""
MAX_PREFETCH = 100
"""Pipelined recipients that are looked up together."""


class SmtpService:
    """Holds SMTP sessions, of other hosts or of users."""

    busy = BUSY.encode()
    failing = FAILING.encode()
    in_company = True

    def __init__(
        self,
        name: ServiceName,
        settings: Callable[[], Settings],
        receiver: Callable[[], Receiver],
        spool_directory: str,
        authenticator: Authenticator,
        handshakes: Handshakes | None,
    ) -> None:
        """Settings and receiver are asked for, since they may change while sessions last.

        Without ``handshakes`` there is no STARTTLS.
        """
        self.name = name
        self.settings = settings
        self.receiver = receiver
        self.spool_directory = spool_directory
        self.authenticator = authenticator
        self.handshakes = handshakes
        self._offers_auth = settings().smtp.auth or name == "submission"
        self._profile = Derived(settings, self._make_profile)
        self._loopback = Derived(settings, self._make_loopback)

    def _make_profile(self, settings: Settings) -> Profile:
        """What new sessions are offered."""
        limits = Limits(
            max_command_line=settings.smtp.max_command_line,
            max_text_line=settings.smtp.max_text_line,
            databytes=settings.smtp.databytes,
            max_recipients=settings.smtp.max_recipients,
            max_errors=settings.smtp.max_errors,
            max_refused_logins=settings.auth.max_attempts,
        )
        return Profile(
            settings.hostname,
            _behind_name(settings.smtp.greeting, settings.hostname),
            limits,
            tuple(each for each in Extension if self._offers(each)),
            plaintext_auth=settings.auth.plaintext == "always",
            requires_auth=self.name == "submission",
            mechanisms=settings.auth.mechanisms,
        )

    def _make_loopback(self, settings: Settings) -> Profile:
        """The same for clients on this host, whose passwords nobody else can hear."""
        plaintext = settings.auth.plaintext != "never"
        return replace(self._profile(), plaintext_auth=plaintext)

    def core(self, connection: Connection) -> SmtpServer:
        """A session's core, which takes passwords as its connection allows."""
        loopback = self._offers_auth and connection.is_loopback
        profile = self._loopback if loopback else self._profile
        return SmtpServer(profile(), tls=connection.tls is not None, bindings=connection.bindings)

    def _offers(self, extension: Extension) -> bool:
        match extension:
            case Extension.STARTTLS:
                return self.handshakes is not None
            case Extension.AUTH:
                return self._offers_auth
            case _:
                return True

    async def serve(self, connection: Connection, session: str) -> str:
        """Hold one session to its end; the reason why it ended."""
        held = _Session(self, connection, session)
        reason = "cancelled"
        try:
            reason = await held.converse()
        except PeerTimeout:
            held.say(TIMEOUT)
            reason = "timeout"
        except PeerLost:
            reason = "lost"
        except TlsFailed:
            reason = "tls failed"
        except Stopping:
            held.say(SHUTDOWN)
            reason = "shutdown"
        except Exception:
            reason = "unplanned"
            held.tell()  # a message that was accepted would come again without its answer
            raise
        finally:
            held.break_off(reason)
        return reason


class _Session:
    """One client and its transaction."""

    __slots__ = (
        "_client",
        "_connection",
        "_core",
        "_end_by",
        "_event",
        "_origin",
        "_receiver",
        "_scram",
        "_service",
        "_session",
        "_settings",
        "_spool",
        "_spool_failure",
        "_transaction",
    )

    def __init__(self, service: SmtpService, connection: Connection, session: str) -> None:
        self._service = service
        self._connection = connection
        self._session = session
        self._settings = service.settings().smtp
        """Those that it began with; a reload counts for the next one."""
        self._receiver = service.receiver()
        """The one in force when this message began."""
        self._client = self._receiver.client(session, connection.peer, service.name)
        self._core = service.core(connection)
        self._scram: Scram | None = None
        self._event: Event | Wait | None = NEED_DATA
        """What the core said when octets were taken as they came; at first it waits for them."""
        now = asyncio.get_running_loop().time()
        self._end_by = now + self._settings.session_timeout
        self._transaction: Transaction | None = None
        self._origin: Origin | None = None
        self._spool: Spool | None = None
        self._spool_failure: SpoolFailed | None = None

    async def converse(self) -> str:
        self._connection.send(self._core.greet())
        while True:
            event, self._event = self._event or self._next_event(), None
            if not isinstance(event, (Wait, Closed)):
                await self._handle(event)
                continue
            if not self.tell():
                await self._connection.drain(self._settings.timeoutsmtpd, until=self._end_by)
            if event is NEED_DATA:
                if not await self._more():
                    self._core.receive_eof()
            elif isinstance(event, Closed):
                return event.reason.value
            else:
                await asyncio.sleep(0)  # who sends so much at once is not alone here

    def tell(self) -> bool:
        """Send what has been answered; False if the client has to catch up first."""
        self._connection.send(self._core.outgoing())
        return not self._connection.is_behind

    def say(self, reply: Reply) -> None:
        """The last words to a session that the core cannot end by itself."""
        self._connection.send(self._core.outgoing() + reply.encode())

    def break_off(self, reason: str) -> None:
        """The session ends: tell of a message that has had no answer, and forget it."""
        transaction = self._transaction
        if transaction is not None and transaction.decided:
            maillog.message_broken_off(
                self._session,
                transaction.queue_id,
                str(transaction.reverse_path),
                self._client.account_name,
                map(str, transaction.decided),
                self._spool.size if self._spool else 0,
                reason,
            )
        self.drop_transaction()

    def drop_transaction(self) -> None:
        """Forget what was begun."""
        self._transaction = None
        self._spool_failure = None
        if self._spool is not None:
            self._spool.let_go()
            self._spool = None

    def _next_event(self) -> Event | Wait:
        """What the core says once all is done that needs no wait."""
        while True:
            event = self._core.next_event()
            if isinstance(event, Wait) or not self._do_at_once(event):
                return event

    def _take(self, data: bytes) -> bool:
        """Answer what the client sends at once; False if something has to be waited for."""
        self._core.receive(data)
        event = self._next_event()
        if event is NEED_DATA and self.tell():
            return True
        self._event = event
        return False

    def _more(self) -> Awaitable[bool]:
        """Wait for the client; False when it sends no more.

        No coroutine: each one more that waits takes a quarter of a kibibyte of an idle session.
        """
        return self._connection.listen(
            self._take,
            self._settings.timeoutsmtpd,
            interruptible=self._is_interruptible,
            # A message that is being accepted gets its answer first, or it would come again.
            until=self._end_by,
        )

    def _is_interruptible(self) -> bool:
        return not self._core.in_content

    def _do_at_once(self, event: Event) -> bool:
        """Do what needs no wait; False if ``event`` is something else."""
        match event:
            case BodyChunk():
                return self._keep(event)
            case Mail():
                return self._begin(event)
            case Rcpt():
                return self._take_on_trust(event)
            case BodyRefused(reply):
                self._body_refused(reply)
            case MailRefused(path, reply):
                self._sender_refused(path, reply)
            case RcptRefused(path, reply):
                self._recipient_refused(path, reply)
            case Reset():
                self.drop_transaction()
            case _:
                return False
        return True

    def _handle(self, event: Event) -> Awaitable[None]:
        """Do what has to be waited for; no coroutine either."""
        match event:
            case Rcpt():
                return self._recipients(event)
            case EndOfMessage():
                return self._end()
            case Mail():
                return self._account_mail()
            case BodyChunk():
                return self._spill()
            case StartTls():
                return self._start_tls()
            case Authenticate() | ScramBegun() | ScramProof() | ScramDone():
                return self._log_in(event)
            case _:
                raise AssertionError(f"{event} needs no wait")

    async def _start_tls(self) -> None:
        service = self._service
        assert service.handshakes is not None
        await service.handshakes.start(self._connection, self._session, self._core.outgoing())
        # Whoever the client was in clear text, it has proved nothing yet.
        self._client = service.receiver().client(self._session, self._connection.peer, service.name)
        self._core.tls_started(self._connection.bindings)

    async def _log_in(self, event: AuthEvent) -> None:
        match event:
            case Authenticate():
                await self._authenticate(event)
            case ScramBegun() | ScramProof():
                if self._scram is None:
                    self._scram = self._new_scram()
                await self._scram.step(event, self._refuse_login)
            case ScramDone():
                assert self._scram is not None
                self._welcome(self._scram.account)

    def _new_scram(self) -> Scram:
        service = self._service
        return Scram(
            service.authenticator, self._core, self._session, service.name, self._connection.peer
        )

    async def _authenticate(self, event: Authenticate) -> None:
        service = self._service
        attempt = LoginAttempt(
            self._session, event.login, event.password, service.name, self._connection.peer
        )
        answer = await service.authenticator.login(attempt)
        if isinstance(answer, Welcome):
            self._welcome(answer.account)
        else:
            self._refuse_login(answer.reason)

    def _welcome(self, account: Account) -> None:
        self._client = self._receiver.authenticated(self._client, account)
        self._core.reply(WELCOME)

    def _refuse_login(self, reason: Refusal) -> None:
        self._core.reply(_REFUSALS.get(reason, LOGIN_REFUSED))

    def _begin(self, event: Mail) -> bool:
        """Answer MAIL; False if the client has logged in, and its account has a say in it."""
        connection, parameters = self._connection, event.parameters
        self._origin = Origin(
            event.helo, connection.peer, event.protocol, str(connection.tls or "")
        )
        try:
            self._receiver = self._service.receiver()
            reply, self._transaction = self._receiver.sender(
                self._client,
                event.reverse_path,
                eight_bit=parameters.eight_bit,
                smtputf8=parameters.smtputf8,
                ret=parameters.ret,
                envid=parameters.envid,
            )
        except Exception as error:  # noqa: BLE001 - a bug must not look like an answer
            self._note_bug(error)
            self._sender_refused(str(event.reverse_path), SYSTEM_FAILURE, UNPLANNED)
            reply, self._transaction = SYSTEM_FAILURE, None
        if self._transaction is not None and self._client.account is not None:
            return False
        self._core.reply(reply)
        return True

    async def _account_mail(self) -> None:
        account, transaction = self._client.account, self._transaction
        assert account is not None
        assert transaction is not None
        reply = await self._planned(self._receiver.account_sender(account, transaction))
        if reply is None:
            reply = SYSTEM_FAILURE
            self._sender_refused(str(transaction.reverse_path), reply, UNPLANNED)
        if not reply.is_success:
            self._transaction = None
        self._core.reply(reply)

    def _take_on_trust(self, event: Rcpt) -> bool:
        """Answer RCPT for one who was taken before; False if somebody has to be asked first."""
        assert self._transaction is not None
        try:
            reply = self._receiver.recipient_on_trust(self._transaction, event.address, event.dsn)
        except Exception as error:  # noqa: BLE001 - then the rows are asked, as they always may be
            self._note_bug(error)
            return False
        if reply is None:
            return False
        self._core.reply(reply)
        return True

    async def _recipients(self, first: Rcpt) -> None:
        """Recipients that came together are looked up together."""
        assert self._transaction is not None
        together = [first]
        while len(together) < MAX_PREFETCH and isinstance(
            following := self._core.next_event(), Rcpt
        ):
            together.append(following)
        asked = [(each.address, each.dsn) for each in together]
        answers = self._receiver.recipients(self._transaction, asked)
        replies = await self._planned(answers)
        if replies is None:
            replies = [SYSTEM_FAILURE] * len(asked)
            for address, _ in asked:
                self._recipient_refused(str(address), SYSTEM_FAILURE, UNPLANNED)
        for reply in replies:
            self._core.reply(reply)

    def _keep(self, piece: BodyChunk) -> bool:
        """Take a piece of the content; False if much of it waits to be written now."""
        if self._spool_failure is not None:
            return True  # told at the end of the content, which is read all the same
        if self._spool is None:
            self._spool = self._new_spool()
        return not self._spool.take(piece.data, piece.lines)

    def _new_spool(self) -> Spool:
        settings = self._settings
        return Spool(self._service.spool_directory, settings.spool_threshold, settings.max_header)

    async def _spill(self) -> None:
        assert self._spool is not None
        try:
            await self._spool.spill()
        except SpoolFailed as error:
            self._spool_failure = error

    async def _end(self) -> None:
        assert self._transaction is not None
        assert self._origin is not None
        receiver, transaction = self._receiver, self._transaction
        if self._spool_failure is not None:
            reply = receiver.unkept(transaction, self._spool_failure)
        else:
            if self._spool is None:
                self._spool = self._new_spool()
            accepted = receiver.accept(transaction, self._origin, self._spool)
            answer = await self._planned(accepted)
            reply = answer or receiver.refused(transaction, SYSTEM_FAILURE, UNPLANNED)
        self._core.reply(reply)
        # Now: what else has come may have to wait for the database, and the client for this.
        self.tell()
        self.drop_transaction()

    def _body_refused(self, reply: Reply) -> None:
        assert self._transaction is not None
        self._receiver.refused(self._transaction, reply, "")
        self.drop_transaction()

    def _sender_refused(self, path: str, reply: Reply, why: str = "") -> None:
        maillog.sender_refused(self._session, path, self._client.account_name, reply, why)

    def _recipient_refused(self, path: str, reply: Reply, why: str = "") -> None:
        transaction = self._transaction
        assert transaction is not None
        queue_id, sender = transaction.queue_id, str(transaction.reverse_path)
        maillog.recipient_refused(self._session, queue_id, sender, path, reply, why)

    async def _planned(self, work: Awaitable[T]) -> T | None:
        """The answer, or None (it is to be a temporary failure) when a bug ends the work."""
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - a bug must not look like an answer
            self._note_bug(error)
            return None

    def _note_bug(self, error: Exception) -> None:
        maillog.unplanned(f"{self._service.name} session {self._session}", error)


def _behind_name(greeting: str, name: str) -> str:
    """A greeting without the name: RFC 5321 §4.2 wants that first, and so qmail's greetings do.

    They may have it as server.me does, in U-labels.
    """
    first, _, rest = greeting.strip().partition(" ")
    return rest.strip() if in_a_labels(fold(first)) == fold(name) else greeting.strip()

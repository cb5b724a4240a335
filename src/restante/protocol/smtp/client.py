"""The client side of SMTP (RFC 5321): octets and messages in, commands and events out.

The engine knows no sockets and no clock. Its driver asks for events until it is told
to wait, sends what is ``outgoing`` first, and does what the wait says::

    client = SmtpClient("mx.example")
    while not isinstance(event := client.next_event(), Closed):
        send(client.outgoing())
        NEED_DATA: client.receive(octets), or client.receive_eof() at the end or on a time-out
        NEED_ACTION: client.send(message), start_tls(), authenticate(...) or quit()
        NEED_CONTENT: client.content(block) or client.end_content()
        NEED_HANDSHAKE: do it, then client.tls_started()
        Ready, TransactionDone, ...: take note
    send(client.outgoing())

Replies are matched to commands by their order alone: what comes before its command is sent
is its answer all the same, so that nothing hangs on how the octets were cut. Whatever the
peer sends, the session ends in Closed, and each recipient of each message gets exactly one
result before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from restante.protocol.smtp import client_commands as commands
from restante.protocol.smtp.client_commands import BLOCK_TIMEOUT, Command, Kind
from restante.protocol.smtp.client_events import (
    Authenticated,
    AuthRefused,
    ClientEvent,
    ClientWait,
    Closed,
    Extensions,
    OutgoingMessage,
    Ready,
    StartTls,
    TlsRefused,
    TransactionDone,
)
from restante.protocol.smtp.client_reply import NotAReply, ReplyReader
from restante.protocol.smtp.client_transaction import OutOfSync, Transaction
from restante.status import Reply

MAX_UNANSWERED = 128
"""Commands that are sent before the first of them is answered.

Their answers of 512 octets at most fit into the buffers of the two hosts, so that neither
waits for the other to read (RFC 2920 §3.1).
"""

MECHANISMS = ("PLAIN", "LOGIN")
"""What ``authenticate`` can do, the better first."""


class SmtpClient:
    """One connection. Feed it only when it waits: then what it holds is bounded."""

    def __init__(self, name: str) -> None:
        """``name`` is what this host says in EHLO: printable ASCII without spaces."""
        self._name = name
        self._replies = ReplyReader()
        self._eof = ""
        """Why the peer sends nothing more; empty: it may."""
        self._out: list[bytes] = []
        self._events: deque[ClientEvent] = deque()
        self._closed: Closed | None = None
        self._unanswered: deque[Command] = deque([commands.GREETING])
        self._extensions = Extensions()
        self._transaction: Transaction | None = None
        self._reset_due = False
        """The peer holds an earlier transaction open."""
        self._handshaking = False
        self._sasl: deque[bytes] = deque()
        """The lines that answer the peer's challenges."""
        self._handlers: Mapping[Kind, Callable[[Command, Reply], None]] = {
            Kind.GREETING: self._greeted,
            Kind.EHLO: self._ehlo_answered,
            Kind.HELO: self._helo_answered,
            Kind.STARTTLS: self._starttls_answered,
            Kind.AUTH: self._auth_answered,
            Kind.QUIT: lambda _command, reply: self._close(reply, "quit"),
        }

    # What the driver calls

    def receive(self, data: bytes) -> None:
        """Take octets from the peer; after the end of the session they go nowhere."""
        if self._closed is None:
            self._replies.feed(data)

    def receive_eof(self, why: str = "the connection was closed") -> None:
        """Take note that nothing more comes: the stream ended, or the driver gave up waiting."""
        self._eof = self._eof or why

    def outgoing(self) -> bytes:
        """The octets to be sent now; asking for them takes them."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def next_event(self) -> ClientEvent | ClientWait:
        """What happened next, or why nothing did; Closed is the last event, for ever."""
        while not self._events:
            if self._closed is not None:
                return self._closed
            wait = self._advance()
            if wait is not None:
                return wait
        return self._events.popleft()

    @property
    def timeout(self) -> float:
        """Seconds that the driver should wait for the peer now (RFC 5321 §4.5.3.2)."""
        return self._unanswered[0].timeout if self._unanswered else BLOCK_TIMEOUT

    @property
    def awaited(self) -> Command | None:
        """The oldest command without an answer: another object as soon as it is answered."""
        return self._unanswered[0] if self._unanswered else None

    @property
    def command(self) -> str:
        """The oldest command without an answer, as reports name it; ``content``; ``idle``."""
        if self._unanswered:
            return self._unanswered[0].name
        if self._handshaking:
            return commands.STARTTLS.name
        return "idle" if self._transaction is None else "content"

    @property
    def extensions(self) -> Extensions:
        """What the peer offers since the last Ready."""
        return self._extensions

    # Actions, where NEED_ACTION asks for one

    def start_tls(self) -> None:
        """Ask for TLS (RFC 3207 §4): StartTls or TlsRefused follows."""
        self._check_idle()
        self._issue(commands.STARTTLS)

    def tls_started(self) -> None:
        """The handshake is done: all that the peer said before is void (RFC 3207 §4.2)."""
        if not self._handshaking:
            raise RuntimeError("no handshake was asked for")
        if not self._refuse_injection():
            self._handshaking = False
            self._extensions = Extensions()
            self._reset_due = False
            self._issue(commands.hello(Kind.EHLO, self._name))

    def authenticate(self, mechanism: str, login: str, password: str) -> None:
        """Log in (RFC 4954): Authenticated or AuthRefused follows.

        ``mechanism`` is one of MECHANISMS that the peer's extensions name.
        """
        self._check_idle()
        responses = commands.sasl_responses(mechanism, login, password)
        # A peer that is not content with them gets the cancelling star.
        self._sasl = deque([*responses, b"*"])
        first = b"AUTH " + mechanism.encode()
        initial = first + b" " + responses[0]
        if len(responses) == 1 and len(initial) + len(b"\r\n") <= commands.MAX_COMMAND:
            self._sasl.popleft()
            first = initial
        self._issue(commands.auth(mechanism, first))

    def send(self, message: OutgoingMessage) -> None:
        """Send a message: TransactionDone follows, after NEED_CONTENT if the peer wants it."""
        self._check_idle()
        self._transaction = Transaction(message, self._extensions, reset=self._reset_due)

    def content(self, block: bytes) -> None:
        """The next piece of the content, LF line ends; without effect if nobody gets it."""
        if self._transaction is not None and self._transaction.wants_content:
            command = self._transaction.content(block)
            if command is not None:
                self._issue(command)

    def end_content(self) -> None:
        """The content is complete; without effect if nobody gets it."""
        if self._transaction is not None and self._transaction.wants_content:
            self._issue(self._transaction.end_content())

    def quit(self) -> None:
        """Take leave: Closed follows."""
        self._check_idle()
        self._issue(commands.QUIT)

    def _check_idle(self) -> None:
        if not self._is_idle:
            raise RuntimeError(f"something is under way: {self.command}")

    @property
    def _is_idle(self) -> bool:
        busy = self._unanswered or self._handshaking or self._transaction is not None
        return self._closed is None and not busy

    # The way forward

    def _advance(self) -> ClientWait | None:
        """One step; why there is none to be taken now, or None."""
        if self._handshaking:
            return (
                None if self._refuse_injection() else self._wait_or_end(ClientWait.NEED_HANDSHAKE)
            )
        self._fill()
        if self._end_transaction():
            return None
        try:
            reply = self._replies.next_reply()
            if reply is None:
                return self._wait_or_end(self._wait())
            self._take(reply)
        except (NotAReply, OutOfSync) as error:
            self._break(str(error))
        return None

    def _wait(self) -> ClientWait:
        if self._transaction is not None and self._transaction.wants_content and self._has_room():
            return ClientWait.NEED_CONTENT
        # Half a reply that nothing asked for: a 421, or the end of the session.
        if self._is_idle and self._replies.is_empty:
            return ClientWait.NEED_ACTION
        return ClientWait.NEED_DATA

    def _wait_or_end(self, wait: ClientWait) -> ClientWait | None:
        if not self._eof:
            return wait
        self._break(self._eof)
        return None

    def _has_room(self) -> bool:
        """Whether another command may be sent before the earlier ones are answered."""
        most = MAX_UNANSWERED if self._extensions.pipelining else 1
        return len(self._unanswered) < most

    def _fill(self) -> None:
        """Send as much of the envelope as may be sent now."""
        while self._transaction is not None and self._has_room():
            command = self._transaction.next_command()
            if command is None:
                return
            self._issue(command)

    def _issue(self, command: Command) -> None:
        self._out.append(command.wire)
        if command.kind is not Kind.BLOCK:
            self._unanswered.append(command)

    # Answers

    def _take(self, reply: Reply) -> None:
        """Give the reply to the command it answers; raises OutOfSync."""
        if reply.code == 421:
            self._end(reply, "the peer ends the session")
        elif self._unanswered:
            command = self._unanswered[0]
            handler = self._handlers.get(command.kind, self._transaction_answered)
            handler(command, reply)
            if self._closed is None:
                self._unanswered.popleft()
        elif self._transaction is not None and not reply.is_success:
            self._end(reply, "the content was refused before its end")
        else:
            raise OutOfSync(f"a reply that nothing asked for: {reply}")

    def _transaction_answered(self, command: Command, reply: Reply) -> None:
        if self._transaction is not None:
            self._transaction.answer(command, reply)

    def _greeted(self, command: Command, reply: Reply) -> None:
        if _succeeded(command, reply):
            self._issue(commands.hello(Kind.EHLO, self._name))
        else:
            self._leave(reply, "the peer takes no mail")

    def _ehlo_answered(self, command: Command, reply: Reply) -> None:
        if _succeeded(command, reply):
            self._ready(commands.parse_extensions(reply.text))
        elif reply.is_temporary:
            self._leave(reply, "the peer takes no EHLO")
        else:
            self._issue(commands.hello(Kind.HELO, self._name))

    def _helo_answered(self, command: Command, reply: Reply) -> None:
        if _succeeded(command, reply):
            self._ready(Extensions())
        else:
            self._leave(reply, "the peer takes no HELO")

    def _ready(self, extensions: Extensions) -> None:
        self._extensions = extensions
        self._events.append(Ready(extensions))

    def _starttls_answered(self, command: Command, reply: Reply) -> None:
        if _succeeded(command, reply):
            self._handshaking = True
            self._events.append(StartTls())
        else:
            self._events.append(TlsRefused(reply))

    def _auth_answered(self, command: Command, reply: Reply) -> None:
        if reply.code // 100 == 3 and self._sasl:
            line = Command(Kind.AUTH, self._sasl.popleft() + b"\r\n", command.name)
            self._issue(line)
        elif _succeeded(command, reply):
            self._events.append(Authenticated())
        else:
            self._events.append(AuthRefused(reply))

    # Ends

    def _end_transaction(self) -> bool:
        """End the transaction if it is over; whether it was."""
        transaction = self._transaction
        if transaction is None or self._unanswered or transaction.wants_content:
            return False
        self._done(transaction)
        return True

    def _done(self, transaction: Transaction) -> None:
        self._reset_due = transaction.needs_reset
        self._events.append(TransactionDone(transaction.results, self._extensions.dsn))
        self._transaction = None

    def _refuse_injection(self) -> bool:
        """Close if octets came that no handshake protects; whether any did."""
        if self._replies.is_empty:
            return False
        self._close(None, "octets came in clear text after the answer to STARTTLS")
        return True

    def _break(self, why: str) -> None:
        """The session is over without a word from the peer that could be understood."""
        self._end(None, why)

    def _end(self, reply: Reply | None, why: str) -> None:
        """The session is over, and with it the transaction."""
        self._close(reply, why)
        transaction = self._transaction
        if transaction is not None:
            last_words = reply or Reply(451, "4.2", why[:1].upper() + why[1:])
            transaction.decide(last_words, self.command, local=reply is None)
            self._done(transaction)

    def _leave(self, reply: Reply, why: str) -> None:
        """Close with a word to a peer that refused to go on (RFC 5321 §3.1)."""
        self._close(reply, why)
        self._out.append(commands.QUIT.wire)

    def _close(self, reply: Reply | None, why: str) -> None:
        self._closed = Closed(reply, self.command, why)


def _succeeded(command: Command, reply: Reply) -> bool:
    """Whether the command did what it asked for; raises OutOfSync for an answer of another kind."""
    if 300 <= reply.code < 400:
        raise OutOfSync(f"{reply.code} is no answer to {command.name}")
    return reply.is_success

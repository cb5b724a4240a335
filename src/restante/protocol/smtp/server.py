"""The server side of SMTP: octets in, events and replies out.

The core answers by itself whatever needs nobody's judgement. Its driver feeds it,
asks for events until it is told to wait, and answers Mail, Rcpt, EndOfMessage and
Authenticate, and does the handshake of StartTls::

    connection.send(core.greet())
    while not isinstance(event := core.next_event(), Closed):
        send(core.outgoing()) before any wait
        NEED_DATA: core.receive(octets) or core.receive_eof()
        NEED_REPLY: core.reply(...) for the oldest event that has none
        Mail, Rcpt, EndOfMessage, Authenticate: look it up, core.reply(...) now or on NEED_REPLY
        ScramBegun: core.scram_salt(...); ScramProof: core.scram_signature(...); or core.reply(...)
        ScramDone: core.reply(...)
        StartTls: send core.outgoing(), do the handshake, core.tls_started()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from restante.envelope import NO_DSN
from restante.protocol import sasl
from restante.protocol.sasl import ScramBegun, ScramProof
from restante.protocol.smtp import replies
from restante.protocol.smtp.body import ChunkDecoder, ContentText, DataDecoder, Fault
from restante.protocol.smtp.events import (
    NEED_DATA,
    NO_PARAMETERS,
    AuthEvent,
    BodyChunk,
    BodyRefused,
    Closed,
    CloseReason,
    CommandRefused,
    EndOfMessage,
    Event,
    Mail,
    MailParameters,
    MailRefused,
    Rcpt,
    RcptRefused,
    Reset,
    StartTls,
    Wait,
)
from restante.protocol.smtp.grammar import (
    Refused,
    Verb,
    is_auth,
    is_rcpt,
    parse_bdat,
    parse_command,
    parse_hello,
    parse_mail,
    parse_rcpt,
    path_given,
)
from restante.protocol.smtp.lines import Input
from restante.protocol.smtp.profile import OUT_OF_ORDER, Extension, Profile, State
from restante.protocol.smtp.security import Security
from restante.protocol.smtp.transaction import Transaction
from restante.status import Reply

MAX_UNSENT = 4 * 1024
"""Octets of replies that gather before the peer must read some, and other sessions get a turn:
some 300 commands, which take a few milliseconds."""
LOGIN_FAILED = 454
"""A login that cannot be judged (RFC 4954 §6) is an error, or nothing would bound them."""


_FAULTS: Mapping[Fault, Reply] = {
    Fault.BARE_LINE_END: replies.BARE_LINE_END,
    Fault.TOO_BIG: replies.TOO_BIG,
    Fault.LONG_LINE: replies.LONG_LINE,
}


_TOLD: Mapping[bytes, tuple[Verb, type[CommandRefused]]] = {
    b"MAIL ": (Verb.MAIL, MailRefused),
    b"RCPT ": (Verb.RCPT, RcptRefused),
}
"""How the commands begin whose refusal is an event."""
_CONTENT_STATES = frozenset((State.CHUNKS, State.CONTENT))
_OPEN_STATES = frozenset((State.ENVELOPE, State.CHUNKS))
"""Those in which a client may give up a transaction."""


@dataclass(slots=True)
class _Chunk:
    """A BDAT command whose octets are being read; refused or not, they must be."""

    left: int
    last: bool
    refusal: Reply | None


class SmtpServer:
    """One session. Feed it only when it says NEED_DATA: then what it holds is bounded."""

    def __init__(
        self,
        profile: Profile,
        *,
        tls: bool = False,
        bindings: sasl.Bindings = sasl.NO_BINDINGS,
    ) -> None:
        """``tls``: the handshake came before the session, as on port 465 (RFC 8314 §3.3).

        ``bindings``: what its connection can be recognised by.
        """
        self._profile = profile
        self._limits = profile.limits
        self._security = Security(profile, tls, bindings)
        self._input = Input(profile.longest_line)
        self._eof = False
        self._out = b""
        self._events: list[Event] = []
        # Replies in the order of their commands; an event of the driver's stands for one to come.
        self._pending: list[Event | Reply] = []
        self._state = State.CONNECTED
        self._closed: Closed | None = None
        self._helo = ""
        self._extended = False
        self._errors = 0
        self._transaction = Transaction()
        self._data: DataDecoder | None = None
        self._chunks: ChunkDecoder | None = None
        self._chunk: _Chunk | None = None

    # What the driver calls

    def greet(self) -> bytes:
        """The greeting that opens the session."""
        return self._profile.opening

    def receive(self, data: bytes) -> None:
        """Take octets from the peer; after the end of the session they go nowhere."""
        if self._closed is None:
            self._input.append(data)

    def receive_eof(self) -> None:
        """Take note that the peer sends nothing more."""
        self._eof = True

    def next_event(self) -> Event | Wait:
        """What happened next, or why nothing did; Closed is the last event, for ever."""
        while not self._events:
            if self._closed is not None:
                return self._closed
            if len(self._out) > MAX_UNSENT:
                return Wait.NEED_SEND
            if self._pending and not self._may_look_ahead():
                return Wait.NEED_REPLY
            # Nearly every command comes alone: that none follows is seen without a call.
            if self._input.start == len(self._input.block) or not self._advance():
                if not self._eof:
                    return NEED_DATA
                self._close(CloseReason.LOST)
        return self._events.pop(0)

    def reply(self, reply: Reply) -> None:
        """Answer the oldest event that has no answer; a 421 also closes the session.

        To Authenticate and ScramDone: 235 2.7.0; to these and to the other events of SCRAM
        535 5.7.8 or 454 4.7.0 (RFC 4954 §6).
        Without effect on a session that is closed.
        """
        if self._closed is not None:
            return
        match self._pending.pop(0):
            case Rcpt():
                self._transaction.count(reply)
                self._say(reply)
            case Mail():
                self._state = State.ENVELOPE if reply.is_success else State.IDLE
                self._say(reply)
            case EndOfMessage():
                self._settle_message(reply)
                self._say(reply)
            case StartTls() | Reply() as asked:
                raise AssertionError(f"{asked} is not answered with a reply")
            case _:
                self._settle_login(reply)
        if self._pending and not isinstance(own := self._pending[0], Rcpt):
            self._pending.clear()  # it is the last one
            said = self._refuse(own) if isinstance(own, RcptRefused) else own
            assert isinstance(said, Reply), "nothing else is looked ahead to"
            self._say(said)

    def scram_salt(self, salt: bytes, iterations: int) -> None:
        """Answer ScramBegun with what belongs to its login, be there such an account or not."""
        if self._closed is None:
            self._challenge(self._security.salted(salt, iterations))

    def scram_signature(self, signature: bytes) -> None:
        """Answer ScramProof, which was right, with the server's own proof."""
        if self._closed is None:
            self._challenge(self._security.proved(signature))

    def tls_started(self, bindings: sasl.Bindings = sasl.NO_BINDINGS) -> None:
        """The handshake of StartTls is done: the session begins anew (RFC 3207 §4.2).

        Whatever was received before it counts for nothing. ``bindings``: what the
        connection can be recognised by.
        """
        asked = self._pending.pop(0)
        assert isinstance(asked, StartTls), "no handshake was asked for"
        self._input.clear()
        self._security = self._security.after_handshake(bindings)
        self._helo, self._extended = "", False
        self._state = State.CONNECTED

    @property
    def in_content(self) -> bool:
        """Whether the content of a message has begun and not been answered: not a time to close."""
        return self._chunk is not None or self._state in _CONTENT_STATES

    def close(self, reply: Reply) -> None:
        """End the session from this side with ``reply``, a 421 (RFC 5321 §3.8)."""
        if self._closed is None:
            self._out += reply.encode()
            self._close(CloseReason.REFUSED)

    def outgoing(self) -> bytes:
        """The octets to be sent now; they are handed over once."""
        out, self._out = self._out, b""
        return out

    # Progress

    def _advance(self) -> bool:
        """Use some of the input; False if there is too little of it."""
        if self._data is not None:
            return self._read_data(self._data)
        if self._chunk is not None:
            return self._read_chunk(self._chunk)
        line = self._input.take_line()
        if line is None:
            return False
        reply = self._obey(line)
        if reply is not None:
            self._answer(reply)
        return True

    def _may_look_ahead(self) -> bool:
        """Whether the next command is a RCPT that may be looked up with those before it.

        Not behind one that is refused: the refusals of a session are counted before there are more.
        """
        return (
            isinstance(self._pending[-1], Rcpt)
            and self._transaction.accepted + len(self._pending) < self._limits.max_recipients
            and is_rcpt(self._input.peek_line())
        )

    def _obey(self, line: bytes) -> Reply | None:
        """Do what one line asks for; its reply, or None if it comes later.

        An empty line was too long; AUTH alone may have a longer one than others (RFC 4954 §4).
        """
        try:
            if self._security.exchange is not None:  # no command, but a response
                return self._ask_or_reply(self._security.respond(line))
            if not line or (len(line) > self._limits.max_command_line and not is_auth(line)):
                return replies.LINE_TOO_LONG
            try:
                verb, argument = parse_command(line)
            except Refused as refused:
                return self._unread(line, refused.reply)
            command, refusals = _COMMANDS[verb]
            return refusals.get(self._state) or command(self, argument)
        except Refused as refused:
            return refused.reply

    def _unread(self, line: bytes, reply: Reply) -> Reply | None:
        """What is no line of text; a MAIL or RCPT that would have its turn is told of."""
        verb, event = _TOLD.get(line[:5].upper(), (None, None))
        if verb is None or event is None or self._state in _COMMANDS[verb][1]:
            return reply
        argument = line[5:].decode(errors="replace").strip()
        return self._refuse(event(path_given(argument), reply))

    # Commands

    def _helo_command(self, argument: str) -> Reply:
        self._greeted(argument, extended=False)
        return self._profile.short_hello

    def _ehlo_command(self, argument: str) -> None:
        self._greeted(argument, extended=True)
        self._out += self._security.hello

    def _greeted(self, argument: str, *, extended: bool) -> None:
        self._helo = parse_hello(argument)
        self._extended = extended
        self._abort_transaction()
        self._state = State.IDLE

    def _mail_command(self, argument: str) -> Reply | None:
        try:
            self._security.check_mail()
            reverse_path, parameters = parse_mail(argument)
            if parameters is not NO_PARAMETERS:
                self._check_parameters(parameters)
        except Refused as refused:
            return self._refuse(MailRefused(path_given(argument), refused.reply))
        self._transaction = Transaction(parameters.smtputf8)
        protocol = self._protocol(smtputf8=parameters.smtputf8)
        self._ask(Mail(reverse_path, self._helo, protocol, parameters))
        return None

    def _protocol(self, *, smtputf8: bool) -> str:
        """The ``with`` of a Received field; none is registered for TLS or AUTH after HELO."""
        if not self._extended and not smtputf8:
            return "SMTP"
        return f"{'UTF8SMTP' if smtputf8 else 'ESMTP'}{self._security.protocol_suffix}"

    def _check_parameters(self, mail: MailParameters) -> None:
        offered = self._profile.extensions
        if (
            (mail.size is not None and Extension.SIZE not in offered)
            or (mail.eight_bit and Extension.EIGHT_BIT not in offered)
            or (mail.smtputf8 and Extension.SMTPUTF8 not in offered)
            or (mail.auth and Extension.AUTH not in offered)
            or ((mail.ret or mail.envid) and Extension.DSN not in offered)
        ):
            raise Refused(replies.PARAMETER_UNKNOWN)
        if self._limits.databytes and (mail.size or 0) > self._limits.databytes:
            raise Refused(replies.TOO_BIG)

    def _rcpt_command(self, argument: str) -> Reply | None:
        transaction = self._transaction
        try:
            rcpt = parse_rcpt(argument, smtputf8=transaction.smtputf8)
            if rcpt.dsn is not NO_DSN:
                self._check_dsn()
            if transaction.accepted >= self._limits.max_recipients:
                return transaction.refuse_more()
        except Refused as refused:
            return self._refuse(RcptRefused(path_given(argument), refused.reply))
        self._ask(rcpt)
        return None

    def _check_dsn(self) -> None:
        if Extension.DSN not in self._profile.extensions:
            raise Refused(replies.PARAMETER_UNKNOWN)

    def _data_command(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        self._transaction.check_recipients()
        self._data = DataDecoder(self._content_text())
        self._state = State.CONTENT
        return replies.START_CONTENT

    def _bdat_command(self, argument: str) -> Reply | None:
        if Extension.CHUNKING not in self._profile.extensions:
            return replies.NOT_IMPLEMENTED
        try:
            bdat = parse_bdat(argument)
        except Refused as refused:
            # What follows may be content that a third party wrote: never run it as commands.
            self._say(refused.reply)
            self._close(CloseReason.OUT_OF_SYNC)
            return None
        chunk = _Chunk(bdat.size, bdat.last, self._refusal_of_chunk())
        if chunk.refusal is None and self._chunks is None:
            self._chunks = ChunkDecoder(self._content_text())
            self._state = State.CHUNKS
        if chunk.left:
            self._chunk = chunk
        else:
            self._end_chunk(chunk)
        return None

    def _refusal_of_chunk(self) -> Reply | None:
        """The octets of a BDAT must be read in whatever state it comes, and so it is obeyed."""
        if (refusal := OUT_OF_ORDER[Verb.BDAT].get(self._state)) is not None:
            return refusal
        try:
            self._transaction.check_recipients()
        except Refused as refused:
            return refused.reply
        return None

    def _rset_command(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        self._abort_transaction()
        return replies.OK

    def _noop_command(self, _argument: str) -> Reply:
        return replies.OK

    def _help_command(self, _argument: str) -> Reply:
        return self._security.help

    def _vrfy_command(self, argument: str) -> Reply:
        return replies.CANNOT_VERIFY if argument else replies.VRFY_SYNTAX

    def _quit_command(self, argument: str) -> Reply | None:
        if argument:
            return replies.NO_ARGUMENT
        self._abort_transaction()
        self._out += replies.BYE.encode()
        self._close(CloseReason.QUIT)
        return None

    def _web_command(self, _argument: str) -> None:
        self._out += replies.NOT_A_WEB_SERVER.encode()
        self._close(CloseReason.NOT_SMTP)

    # TLS and authentication

    def _starttls_command(self, argument: str) -> Reply | None:
        if argument:
            return replies.NO_ARGUMENT
        self._security.check_starttls()
        if len(self._input):
            # What follows came in clear text; somebody on the way may have added it.
            self._say(replies.SENT_BEFORE_HANDSHAKE)
            self._close(CloseReason.OUT_OF_SYNC)
            return None
        self._abort_transaction()
        self._out += replies.START_HANDSHAKE.encode()
        self._ask(StartTls())
        return None

    def _auth_command(self, argument: str) -> Reply | None:
        return self._ask_or_reply(self._security.begin(argument))

    def _ask_or_reply(self, outcome: Reply | AuthEvent) -> Reply | None:
        if isinstance(outcome, Reply):
            return outcome
        self._ask(outcome)
        return None

    def _challenge(self, challenge: Reply) -> None:
        """Go on with an exchange that the driver has answered."""
        asked = self._pending.pop(0)
        assert isinstance(asked, ScramBegun | ScramProof), "SCRAM was not asked for"
        self._say(challenge)

    # Content

    def _content_text(self) -> ContentText:
        return ContentText(self._limits.databytes, self._limits.max_text_line)

    def _read_data(self, decoder: DataDecoder) -> bool:
        start = self._input.start
        text, self._input.start = decoder.feed(self._input.block, start)
        has_moved = self._input.start > start
        self._pass_on(text, decoder.text)
        if decoder.done:
            self._data = None
            self._end_content(decoder.text)
        return has_moved

    def _read_chunk(self, chunk: _Chunk) -> bool:
        octets = self._input.take(chunk.left)
        chunk.left -= len(octets)
        if chunk.refusal is None and self._chunks is not None:
            self._pass_on(self._chunks.feed(octets), self._chunks.text)
        if not chunk.left:
            self._chunk = None
            self._end_chunk(chunk)
        return True

    def _end_chunk(self, chunk: _Chunk) -> None:
        if chunk.refusal is not None or self._chunks is None:
            self._answer(chunk.refusal or replies.RCPT_FIRST)
        elif chunk.last:
            self._pass_on(self._chunks.finish(), self._chunks.text)
            self._state = State.CONTENT
            self._end_content(self._chunks.text)
        elif self._chunks.text.fault is not None:
            self._refuse_content(self._chunks.text.fault)
        else:
            self._answer(replies.OK)

    def _pass_on(self, piece: bytes, text: ContentText) -> None:
        if piece:
            self._events.append(BodyChunk(piece, text.lines))

    def _end_content(self, text: ContentText) -> None:
        if text.fault is not None:
            self._refuse_content(text.fault)
        else:
            self._ask(EndOfMessage())

    def _refuse_content(self, fault: Fault) -> None:
        reply = _FAULTS[fault]
        self._events.append(BodyRefused(reply))
        self._end_transaction()
        self._answer(reply)

    # Transactions and replies

    def _abort_transaction(self) -> None:
        if self._state in _OPEN_STATES:
            self._events.append(Reset())
            self._end_transaction()

    def _end_transaction(self) -> None:
        self._state = State.IDLE
        self._chunks = None

    def _ask(self, event: Event) -> None:
        self._events.append(event)
        self._pending.append(event)

    def _settle_message(self, reply: Reply) -> None:
        self._end_transaction()
        if reply.is_success:
            self._errors = 0

    def _settle_login(self, reply: Reply) -> None:
        self._security.settle(reply)
        self._say(reply)
        if self._security.is_guessing:
            self.close(replies.TOO_MANY_LOGINS)

    def _answer(self, reply: Reply) -> None:
        """Give a reply of the core its place behind those that are still awaited."""
        if self._pending:
            self._pending.append(reply)
        else:
            self._say(reply)

    def _refuse(self, refused: CommandRefused) -> Reply | None:
        """Tell the driver; the reply, or None while others are awaited before it."""
        if self._pending:
            self._pending.append(refused)
            return None
        self._events.append(refused)
        return refused.reply

    def _say(self, reply: Reply) -> None:
        if reply.code < 500 and reply.code != LOGIN_FAILED:
            self._out += reply.encode()
            if reply.code == 421:
                self._close(CloseReason.REFUSED)
        elif self._errors < self._limits.max_errors:
            self._errors += 1
            self._out += reply.encode()
        else:
            self._out += replies.TOO_MANY_ERRORS.encode()
            self._close(CloseReason.TOO_MANY_ERRORS)

    def _close(self, reason: CloseReason) -> None:
        if self._closed is None:
            self._closed = Closed(reason)
            self._state = State.CLOSED
            self._pending.clear()
            self._input.clear()


_Command = Callable[[SmtpServer, str], Reply | None]

_VERBS: Mapping[Verb, _Command] = {
    Verb.HELO: SmtpServer._helo_command,
    Verb.EHLO: SmtpServer._ehlo_command,
    Verb.STARTTLS: SmtpServer._starttls_command,
    Verb.AUTH: SmtpServer._auth_command,
    Verb.MAIL: SmtpServer._mail_command,
    Verb.RCPT: SmtpServer._rcpt_command,
    Verb.DATA: SmtpServer._data_command,
    Verb.BDAT: SmtpServer._bdat_command,
    Verb.RSET: SmtpServer._rset_command,
    Verb.NOOP: SmtpServer._noop_command,
    Verb.HELP: SmtpServer._help_command,
    Verb.VRFY: SmtpServer._vrfy_command,
    Verb.QUIT: SmtpServer._quit_command,
    Verb.WEB: SmtpServer._web_command,
}
_COMMANDS: Mapping[Verb, tuple[_Command, Mapping[State, Reply]]] = {
    verb: (command, {} if verb is Verb.BDAT else OUT_OF_ORDER.get(verb, {}))
    for verb, command in _VERBS.items()
}
"""What each does, and the states in which it is refused instead."""

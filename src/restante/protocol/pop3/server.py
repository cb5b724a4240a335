"""The server side of POP3 as a state machine: octets in, events and octets out.

Session states and the commands of each are the table ``_VERBS`` at the end of this
file (RFC 1939 §4 to §6). The core keeps the deletion marks and answers all that needs
nobody's judgement; logins, messages and the final update are the driver's::

    send(core.greet())
    while True:
        event = core.next_event()
        send(core.outgoing())
        if event is Need.DATA:
            ...  # receive(), or receive_eof()
        elif isinstance(event, Login | ScramDone):
            ...  # login_accepted() or login_refused()
        elif isinstance(event, ScramBegun | ScramProof):
            ...  # scram_salt() or scram_signature(), or login_refused()
        elif isinstance(event, StartTls):
            ...  # the handshake, then tls_started()
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto

from restante.protocol import sasl
from restante.protocol.pop3.events import (
    Closed,
    CloseReason,
    Event,
    Login,
    Need,
    ResponseCode,
    Retrieve,
    StartTls,
    Update,
)
from restante.protocol.pop3.lines import LineBuffer, TooLong
from restante.protocol.pop3.listing import Listed, Listing
from restante.protocol.pop3.message import Transfer, whole
from restante.protocol.pop3.profile import Profile
from restante.protocol.sasl import ScramBegun, ScramDone, ScramProof

MAX_RESPONSE_LINE = 512
"""Octets in the first line of a response, with its CRLF (RFC 2449 §4)."""
END_OF_LINES = b".\r\n"
"""The last line of a response that has several (RFC 1939 §3)."""
SHORT_LINE = MAX_RESPONSE_LINE // 4 - len(b"\r\n")
"""Characters of a line that is not too long, whatever octets they become in UTF-8."""
FLUSH_AT = 64 * 1024
"""Octets that wait unsent before the next pipelined command waits too."""
MAX_COMMANDS = 512
"""Pipelined commands that are answered, however short the answers, before the next one waits."""
MAX_BLOCKS = 8
"""Blocks of lines that are made, though most of their messages are marked; the same."""

_COMMAND = FLUSH_AT // MAX_COMMANDS
_BLOCK = FLUSH_AT // MAX_BLOCKS
"""What each of them counts for, in octets."""

_NUMBER = re.compile(r"[0-9]{1,10}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _State(Enum):
    """RFC 1939 §3; UPDATE is what follows QUIT."""

    AUTHORIZATION = auto()
    TRANSACTION = auto()
    UPDATE = auto()


class _Refused(Exception):
    """A command fails; the text is for the client."""

    def __init__(self, text: str, code: ResponseCode | None = None) -> None:
        super().__init__(text)
        self.code = code


class Pop3Server:
    """One session. Give octets when ``next_event`` needs them, answer events, send ``outgoing``."""

    __slots__ = (
        "_asked",
        "_at_eof",
        "_bindings",
        "_ended",
        "_errors",
        "_exchange",
        "_hostname",
        "_limits",
        "_lines",
        "_lines_left",
        "_listing",
        "_out",
        "_profile",
        "_refused_logins",
        "_spent",
        "_state",
        "_tls",
        "_transfer",
        "_user",
        "_verbs",
    )

    def __init__(
        self,
        profile: Profile,
        *,
        tls: bool = False,
        bindings: sasl.Bindings = sasl.NO_BINDINGS,
    ) -> None:
        """``tls``: the handshake came before the session, as on port 995 (RFC 8314 §3.3).

        ``bindings``: what its connection can be recognised by.
        """
        self._profile = profile
        self._hostname = profile.hostname
        self._limits = profile.limits
        self._tls = tls
        self._bindings = bindings
        self._enter(_State.AUTHORIZATION)
        self._lines = LineBuffer()
        self._out: list[bytes] = []
        self._spent = 0
        """Octets since ``outgoing`` was asked, and what else takes time, counted as if it were."""
        self._at_eof = False
        self._asked: Event | None = None
        self._user: str | None = None
        self._exchange: sasl.Exchange | None = None
        self._errors = 0
        self._refused_logins = 0
        self._listing: Listing
        """From the login on."""
        self._lines_left: Iterator[bytes] | None = None
        """Of the LIST or UIDL that is being answered."""
        self._transfer: Transfer | None = None
        """Of the message of which parts are sent."""
        self._ended: Closed | None = None

    # What comes and goes

    def greet(self) -> bytes:
        """The greeting; it has no timestamp in angle brackets, for there is no APOP."""
        return f"+OK {self._hostname} POP3 server ready\r\n".encode()

    def receive(self, data: bytes) -> None:
        """Take octets from the client; give them when ``next_event`` says Need.DATA."""
        self._lines.feed(data)

    def receive_eof(self) -> None:
        """The client will send no more; what it sent is still answered."""
        self._at_eof = True

    def outgoing(self) -> bytes:
        """The octets to send now, handed out once."""
        out = b"".join(self._out)
        self._out.clear()
        self._spent = 0
        return out

    @property
    def must_flush(self) -> bool:
        """Whether so much waits unsent that it has to be sent before more is added.

        A message is sent in fewer, larger packets if ``outgoing`` waits for this.
        """
        return self._spent >= FLUSH_AT

    def next_event(self) -> Event | Need:
        """What the driver has to do now; Closed for ever once the session is over."""
        while self._ended is None:
            if self._asked is not None:
                return Need.ANSWER
            if self._spent >= FLUSH_AT:
                return Need.FLUSH
            if self._lines_left is not None:
                self._list_on(self._lines_left)
                continue
            line = self._lines.take(self._line_limit()) if self._lines.octets else None
            if line is not None:
                self._spent += _COMMAND
                self._asked = self._handle(line)
                if self._asked is not None:
                    return self._asked
            elif self._at_eof:
                self._end(CloseReason.LOST)
            else:
                return Need.DATA
        return self._ended

    # The answer to StartTls

    def tls_started(self, bindings: sasl.Bindings = sasl.NO_BINDINGS) -> None:
        """The handshake is done: the session begins anew (RFC 2595 §4).

        Whatever was received before it counts for nothing. ``bindings``: what the
        connection can be recognised by.
        """
        self._answer(StartTls)
        self._lines.clear()
        self._user = None
        self._tls, self._bindings = True, bindings

    # Answers to Login and to the events of SCRAM

    def scram_salt(self, salt: bytes, iterations: int) -> None:
        """Go on with what belongs to the login, be there such an account or not."""
        self._answer(ScramBegun)
        self._challenge(self._scram().salted(salt, iterations))

    def scram_signature(self, signature: bytes) -> None:
        """The proof was right; go on with the server's own."""
        self._answer(ScramProof)
        self._challenge(self._scram().proved(signature))

    def login_accepted(self, messages: Listed) -> None:
        """The maildrop is open and locked; ``messages`` are what the session sees."""
        self._answer(Login, ScramDone)
        self._exchange = None
        self._listing = Listing(messages)
        self._enter(_State.TRANSACTION)
        self._ok(f"maildrop has {self._number_of_messages()}")

    def login_refused(self, code: ResponseCode, text: str) -> None:
        """Wrong credentials, a maildrop in use, or a failure; the client may try again."""
        self._answer(Login, ScramBegun, ScramProof, ScramDone)
        self._exchange = None
        self._refused_logins += 1
        self._err(text, code)
        if self._refused_logins >= self._limits.max_refused_logins:
            self._end(CloseReason.REFUSED_LOGINS)

    # Answers to Retrieve

    def send_message(self, data: bytes) -> None:
        """Send a message that is here as a whole: a short way for ``send_message_chunk``."""
        asked = self._asked
        assert isinstance(asked, Retrieve), "no message was asked for"
        if asked.body_lines is not None:
            self._spent += len(data)  # to read it took its time, little as is sent of it
            self.send_message_chunk(data)
            self.end_message()
            return
        self._ok(f"{self._listing.size(asked.index)} octets")
        wire, end = whole(data)
        self._write(wire)
        self._write(end)
        self._asked = None

    def send_message_chunk(self, data: bytes) -> bool:
        """Send a part of the message, with LF or CRLF line ends; False if no more is wanted.

        After False only ``end_message`` is to be called. A part may be of any size;
        send ``outgoing`` whenever ``must_flush`` says so.
        """
        transfer = self._transferring()
        if not transfer.begun:
            self._begin(transfer)
        self._write(transfer.encode(data))
        return transfer.wants_more

    def end_message(self) -> None:
        """The message is complete."""
        transfer = self._transferring()
        if not transfer.begun:
            self._begin(transfer)
        self._write(transfer.encoder.finish())
        self._answer(Retrieve)
        self._transfer = None

    def message_unavailable(self, text: str, code: ResponseCode | None = None) -> None:
        """The message cannot be sent; if a part of it was sent, the session is closed."""
        transfer = self._transferring()
        self._answer(Retrieve)
        self._transfer = None
        if transfer.begun:
            self._end(CloseReason.INCOMPLETE)
        else:
            self._err(text, code)

    # The answer to Update

    def updated(self, ok: bool, text: str = "") -> None:
        """The deletions are durable (``ok``), or some of them failed; the session is over."""
        self._answer(Update)
        if ok:
            self._ok(text or f"{self._hostname} POP3 server signing off")
        else:
            self._err(text, ResponseCode.SYS_TEMP)
        self._end(CloseReason.QUIT)

    # Lines

    def _line_limit(self) -> int:
        limit = self._limits.max_command_line
        if len(self._lines.octets) < limit:
            return limit  # whatever the line is
        if self._exchange is not None or self._lines.starts_with(b"AUTH "):
            return self._limits.max_auth_line
        return limit

    def _handle(self, line: bytes | TooLong) -> Event | None:
        if isinstance(line, TooLong):
            self._exchange = None
            self._fail("the line is too long")
            return None
        try:
            if self._exchange is not None:
                return self._step(self._exchange.respond(line))
            return self._command(line)
        except _Refused as refused:
            self._fail(str(refused), refused.code)
            return None

    def _command(self, line: bytes) -> Event | None:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise _Refused("the command is not UTF-8") from None
        verb, space, argument = text.partition(" ")
        handler = self._verbs.get(verb.upper())
        if handler is None:
            raise _Refused(self._why_not(verb.upper()))
        if not argument.isprintable():
            _check_characters(argument, is_password=handler is Pop3Server._pass)
        return handler(self, argument if space else None)

    def _why_not(self, verb: str) -> str:
        if verb in _VERBS[_State.TRANSACTION]:
            return "log in first"
        if verb in _VERBS[_State.AUTHORIZATION]:
            return "already logged in"
        return "unknown command"

    # Commands of any state

    def _capa(self, argument: str | None) -> None:
        _no_argument(argument)
        mechanisms = sasl.offered(self._profile.mechanisms, self._bindings)
        offered = {
            "TOP": True,
            "UIDL": True,
            "USER": self._may_log_in and self._profile.takes_passwords,
            f"SASL {' '.join(mechanisms)}": self._may_log_in and bool(mechanisms),
            # Before the login only (RFC 2595 §4).
            "STLS": self._offers_stls and self._state is _State.AUTHORIZATION,
            "RESP-CODES": True,
            "AUTH-RESP-CODE": True,
            "PIPELINING": True,
            "EXPIRE NEVER": True,
            "UTF8": True,
            "IMPLEMENTATION Restante": True,
        }
        capabilities = [name for name, is_offered in offered.items() if is_offered]
        self._ok("capabilities follow")
        self._write("".join(f"{capability}\r\n" for capability in capabilities).encode())
        self._write(END_OF_LINES)

    # Commands of AUTHORIZATION (RFC 1939 §4 and §7, RFC 5034, RFC 6856)

    def _stls(self, argument: str | None) -> Event | None:
        """What was said before the handshake is forgotten, but for the number of mistakes."""
        _no_argument(argument)
        if self._tls:
            raise _Refused("TLS is active already")
        if not self._profile.stls:
            raise _Refused("TLS is not offered")
        if self._lines.octets:
            # What follows came in clear text; somebody on the way may have added it.
            self._err("nothing may follow STLS before the handshake")
            self._end(CloseReason.OUT_OF_SYNC)
            return None
        self._ok("begin TLS now")
        return StartTls()

    def _user_command(self, argument: str | None) -> None:
        self._check_login()
        if not self._profile.takes_passwords:
            raise _Refused("no passwords are taken; CAPA lists how to log in", ResponseCode.AUTH)
        name = (argument or "").strip()
        if not name:
            raise _Refused("USER needs a name")
        self._user = name
        self._ok("now the password")

    def _pass(self, argument: str | None) -> Event:
        """All that follows the one space is the password (RFC 1939 §7, PASS)."""
        self._check_login()
        if self._user is None:
            raise _Refused("USER first")
        if not argument:
            raise _Refused("PASS needs a password")
        login, self._user = self._user, None
        return Login(login, argument, "USER")

    def _auth(self, argument: str | None) -> Event | None:
        self._check_login()
        mechanism, space, initial = (argument or "").strip().partition(" ")
        if not mechanism:
            raise _Refused("AUTH needs a mechanism; CAPA lists them")
        exchange = sasl.exchange(mechanism, self._profile.mechanisms, self._bindings)
        if exchange is None:
            raise _Refused("no such mechanism")
        self._exchange = exchange
        return self._step(exchange.start(initial.strip().encode() if space else None))

    @property
    def _offers_stls(self) -> bool:
        return self._profile.stls and not self._tls

    @property
    def _may_log_in(self) -> bool:
        return self._tls or self._profile.plaintext_logins

    def _check_login(self) -> None:
        if not self._may_log_in:
            way = "say STLS first" if self._offers_stls else "use a port with TLS"
            raise _Refused(f"no password is taken in clear text: {way}", ResponseCode.AUTH)

    def _step(self, step: sasl.Step) -> Event | None:
        assert self._exchange is not None
        if isinstance(step, sasl.Challenge):
            self._challenge(step)
            return None
        if isinstance(step, ScramBegun | ScramProof | ScramDone):
            return step
        mechanism, self._exchange = self._exchange.mechanism, None
        if isinstance(step, sasl.SaslFailure):
            raise _Refused(step.text)
        return Login(step.login, step.password, mechanism)

    def _scram(self) -> sasl.ScramExchange:
        assert isinstance(self._exchange, sasl.ScramExchange), "no SCRAM is going on"
        return self._exchange

    def _challenge(self, challenge: sasl.Challenge) -> None:
        self._write(b"+ " + challenge.line + b"\r\n")

    def _utf8(self, argument: str | None) -> None:
        """Changes nothing: names, passwords and messages may be UTF-8 without it."""
        _no_argument(argument)
        self._ok("UTF-8 it is")

    def _quit_unauthorized(self, argument: str | None) -> None:
        _no_argument(argument)
        self._ok(f"{self._hostname} POP3 server signing off")
        self._end(CloseReason.QUIT)

    # Commands of TRANSACTION (RFC 1939 §5 and §7)

    def _stat(self, argument: str | None) -> None:
        _no_argument(argument)
        self._ok(f"{self._listing.count} {self._listing.octets}")

    def _list(self, argument: str | None) -> None:
        listing = self._listing
        if _is_blank(argument):
            self._ok(f"{self._number_of_messages()} ({listing.octets} octets)")
            self._lines_left = listing.sizes()
        else:
            index = self._message(argument)
            self._ok(f"{index + 1} {listing.size(index)}")

    def _uidl(self, argument: str | None) -> None:
        if _is_blank(argument):
            self._ok("unique ids follow")
            self._lines_left = self._listing.uids()
        else:
            index = self._message(argument)
            self._ok(f"{index + 1} {self._listing.uid(index).decode('ascii')}")

    def _retr(self, argument: str | None) -> Event:
        return Retrieve(self._message(argument), None)

    def _top(self, argument: str | None) -> Event:
        words = (argument or "").split()
        if len(words) != 2 or not _NUMBER.fullmatch(words[1]):
            raise _Refused("TOP needs a message number and a number of lines")
        return Retrieve(self._message(words[0]), int(words[1]))

    def _dele(self, argument: str | None) -> None:
        index = self._message(argument)
        self._listing.mark(index)
        self._ok(f"message {index + 1} marked for deletion")

    def _noop(self, argument: str | None) -> None:
        _no_argument(argument)
        self._ok("")

    def _rset(self, argument: str | None) -> None:
        _no_argument(argument)
        self._listing.unmark_all()
        self._ok(f"maildrop has {self._number_of_messages()}")

    def _quit(self, argument: str | None) -> Event:
        _no_argument(argument)
        self._enter(_State.UPDATE)
        return Update(self._listing.deleted)

    def _number_of_messages(self) -> str:
        count = self._listing.count
        return f"{count} message" if count == 1 else f"{count} messages"

    def _message(self, argument: str | None) -> int:
        number = (argument or "").strip()
        if not _NUMBER.fullmatch(number):
            raise _Refused("a message number is needed")
        index = int(number) - 1
        if not self._listing.has(index):
            raise _Refused("no such message")
        return index

    def _transferring(self) -> Transfer:
        if self._transfer is None:
            asked = self._asked
            assert isinstance(asked, Retrieve), "no message was asked for"
            self._transfer = Transfer(asked.index, asked.body_lines)
        return self._transfer

    def _begin(self, transfer: Transfer) -> None:
        transfer.begun = True
        if transfer.cut is None:
            self._ok(f"{self._listing.size(transfer.index)} octets")
        else:
            self._ok("top of message follows")

    # Responses

    def _ok(self, text: str) -> None:
        self._status("+OK", text)

    def _err(self, text: str, code: ResponseCode | None = None) -> None:
        self._status("-ERR" if code is None else f"-ERR [{code}]", text)

    def _fail(self, text: str, code: ResponseCode | None = None) -> None:
        """A command failed through the client's own fault."""
        self._errors += 1
        self._err(text, code)
        if self._errors >= self._limits.max_errors:
            self._end(CloseReason.TOO_MANY_ERRORS)

    def _status(self, indicator: str, text: str) -> None:
        line = f"{indicator} {text}"
        if len(line) <= SHORT_LINE and line.isprintable():
            self._write(f"{line.rstrip()}\r\n".encode())
        else:
            self._write(_bounded(line) + b"\r\n")

    def _list_on(self, lines: Iterator[bytes]) -> None:
        """Some lines more, or the end; no line of ours begins with a dot."""
        block = next(lines, None)
        if block is None:
            self._lines_left = None
            self._write(END_OF_LINES)
        else:
            self._write(block)
            self._spent += max(0, _BLOCK - len(block))

    def _write(self, octets: bytes) -> None:
        self._out.append(octets)
        self._spent += len(octets)

    def _answer(self, *asked: type[Event]) -> None:
        assert isinstance(self._asked, asked), "an answer to what was not asked"
        self._asked = None

    def _enter(self, state: _State) -> None:
        self._state = state
        self._verbs = _VERBS[state]

    def _end(self, reason: CloseReason) -> None:
        self._ended = Closed(reason)


def _bounded(line: str) -> bytes:
    """The line of a response, cut where it is too long, and without what no line may hold."""
    octets = _CONTROL.sub(" ", line).rstrip().encode()
    return octets[: MAX_RESPONSE_LINE - len(b"\r\n")].decode("utf-8", "ignore").encode()


def _is_blank(argument: str | None) -> bool:
    return argument is None or not argument.strip()


def _no_argument(argument: str | None) -> None:
    if argument is not None and argument.strip():
        raise _Refused("the command takes no argument")


def _check_characters(argument: str, *, is_password: bool) -> None:
    if "\0" in argument or (not is_password and _CONTROL.search(argument)):
        raise _Refused("the command holds a control character")


_Handler = Callable[[Pop3Server, str | None], Event | None]

_VERBS: Mapping[_State, Mapping[str, _Handler]] = {
    _State.AUTHORIZATION: {
        "STLS": Pop3Server._stls,
        "USER": Pop3Server._user_command,
        "PASS": Pop3Server._pass,
        "AUTH": Pop3Server._auth,
        "UTF8": Pop3Server._utf8,
        "CAPA": Pop3Server._capa,
        "QUIT": Pop3Server._quit_unauthorized,
    },
    _State.TRANSACTION: {
        "STAT": Pop3Server._stat,
        "LIST": Pop3Server._list,
        "RETR": Pop3Server._retr,
        "DELE": Pop3Server._dele,
        "NOOP": Pop3Server._noop,
        "RSET": Pop3Server._rset,
        "TOP": Pop3Server._top,
        "UIDL": Pop3Server._uidl,
        "CAPA": Pop3Server._capa,
        "QUIT": Pop3Server._quit,
    },
    _State.UPDATE: {},
}

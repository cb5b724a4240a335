"""A driver for the SMTP server core that answers from a script and writes down the events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from restante.address import NullReversePath
from restante.protocol.sasl import ScramBegun, ScramDone, ScramProof
from restante.protocol.smtp.events import (
    Authenticate,
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
from restante.protocol.smtp.profile import Limits, Profile
from restante.protocol.smtp.server import SmtpServer
from restante.status import Reply

HOST = "mx.example"
ACCEPTED = Reply(250, "0.0", "Ok")


@dataclass
class Record:
    """What one session came to."""

    output: bytes = b""
    events: list[str] = field(default_factory=list)
    """Described as in dialog files, the pieces of a body joined."""
    bodies: list[bytes] = field(default_factory=list)
    """The accepted contents."""
    most_at_once: int = 0
    """The most events that awaited an answer at the same time."""

    @property
    def lines(self) -> list[str]:
        """The server's lines."""
        return self.output.decode().split("\r\n")[:-1]


class ScriptedDriver:
    """Feeds a core and answers it."""

    def __init__(
        self,
        profile: Profile | None = None,
        answers: Iterable[Reply] | None = None,
        *,
        tls: bool = False,
    ) -> None:
        self.core = SmtpServer(profile or Profile(HOST), tls=tls)
        self.record = Record(self.core.greet())
        self._answers: Callable[[], Reply] = lambda: ACCEPTED
        if answers is not None:
            script: Iterator[Reply] = iter(answers)
            self._answers = lambda: next(script)
        self._awaited = 0
        self._body = b""
        self.closed = False

    def feed(self, data: bytes) -> None:
        """Receive ``data`` and do all that follows from it."""
        self.core.receive(data)
        self._work()

    def finish(self) -> Record:
        """End the stream."""
        self.core.receive_eof()
        self._work()
        assert self.closed
        return self.record

    def _work(self) -> None:
        while not self.closed:
            event = self.core.next_event()
            self.record.output += self.core.outgoing()
            if event is Wait.NEED_DATA:
                assert self._awaited == 0, "an unanswered event must not wait for the peer"
                return
            if event is Wait.NEED_REPLY:
                self._reply()
            elif not isinstance(event, Wait):
                self._note(event)
        self.record.output += self.core.outgoing()

    def _reply(self) -> None:
        assert self._awaited > 0
        self._awaited -= 1
        self.core.reply(self._answers())

    def _note(self, event: Event) -> None:
        match event:
            case BodyChunk(data):
                assert data
                self._body += data
                return
            case EndOfMessage():
                self.record.events.append(f"Body {_escape(self._body)}")
                self.record.bodies.append(self._body)
                self._body = b""
            case BodyRefused() | Reset():
                self._body = b""
            case Closed():
                self.closed = True
            case StartTls():
                self.core.tls_started()
            case ScramBegun():
                self.core.scram_salt(b"salt", 4096)
            case ScramProof():
                self.core.scram_signature(b"signature")
        if isinstance(event, Mail | Rcpt | EndOfMessage | Authenticate | ScramDone):
            self._awaited += 1
            self.record.most_at_once = max(self.record.most_at_once, self._awaited)
        self.record.events.append(describe(event))


def run_core(
    blocks: Iterable[bytes],
    limits: Limits | None = None,
    answers: Iterable[Reply] | None = None,
) -> Record:
    """A whole session, fed with ``blocks`` and then the end of the stream."""
    return run_driver(ScriptedDriver(Profile(HOST, limits=limits or Limits()), answers), blocks)


def run_driver(driver: ScriptedDriver, blocks: Iterable[bytes]) -> Record:
    """As ``run_core``, with a driver of one's own."""
    for block in blocks:
        driver.feed(block)
    return driver.finish()


def describe(event: Event) -> str:
    """``event`` as dialog files write it."""
    match event:
        case Mail():
            return _describe_mail(event)
        case Rcpt():
            return _describe_rcpt(event)
        case Authenticate(login, password, mechanism):
            return f"Authenticate {login} {password} {mechanism}"
        case BodyRefused(reply):
            return f"Refused {reply.code} {reply.enhanced}"
        case MailRefused(path, reply) | RcptRefused(path, reply):
            return f"{type(event).__name__} {path} {reply.code} {reply.enhanced}"
        case Closed(reason):
            return f"Closed {reason.value}"
        case BodyChunk(data):
            return f"Chunk {_escape(data)}"
        case _:
            return type(event).__name__


def _describe_mail(mail: Mail) -> str:
    path, given = mail.reverse_path, mail.parameters
    words = ["<>" if isinstance(path, NullReversePath) else path.to_path()]
    words += [mail.protocol, mail.helo]
    words += [f"size={given.size}"] if given.size is not None else []
    words += ["8bit"] if given.eight_bit else []
    words += ["utf8"] if given.smtputf8 else []
    words += [f"ret={given.ret}"] if given.ret else []
    words += [f"envid={given.envid!r}"] if given.envid else []
    return "Mail " + " ".join(words)


def _describe_rcpt(rcpt: Rcpt) -> str:
    notify, orcpt = rcpt.dsn.notify, rcpt.dsn.orcpt
    words = [rcpt.address.to_path()]
    if notify is not None:
        words.append("notify=" + ",".join(str(each.name) for each in notify))
    words += [f"orcpt={orcpt!r}"] if orcpt else []
    return "Rcpt " + " ".join(words)


def _escape(data: bytes) -> str:
    return data.decode("latin-1").encode("unicode_escape").decode()

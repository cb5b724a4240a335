"""A driver for the SMTP client engine without sockets, and a server engine as its peer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from restante.address import NULL_REVERSE_PATH, Address
from restante.protocol.smtp.client import SmtpClient
from restante.protocol.smtp.client_events import (
    ClientEvent,
    ClientWait,
    Closed,
    OutgoingMessage,
    OutgoingRecipient,
    Ready,
    Result,
    TransactionDone,
)
from restante.protocol.smtp.profile import BASIC, Extension, Limits, Profile
from restante.status import Reply
from tests.support.smtp_core import Record, ScriptedDriver

HOST = "mx.example"


def message(*recipients: str, sender: str = "a@a.example", size: int = 100) -> OutgoingMessage:
    """A message for these addresses; an empty ``sender`` is the null reverse-path."""
    return OutgoingMessage(
        Address.parse(sender) if sender else NULL_REVERSE_PATH,
        tuple(OutgoingRecipient(Address.parse(each)) for each in recipients),
        size,
    )


@dataclass
class Job:
    """One message to be sent, its content in blocks."""

    message: OutgoingMessage
    blocks: Iterable[bytes] = (b"Subject: x\n\nhello\n",)


@dataclass
class ClientDriver:
    """Sends ``jobs`` in order and quits, as far as the peer lets it."""

    jobs: list[Job]
    client: SmtpClient = field(default_factory=lambda: SmtpClient("client.example"))
    events: list[ClientEvent] = field(default_factory=list)
    sent: bytes = b""
    content_sent: int = 0
    """How often content was asked for."""
    _current: Job | None = None

    @property
    def closed(self) -> Closed | None:
        """The last event, if it was the last."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Closed) else None

    @property
    def results(self) -> list[tuple[Result, ...]]:
        """The results of each transaction."""
        return [each.results for each in self.events if isinstance(each, TransactionDone)]

    @property
    def ready(self) -> list[Ready]:
        """Each end of a greeting."""
        return [each for each in self.events if isinstance(each, Ready)]

    def feed(self, data: bytes) -> bytes:
        """Receive ``data`` and do all that follows; what was sent then."""
        self.client.receive(data)
        return self.work()

    def finish(self) -> None:
        """End the stream."""
        self.client.receive_eof()
        self.work()
        assert self.closed is not None, "a lost connection must end the session"

    def work(self) -> bytes:
        """Go on until the peer must say something."""
        sent = b""
        while self.closed is None:
            event = self.client.next_event()
            sent += self.client.outgoing()
            if event is ClientWait.NEED_DATA:
                break
            if isinstance(event, ClientWait):
                self._act(event)
            else:
                self.events.append(event)
        sent += self.client.outgoing()
        self.sent += sent
        return sent

    def _act(self, wait: ClientWait) -> None:
        if wait is ClientWait.NEED_CONTENT:
            self.content_sent += 1
            assert self._current is not None
            for block in self._current.blocks:
                self.client.content(block)
            self.client.end_content()
        elif self.jobs:
            self._current = self.jobs.pop(0)
            self.client.send(self._current.message)
        else:
            self.client.quit()


def converse(driver: ClientDriver, server: ScriptedDriver) -> Record:
    """Let the client talk with a server engine until one of them ends the session."""
    said = server.record.output
    while driver.closed is None:
        before = len(server.record.output)
        server.feed(driver.feed(said))
        said = server.record.output[before:]
        assert said or driver.closed or server.closed, "both wait for the other"
        if server.closed and not said:
            driver.finish()
    return server.record if server.closed else server.finish()


def serving(
    extensions: Iterable[Extension] = BASIC,
    limits: Limits | None = None,
    answers: Iterable[Reply] | None = None,
) -> ScriptedDriver:
    """A server engine that offers ``extensions``."""
    return ScriptedDriver(
        Profile(HOST, limits=limits or Limits(), extensions=tuple(extensions)), answers
    )

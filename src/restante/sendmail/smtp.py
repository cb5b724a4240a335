"""``-bs``: SMTP on standard input and output, every message dropped as any other is."""

from __future__ import annotations

import os
from collections.abc import Mapping

from restante.address import Address, NullReversePath, ReversePath
from restante.completion import Hosts
from restante.drop.record import MAX_RECIPIENTS, Recipient, Record
from restante.envelope import RecipientDsn
from restante.protocol.smtp.events import (
    BodyChunk,
    BodyRefused,
    Closed,
    CloseReason,
    EndOfMessage,
    Event,
    Mail,
    Rcpt,
    Reset,
    Wait,
)
from restante.protocol.smtp.profile import Limits, Profile
from restante.protocol.smtp.server import SmtpServer
from restante.sendmail import Refusal
from restante.sendmail.author import author
from restante.sendmail.message import Home, Letter
from restante.sendmail.options import Options
from restante.sendmail.source import standard_input
from restante.status import Reply

_OK = Reply(250, "0.0", "ok")
_DROPPED = Reply(250, "0.0", "ok, the server has it")
_PERMANENT = frozenset({os.EX_DATAERR, os.EX_USAGE})


def converse(environ: Mapping[str, str], home: Home) -> int:
    """Hold one session to its end; the exit status. Raises Refusal when a pipe breaks."""
    session = _Session(environ, home)
    session.say(session.core.greet())
    blocks = standard_input()
    while not isinstance(event := session.core.next_event(), Closed):
        session.say(session.core.outgoing())
        if event is Wait.NEED_DATA:
            block = next(blocks, b"")
            session.core.receive(block) if block else session.core.receive_eof()
        elif not isinstance(event, Wait):
            session.handle(event)
    session.say(session.core.outgoing())
    return os.EX_OK if event.reason in {CloseReason.QUIT, CloseReason.LOST} else os.EX_DATAERR


class _Session:
    def __init__(self, environ: Mapping[str, str], home: Home) -> None:
        self._environ = environ
        self._home = home
        site = home.site
        limits = Limits(
            max_text_line=site.max_text_line,
            databytes=site.databytes,
            max_recipients=MAX_RECIPIENTS,
        )
        self.core = SmtpServer(Profile(site.me, limits=limits))
        self._begin(None)

    def handle(self, event: Event) -> None:
        """Do what the client asks for, and answer it."""
        match event:
            case Mail():
                self._begin(event)
                self.core.reply(_OK)
            case Rcpt(address, dsn):
                self._recipients.append(_recipient(address, dsn, self._home.hosts))
                self.core.reply(_OK)
            case BodyChunk(data):
                self._content.append(data)
            case EndOfMessage():
                self.core.reply(self._drop())
                self._begin(None)
            case BodyRefused() | Reset():
                self._begin(None)

    def say(self, octets: bytes) -> None:
        """Write to standard output; raises Refusal (EX_IOERR)."""
        rest = memoryview(octets)
        try:
            while rest:
                rest = rest[os.write(1, rest) :]
        except OSError as error:
            raise Refusal(os.EX_IOERR, f"standard output: {error.strerror}") from None

    def _begin(self, mail: Mail | None) -> None:
        self._mail = mail
        self._recipients: list[Recipient] = []
        self._content: list[bytes] = []

    def _drop(self) -> Reply:
        assert self._mail is not None
        try:
            sender = _sender(self._mail.reverse_path, self._home.hosts)
            who = author(Options(sender=sender), self._environ, self._home.hosts)
            letter = Letter(iter(self._content), self._home, ends_with_dot=False)
            said = self._mail.parameters
            record = Record(sender, tuple(self._recipients), said.ret, said.envid, said.smtputf8)
            letter.drop(record, who)
        except Refusal as refusal:
            permanent = refusal.status in _PERMANENT
            code, topic = (554, "6.0") if permanent else (451, "3.0")
            return Reply(code, topic, str(refusal))
        return _DROPPED


def _sender(reverse_path: ReversePath, hosts: Hosts) -> str:
    return "" if isinstance(reverse_path, NullReversePath) else _whole(reverse_path, hosts)


def _recipient(address: Address, dsn: RecipientDsn, hosts: Hosts) -> Recipient:
    notify = "" if dsn.notify is None else ",".join(each.name or "" for each in dsn.notify)
    if dsn.notify is not None and not dsn.notify:
        notify = "NEVER"
    return Recipient(_whole(address, hosts), notify, dsn.orcpt)


def _whole(address: Address, hosts: Hosts) -> str:
    return Address(address.local, hosts.whole(address.domain)).to_mailbox()

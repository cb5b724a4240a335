"""A whole Restante on loopback with a DNS of its own, in which other hosts have domains."""

from __future__ import annotations

import contextlib
import re
import smtplib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Issued, issue
from tests.support.far_hosts import nameserver
from tests.support.instance import PATIENCE, Instance, new_instance, until
from tests.support.ports import free_port
from tests.support.report import ReadReport, read_report
from tests.support.serving import IAIN, LOOPBACK, Sections, add_accounts, configure, maildir, start

POSTFIX = "127.0.0.2"
EXIM = "127.0.0.3"
SINK = "127.0.0.4"
NOBODY = "127.0.0.5"
"""An address at which nobody listens."""
SCRIPTED = {
    f"{name}.example": f"127.0.0.{number}"
    for number, name in enumerate(
        (
            "grey",
            "few",
            "tarpit",
            "drop",
            "nonsense",
            "busy",
            "secure",
            "expired",
            "strict",
            "verified",
        ),
        start=30,
    )
}
"""Domains whose hosts do as a test says, and where these are."""
LISTS = tuple(f"127.0.0.{number}" for number in range(20, 25))
"""Hosts among which the domains of a list are divided."""
LIST_DOMAINS = tuple(f"d{number}.lists.example" for number in range(50))

_HOSTS = {
    "postfix.example": POSTFIX,
    "exim.example": EXIM,
    "sink.example": SINK,
    "down.example": NOBODY,
    "back.example": LOOPBACK,
    **SCRIPTED,
    **{name: LISTS[number % len(LISTS)] for number, name in enumerate(LIST_DOMAINS)},
}
_ZONE = """
half.example. MX 10 mail.half.example.
mail.half.example. A 127.0.0.6
half.example. MX 20 mail.sink.example.
null.example. MX 0 .
us.example. MX 10 mx.example.com.
mx.example.com. A 127.0.0.1
bare.example. A 127.0.0.4
alias.example. CNAME sink.example.
"""
SERVFAIL = "broken.example"


def _zone() -> str:
    lines = (
        f"{domain}. MX 10 mail.{domain}.\nmail.{domain}. A {address}\n"
        for domain, address in _HOSTS.items()
    )
    return _ZONE + "".join(lines)


_FATE = re.compile(r"event=(delivered|sent|deferred|failed) id=(\S+) recipient=(\S+)(.*)")


@dataclass(frozen=True, slots=True)
class Fate:
    """What the log says of a recipient."""

    event: str
    id: str
    recipient: str
    words: str


@dataclass
class World:
    """An instance, and the one port of all hosts."""

    instance: Instance
    port: int
    authority: Issued
    """Whose certificates the instance believes."""

    def send(self, *recipients: str, options: Sequence[str] = ()) -> str:
        """Hand in a message from IAIN, ``options`` to each RCPT; its id."""
        text = f"From: {IAIN}\r\nSubject: hello\r\n\r\nA line.\r\n.dot\r\n"
        with smtplib.SMTP(LOOPBACK, self.instance.smtp_port, timeout=PATIENCE) as session:
            session.ehlo("client.example")
            session.mail(IAIN)
            for recipient in recipients:
                code, words = session.rcpt(recipient, options)
                assert code == 250, words
            code, words = session.data(text)
        assert code == 250, words
        return words.decode().split()[-1]

    def fates(self) -> list[Fate]:
        """All that the log says of recipients."""
        return [Fate(*match) for match in _FATE.findall(self.instance.log())]

    def fate(self, queue_id: str, recipient: str, attempt: int = 1) -> Fate:
        """What became of the recipient at this attempt, as soon as it is known."""

        def seen() -> list[Fate]:
            return [each for each in self.fates() if (each.id, each.recipient) == wanted]

        wanted = (queue_id, recipient)
        until(lambda: len(seen()) >= attempt, f"an attempt at {recipient}")
        return seen()[attempt - 1]

    def retry(self, queue_id: str) -> None:
        """Have a message tried again at once."""
        self.instance.run("queue", "retry", queue_id)

    def report(self, queue_id: str) -> ReadReport:
        """The report about a message that IAIN has got."""

        def found() -> list[bytes]:
            files = maildir(self.instance, IAIN).glob("new/*")
            mark = f"Final-Log-Id: {queue_id}\n".encode()
            return [octets for octets in map(Path.read_bytes, files) if mark in octets]

        until(found, f"a report on {queue_id}")
        (only,) = found()
        return read_report(only)


@contextlib.contextmanager
def new_world(directory: Path, sections: Sections | None = None) -> Iterator[World]:
    """A running instance that may relay, and the DNS that it asks."""
    port = free_port()
    authority = issue()
    trusted = directory / "authority.pem"
    trusted.write_bytes(authority.certificate_pem)
    environ = {"SSL_CERT_FILE": str(trusted)}
    with (
        nameserver(_zone(), broken=[SERVFAIL]) as dns,
        new_instance(directory / "instance", environ=environ, domains=()) as instance,
    ):
        add_accounts(instance)
        settings: dict[str, dict[str, object]] = {
            "smtp": {"listen": [f"{LOOPBACK}:{port}"]},
            "receiver": {"relay_networks": ["127.0.0.0/8"]},
            "relay": {
                "port": port,
                "idle_timeout": 0.2,
                "nameservers": [f"{LOOPBACK}:{dns}"],
                "tls_policy": {"strict.example": "encrypt", "verified.example": "verify"},
            },
        }
        configure(instance, {**settings, **(sections or {})})
        start(instance)
        yield World(instance, port, authority)

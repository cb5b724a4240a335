"""A relay of this host, other hosts on loopback, and what became of messages between them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from restante.address import Address
from restante.config import Settings
from restante.config.tree import HostPort, Server
from restante.config.tree import Relay as RelaySettings
from restante.envelope import Content, HeaderFacts, memory_content
from restante.queue import Attempted
from restante.relay import Parcel, Recipient
from restante.relay.driver import SmtpRelay
from restante.status import Delivered, Outcome, PermanentFailure, TemporaryFailure
from tests.support.certificates import Issued, issue
from tests.support.contents import spooled_content
from tests.support.nameserver import Zone
from tests.support.queued import envelope

BODY = b"Subject: hello\n\n.hello\n"
WIRE = b"Received: from here\r\nSubject: hello\r\n\r\n.hello\r\n"
LANE = "example.net"
LARGE = b"Subject: large\n\n" + b"A line of some length, and then another.\n" * 100_000
"""4 MB."""


def parcel(*names: str, content: Content | None = None) -> Parcel:
    addresses = [Address(name, LANE) for name in names or ("ann",)]
    return Parcel(
        envelope(*map(str, addresses)),
        content or memory_content(b"Received: from here\n", BODY),
        tuple(Recipient(each) for each in addresses),
    )


def spooled_parcel(directory: Path, body: bytes, sender: str, recipient: str) -> Parcel:
    """A message that lies in a file, for one recipient."""
    path = directory / "body"
    path.write_bytes(body)
    content = spooled_content(b"Received: from here\n", str(path), body.count(b"\n"), HeaderFacts())
    address = Address.parse(recipient)
    return Parcel(envelope(recipient, sender=Address.parse(sender)), content, (Recipient(address),))


def believed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Issued:
    """An authority whom this host believes, and nobody else."""
    made = issue()
    (directory / "ca.pem").write_bytes(made.certificate_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(directory / "nothing"))
    return made


def relay_settings(dns: HostPort, port: int, **settings: object) -> Settings:
    """Those of a host that is called mx.here.example."""
    chosen = replace(
        RelaySettings(nameservers=(dns,), port=port, timeoutconnect=10, timeoutremote=10),
        **settings,  # type: ignore[arg-type]
    )
    return Settings("/nowhere", server=Server(me="mx.here.example"), relay=chosen)


@asynccontextmanager
async def relay(
    dns: HostPort, port: int, clock: Callable[[], float] = time.monotonic, **settings: object
) -> AsyncIterator[SmtpRelay]:
    chosen = relay_settings(dns, port, **settings)
    made = SmtpRelay(chosen, lambda: chosen, clock)
    try:
        yield made
    finally:
        await made.close(5)


async def send(
    dns: HostPort, port: int, sent: Parcel | None = None, lane: str = LANE, **settings: object
) -> Attempted:
    async with relay(dns, port, time.monotonic, **settings) as made:
        return await made.send(lane, sent or parcel())


def outcomes(attempted: Attempted) -> list[Outcome]:
    found: list[Outcome] = []
    for answer in attempted.answers:
        assert isinstance(answer, Delivered | TemporaryFailure | PermanentFailure)
        found.append(answer)
    return found


def only(attempted: Attempted) -> Outcome:
    (outcome,) = outcomes(attempted)
    return outcome


def told(outcome: Outcome) -> tuple[type[Outcome], str, str, str]:
    """What became of it, at which host, in answer to what, in which words."""
    assert outcome.peer is not None
    words = outcome.detail if isinstance(outcome, Delivered) else str(outcome.reply)
    return type(outcome), outcome.peer.host, outcome.peer.command, words


def two_exchangers() -> Zone:
    """example.net has two exchangers, the first of which is the better one."""
    return Zone(
        {
            (LANE, "MX"): ["10 mx1.peer.example.", "20 mx2.peer.example."],
            ("mx1.peer.example", "A"): ["127.0.0.2"],
            ("mx2.peer.example", "A"): ["127.0.0.3"],
        }
    )

"""Mail to the world outside, which answers as the world does; the DNS is nsd's."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.certificates import NOW, Issued, issue, write
from tests.support.far_hosts import smtp_sink
from tests.support.instance import until
from tests.support.smtp_peer import DROP, SmtpPeer, smtp_peer
from tests.support.world import SCRIPTED, SERVFAIL, SINK, World, new_world

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One instance and one DNS for all tests here."""
    with new_world(tmp_path_factory.mktemp("world")) as running:
        yield running


def host(world: World, domain: str, peer: SmtpPeer) -> AbstractContextManager[SmtpPeer]:
    """The host of a scripted domain."""
    return smtp_peer(peer, SCRIPTED[domain], world.port)


def tls_host(world: World, peer: SmtpPeer, path: Path, issued: Issued) -> SmtpPeer:
    """The same host with a certificate."""
    files = write(path, "host", issued)
    peer.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    peer.tls.load_cert_chain(files.certificate, files.key)
    peer.offers = ("PIPELINING", "STARTTLS")
    return peer


# Where to


@pytest.mark.parametrize(
    "domain", ["sink.example", "half.example", "bare.example", "alias.example"]
)
def test_a_host_is_found(world: World, domain: str) -> None:
    """By MX, by the second MX, by an address alone, by another name."""
    with smtp_sink(SINK, world.port) as sink:
        queue_id = world.send(f"a@{domain}", f"b@{domain}")
        for local in "ab":
            assert world.fate(queue_id, f"{local}@{domain}").event == "sent"
        (taken,) = sink.taken()
    assert sorted(taken.recipients) == [f"a@{domain}", f"b@{domain}"]
    assert taken.sender == "iain@example.com"
    assert taken.content.rstrip(b"\n").endswith(b"\n\nA line.\n.dot")


@pytest.mark.parametrize(
    ("domain", "status", "words"),
    [
        ("null.example", "5.1.10", "null MX"),
        ("nowhere.example", "5.1.2", "does not exist"),
        ("us.example", "5.4.6", "this host"),
        ("back.example", "5.4.6", "this host"),
    ],
)
def test_no_host_can_be_found_ever(world: World, domain: str, status: str, words: str) -> None:
    queue_id = world.send(f"a@{domain}")
    assert world.fate(queue_id, f"a@{domain}").event == "failed"
    report = world.report(queue_id)
    assert report.recipient["Final-Recipient"] == f"rfc822; a@{domain}"
    assert report.recipient["Action"] == "failed"
    assert report.recipient["Status"] == status
    assert words in report.recipient["Diagnostic-Code"]
    assert "Remote-MTA" not in report.recipient


@pytest.mark.parametrize(
    ("domain", "words"),
    [("down.example", "Connection refused"), (SERVFAIL, "SERVFAIL")],
)
def test_no_host_can_be_reached_now(world: World, domain: str, words: str) -> None:
    queue_id = world.send(f"a@{domain}")
    fate = world.fate(queue_id, f"a@{domain}")
    assert fate.event == "deferred"
    assert words in fate.words


# What the host says


def test_greylisting(world: World) -> None:
    later = ["451 4.7.1 Greylisted, come back", "250 2.1.5 ok"]
    with host(world, "grey.example", SmtpPeer({"RCPT": later})) as peer:
        queue_id = world.send("a@grey.example")
        assert "451 4.7.1 Greylisted, come back" in world.fate(queue_id, "a@grey.example").words
        world.retry(queue_id)
        assert world.fate(queue_id, "a@grey.example", attempt=2).event == "sent"
    # DATA went along with the RCPT that was put off: what followed it was nothing (RFC 2920 §3.1).
    assert [bool(content) for content in peer.contents] == [False, True]


def test_a_host_that_takes_few_recipients_at_once(world: World) -> None:
    peer = SmtpPeer()

    def rcpt(_command: str) -> str:
        verbs = peer.verbs()
        named = verbs[len(verbs) - verbs[::-1].index("MAIL") :].count("RCPT")
        return "250 2.1.5 ok" if named <= 2 else "452 4.5.3 Too many recipients"

    peer.says["RCPT"] = rcpt
    recipients = [f"a{number}@few.example" for number in range(5)]
    with host(world, "few.example", peer):
        queue_id = world.send(*recipients)
        until(lambda: f"message_finished id={queue_id}" in world.instance.log(), "all have it")
    assert len(peer.contents) == 3
    fates = [each for each in world.fates() if each.id == queue_id]
    assert [each.event for each in fates].count("sent") == 5


def test_a_tarpit(world: World) -> None:
    def slowly(command: str) -> str:
        time.sleep(0.2)
        return "354 go" if command == "DATA" else "250 2.0.0 ok"

    peer = SmtpPeer(says=dict.fromkeys(("MAIL", "RCPT", "DATA", "END"), slowly))
    with host(world, "tarpit.example", peer):
        queue_id = world.send("a@tarpit.example", "b@tarpit.example")
        assert world.fate(queue_id, "b@tarpit.example").event == "sent"
    assert len(peer.contents) == 1


def test_a_connection_dropped_after_the_content(world: World) -> None:
    answers = [DROP, "250 2.0.0 ok"]
    with host(world, "drop.example", SmtpPeer({"END": answers})) as peer:
        queue_id = world.send("a@drop.example")
        fate = world.fate(queue_id, "a@drop.example")
        assert fate.event == "deferred"
        assert "4.4.2" in fate.words
        world.retry(queue_id)
        assert world.fate(queue_id, "a@drop.example", attempt=2).event == "sent"
    assert len(peer.contents) == 2


@pytest.mark.parametrize(
    ("domain", "greeting", "words"),
    [
        ("nonsense.example", "SSH-2.0-OpenSSH_9.2", "not a reply: 'SSH-2.0-OpenSSH_9.2'"),
        ("busy.example", "421 4.7.0 Too busy", "421 4.7.0 Too busy"),
    ],
)
def test_no_greeting(world: World, domain: str, greeting: str, words: str) -> None:
    greetings = [greeting, "220 mx.peer.example"]
    with host(world, domain, SmtpPeer({"GREETING": greetings})) as peer:
        queue_id = world.send(f"a@{domain}")
        fate = world.fate(queue_id, f"a@{domain}")
        assert fate.event == "deferred"
        assert words in fate.words
        world.retry(queue_id)
        assert world.fate(queue_id, f"a@{domain}", attempt=2).event == "sent"
    assert len(peer.contents) == 1


# TLS


def test_a_host_that_demands_tls(world: World, tmp_path: Path) -> None:
    peer = SmtpPeer()

    def mail(_command: str) -> str:
        secure = "STARTTLS" in peer.verbs()
        return "250 2.1.0 ok" if secure else "530 5.7.0 Must issue a STARTTLS command first"

    peer.says["MAIL"] = mail
    tls_host(world, peer, tmp_path, issue("mail.secure.example"))
    with host(world, "secure.example", peer):
        queue_id = world.send("a@secure.example")
        assert world.fate(queue_id, "a@secure.example").event == "sent"
    assert peer.encrypted == [True]


def test_a_broken_certificate_is_better_than_none(world: World, tmp_path: Path) -> None:
    expired = issue("mail.other.example", begins=NOW - timedelta(9), ends=NOW - timedelta(2))
    peer = tls_host(world, SmtpPeer(), tmp_path, expired)
    with host(world, "expired.example", peer):
        queue_id = world.send("a@expired.example")
        assert world.fate(queue_id, "a@expired.example").event == "sent"
    assert peer.encrypted == [True]


def test_a_host_whose_certificate_counts(world: World, tmp_path: Path) -> None:
    wrong = issue("mail.other.example", by=world.authority)
    peer = tls_host(world, SmtpPeer(), tmp_path, wrong)
    with host(world, "verified.example", peer):
        queue_id = world.send("a@verified.example")
        fate = world.fate(queue_id, "a@verified.example")
        assert fate.event == "deferred"
        assert "certificate" in fate.words
        assert peer.contents == []
    right = issue("mail.verified.example", by=world.authority)
    peer = tls_host(world, SmtpPeer(), tmp_path, right)
    with host(world, "verified.example", peer):
        world.retry(queue_id)
        assert world.fate(queue_id, "a@verified.example", attempt=2).event == "sent"
    assert peer.encrypted == [True]


def test_a_host_that_must_have_tls_and_has_none(world: World) -> None:
    with host(world, "strict.example", SmtpPeer()) as peer:
        queue_id = world.send("a@strict.example")
        fate = world.fate(queue_id, "a@strict.example")
        assert fate.event == "deferred"
        assert "STARTTLS" in fate.words
    assert "MAIL" not in peer.verbs()

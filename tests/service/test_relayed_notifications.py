"""What was asked for goes on to other hosts, or is answered in their place (RFC 3461 §5.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.instance import Instance, until
from tests.support.report import take_reports
from tests.support.serving import ANN, IAIN, LOOPBACK, new_server, smtp
from tests.support.smtp_peer import SmtpPeer, smtp_peer

OFFERS = ("PIPELINING", "8BITMIME", "SIZE 0")


@dataclass
class World:
    """An instance, and the hosts that it knows: ``aware.example`` speaks DSN, the others do not."""

    instance: Instance
    aware: SmtpPeer
    plain: SmtpPeer
    """Accepts everything, too."""
    picky: SmtpPeer
    """Refuses every recipient, in two lines."""
    sulky: SmtpPeer
    """Refuses every message, without an enhanced status."""

    def send(self, *recipients: str, parameters: str = "", sender: str = ANN) -> None:
        """A message; ``recipients`` with their parameters."""
        with smtp(self.instance.smtp_port) as wire:
            assert wire.ask(f"MAIL FROM:<{sender}>{parameters}").startswith("250 ")
            for recipient in recipients:
                assert wire.ask(f"RCPT TO:{recipient}").startswith("250 ")
            assert wire.ask("DATA").startswith("354 ")
            wire.send(b"Subject: for elsewhere\r\n\r\nHello.\r\n.\r\n")
            assert wire.reply().startswith("250 ")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with (
        smtp_peer(SmtpPeer(offers=(*OFFERS, "DSN"))) as aware,
        smtp_peer(SmtpPeer(offers=OFFERS)) as plain,
        smtp_peer(SmtpPeer({"RCPT": "550-5.1.1 who is that?\r\n550 5.1.1 ask again"})) as picky,
        smtp_peer(SmtpPeer({"END": "554 not today"})) as sulky,
    ):
        peers = {"aware": aware, "plain": plain, "picky": picky, "sulky": sulky}
        sections: dict[str, dict[str, object]] = {
            "receiver": {"relay_networks": [f"{LOOPBACK}/32"]},
            "routing.smtproutes": {
                f'"{name}.example"': f"[{LOOPBACK}]:{peer.port}" for name, peer in peers.items()
            },
        }
        with new_server(tmp_path / "instance", sections) as instance:
            yield World(instance, aware, plain, picky, sulky)


def heard(peer: SmtpPeer, verb: str) -> list[str]:
    """The commands of this kind, without SIZE."""
    return [
        " ".join(word for word in command.split() if not word.startswith("SIZE="))
        for command in peer.commands
        if command.startswith(verb)
    ]


def test_a_host_that_knows_dsn_is_told_what_was_asked(world: World) -> None:
    world.send(
        "<x@aware.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;X+2By@Aware.example",
        "<y@aware.example>",
        "<z@aware.example> NOTIFY=NEVER",
        parameters=" RET=FULL ENVID=QQ+20314",
    )
    assert take_reports(world.instance, ANN) == []
    assert heard(world.aware, "MAIL") == [f"MAIL FROM:<{ANN}> RET=FULL ENVID=QQ+20314"]
    assert sorted(heard(world.aware, "RCPT")) == [
        "RCPT TO:<x@aware.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;X+2By@Aware.example",
        "RCPT TO:<y@aware.example>",
        "RCPT TO:<z@aware.example> NOTIFY=NEVER",
    ]


def test_for_a_host_that_does_not_the_message_is_reported_as_relayed(world: World) -> None:
    world.send(
        "<x@plain.example> NOTIFY=SUCCESS ORCPT=rfc822;x@plain.example",
        "<y@plain.example>",
        parameters=" ENVID=QQ314",
    )
    (report,) = take_reports(world.instance, ANN)
    assert report.header["Subject"] == "Your message was passed on"
    assert report.message["Original-Envelope-Id"] == "QQ314"
    assert report.recipient["Original-Recipient"] == "rfc822; x@plain.example"
    assert report.recipient["Final-Recipient"] == "rfc822; x@plain.example"
    assert report.recipient["Action"] == "relayed"
    assert report.recipient["Status"].startswith("2.")
    assert LOOPBACK in report.recipient["Remote-MTA"]
    assert report.returned_type == "text/rfc822-headers"
    assert heard(world.plain, "MAIL") == [f"MAIL FROM:<{ANN}>"]
    assert sorted(heard(world.plain, "RCPT")) == [
        "RCPT TO:<x@plain.example>",
        "RCPT TO:<y@plain.example>",
    ]


def test_all_that_became_known_together_is_one_report(world: World) -> None:
    """Four ways out: each is tried by itself, and the sender hears once."""
    world.send(
        "<a@picky.example>",
        "<b@sulky.example>",
        "<c@plain.example> NOTIFY=SUCCESS",
        f"<{IAIN}> NOTIFY=SUCCESS",
    )
    (report,) = take_reports(world.instance, ANN)
    assert report.header["Subject"] == "Your message could not be delivered"
    told = {
        block["Final-Recipient"]: (block["Action"], block["Status"], block["Diagnostic-Code"])
        for block in report.recipients
    }
    picky = "smtp; 550-5.1.1 who is that? 550 5.1.1 ask again"
    assert told.pop("rfc822; c@plain.example")[::2] == ("relayed", None)
    assert told == {
        "rfc822; a@picky.example": ("failed", "5.1.1", picky),
        "rfc822; b@sulky.example": ("failed", "5.0.0", "smtp; 554 not today"),
        f"rfc822; {IAIN}": ("delivered", "2.1.5", None),
    }
    assert "answered to RCPT TO:<a@picky.example>:\n        550-5.1.1 who is that?" in report.text
    assert "answered to the content of the message:\n        554 not today" in report.text
    assert world.instance.log().count("event=message_finished") == 2


def test_a_report_asks_for_none(world: World) -> None:
    world.send("<a@picky.example> NOTIFY=FAILURE", sender="me@aware.example", parameters=" ENVID=Q")
    until(lambda: world.aware.contents, "the report came")
    assert heard(world.aware, "MAIL") == ["MAIL FROM:<>"]
    assert heard(world.aware, "RCPT") == ["RCPT TO:<me@aware.example> NOTIFY=NEVER"]
    assert b"\r\nFinal-Recipient: rfc822; a@picky.example\r\n" in world.aware.contents[0]


def test_a_report_that_is_refused_is_dropped(world: World) -> None:
    world.send("<a@picky.example>", sender="me@sulky.example")
    until(lambda: "event=bounce_dropped" in world.instance.log(), "nobody is left to be told")
    assert len(world.sulky.contents) == 1
    assert take_reports(world.instance, ANN) == []

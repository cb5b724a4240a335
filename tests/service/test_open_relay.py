"""What strangers try in order to have their mail relayed: none of it leaves the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.instance import until
from tests.support.nameserver import Zone, nameserver
from tests.support.relaying_server import ZONE
from tests.support.serving import IAIN, Sections, maildir, new_server, smtp
from tests.support.smtp_peer import SmtpPeer, smtp_peer

TRIED = (
    "far@example.net",
    '"far@example.net"',
    r'"far\@example.net"',
    '"far@example.net"@example.com',
    "far%example.net@example.com",
    "far%example.net",
    "example.net!far@example.com",
    "example.net!far",
    "@example.com:far@example.net",
    "@example.net:far@example.com",
    "far@[example.net@example.com]",
    "far@example.net.",
    "far@example.com@example.net",
)


@pytest.mark.parametrize("verify", [True, False])
def test_nothing_of_a_stranger_is_relayed(tmp_path: Path, verify: bool) -> None:
    """Whatever is accepted is iain's, who has the catch-all; a report makes all of it queued."""
    with smtp_peer(SmtpPeer()) as far, nameserver(Zone(ZONE)) as dns:
        sections: Sections = {
            "receiver": {"verify_recipients": verify},
            "routing": {"envnoathost": "example.com"},
            "relay": {"nameservers": [str(dns)], "port": far.port},
        }
        with new_server(tmp_path / "i", sections) as running:
            running.here("alias", "add", "@example.com", IAIN)
            accepted = 0
            with smtp(running.smtp_port) as wire:
                for tried in TRIED:
                    wire.ask(f"MAIL FROM:<{IAIN}>")
                    if wire.ask(f"RCPT TO:<{tried}> NOTIFY=SUCCESS").startswith("250 "):
                        accepted += 1
                        wire.ask("DATA")
                        wire.send(b"Subject: for elsewhere\r\n\r\nhello\r\n.\r\n")
                        assert wire.reply().startswith("250 ")
                    else:
                        wire.ask("RSET")
            until(
                lambda: running.log().count("event=message_finished") == 2 * accepted,
                "each is delivered and reported",
            )
            delivered = len(list((maildir(running, IAIN) / "new").iterdir()))
    assert accepted, "the catch-all takes some of them"
    assert delivered == 2 * accepted
    assert not far.contents

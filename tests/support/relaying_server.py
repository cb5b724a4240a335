"""An instance that sends mail to other hosts of a small world."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.instance import Instance
from tests.support.nameserver import Zone, nameserver
from tests.support.serving import IAIN, LOOPBACK, Sections, new_server, smtp

ZONE = {
    ("example.net", "MX"): ["10 mx.example.net."],
    ("mx.example.net", "A"): [LOOPBACK],
    ("example.org", "MX"): ["10 mx.example.net."],
    ("dead.example", "A"): ["127.0.0.9"],
    ("none.example", "MX"): ["0 ."],
}


@contextmanager
def relaying_server(
    directory: Path, port: int, sections: Sections | None = None
) -> Iterator[Instance]:
    """Running; it relays for everybody, and other hosts listen on ``port``.

    ``sections``: settings besides.
    """
    with nameserver(Zone(ZONE)) as dns:
        relaying: dict[str, dict[str, object]] = {
            "receiver": {"relay_networks": ["127.0.0.0/8"]},
            "relay": {"nameservers": [str(dns)], "port": port},
        }
        with new_server(directory, {**relaying, **(sections or {})}) as running:
            yield running


def submit(running: Instance, *recipients: str, body: bytes = b"hello\r\n") -> str:
    """One message from IAIN; its queue id."""
    with smtp(running.smtp_port) as wire:
        assert wire.ask(f"MAIL FROM:<{IAIN}>").startswith("250 ")
        for recipient in recipients:
            assert wire.ask(f"RCPT TO:<{recipient}>").startswith("250 ")
        assert wire.ask("DATA").startswith("354 ")
        wire.send(b"Subject: for elsewhere\r\n\r\n" + body + b".\r\n")
        said = wire.reply()
        assert said.startswith("250 ")
        return said.split()[-1]

"""SCRAM on a running server: bound to the connection, with a salt that outlives the server."""

from __future__ import annotations

import base64
import sqlite3
import ssl
from collections.abc import Iterator

import pytest

from tests.support.scram import ScramClient, b64
from tests.support.serving import IAIN, Sections, Wire, smtp, start
from tests.support.tls_serving import HOST, Secured, tls_server

BOUND: Sections = {
    "server": {"workers": 1},
    "auth": {"mechanisms": ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with tls_server(tmp_path_factory.mktemp("scram"), BOUND) as running:
        with sqlite3.connect(running.instance.directory / "restante.db") as database:
            database.execute("UPDATE mailbox SET password = '{PLAIN}secret'")
        database.close()
        yield running


def tls_1_2(server: Secured) -> ssl.SSLContext:
    context = server.trust
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def secured(
    server: Secured, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[Wire, str]:
    """A connection to the port with TLS, and what EHLO is told there."""
    wire = Wire(server.instance.port("submissions"))
    wire.start_tls(context, HOST, session)
    assert wire.reply().startswith("220 ")
    return wire, wire.ask("EHLO client.example")


def unique_of(wire: Wire) -> bytes:
    assert isinstance(wire.socket, ssl.SSLSocket)
    unique = wire.socket.get_channel_binding("tls-unique")
    assert unique is not None
    return unique


def log_in(wire: Wire, client: ScramClient, mechanism: str) -> str:
    """Hold an exchange; the last reply."""
    reply = wire.ask(f"AUTH {mechanism} {b64(client.first()).decode()}")
    if not reply.startswith("334 "):
        return reply
    final = client.final(base64.b64decode(reply.removeprefix("334 ")))
    reply = wire.ask(b64(final).decode())
    if not reply.startswith("334 "):
        return reply
    assert client.trusts(base64.b64decode(reply.removeprefix("334 ")))
    return wire.ask("")


def test_login_is_bound_to_its_connection(server: Secured) -> None:
    wire, hello = secured(server, tls_1_2(server))
    with wire:
        assert "AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256\n" in hello
        client = ScramClient(IAIN, "secret", "p=tls-unique", unique_of(wire))
        assert log_in(wire, client, "SCRAM-SHA-256-PLUS").startswith("235 ")
        assert wire.ask(f"MAIL FROM:<{IAIN}>").startswith("250 ")


def test_login_of_another_connection_is_refused(server: Secured) -> None:
    """As by somebody in between who has a TLS connection to either side."""
    other, _ = secured(server, tls_1_2(server))
    wire, _ = secured(server, tls_1_2(server))
    with other, wire:
        client = ScramClient(IAIN, "secret", "p=tls-unique", unique_of(other))
        reply = log_in(wire, client, "SCRAM-SHA-256-PLUS")
        assert reply == "501 5.5.2 Authentication failed: the channel bindings do not match"
        warned = log_in(wire, ScramClient(IAIN, "secret", "y"), "SCRAM-SHA-256")
        assert warned.startswith("501 5.5.2 Authentication failed: this server does support")


def test_resumed_session_is_not_bound(server: Secured) -> None:
    context = tls_1_2(server)
    wire, hello = secured(server, context)
    with wire:
        assert "SCRAM-SHA-256-PLUS" in hello
        assert isinstance(wire.socket, ssl.SSLSocket)
        session = wire.socket.session
    wire, hello = secured(server, context, session)
    with wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        assert wire.socket.session_reused
        assert "AUTH SCRAM-SHA-256\n" in hello
        assert log_in(wire, ScramClient(IAIN, "secret", "y"), "SCRAM-SHA-256").startswith("235 ")


def test_tls_1_3_is_not_bound(server: Secured) -> None:
    wire, hello = secured(server, server.trust)
    with wire:
        assert "AUTH SCRAM-SHA-256\n" in hello
        assert wire.ask("AUTH SCRAM-SHA-256-PLUS").startswith("504 ")


def test_no_password_is_taken_where_none_is_named(server: Secured) -> None:
    with smtp(server.instance.port("submission")) as wire:
        assert wire.ask("AUTH PLAIN AGEAYg==").startswith("504 ")
    with Wire(server.instance.pop3_port) as wire:
        assert wire.line().startswith("+OK")
        wire.send(b"USER iain\r\n")
        assert wire.line().startswith("-ERR [AUTH] no passwords are taken")


def test_salt_of_nobody_stays_when_the_server_starts_again(server: Secured) -> None:
    def salt() -> str:
        with smtp(server.instance.port("submission")) as wire:
            first = b64(ScramClient("nobody@example.com", "").first()).decode()
            reply = wire.ask(f"AUTH SCRAM-SHA-256 {first}")
            return base64.b64decode(reply.removeprefix("334 ")).decode().split(",")[1]

    before = salt()
    assert server.instance.stop() == 0
    server.instance.log_file.unlink()
    start(server.instance)
    assert salt() == before

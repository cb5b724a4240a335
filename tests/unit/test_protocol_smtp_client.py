"""What dialogs cannot show of the client engine: time-outs, bounds, what a driver must not do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from restante.protocol.smtp.client import MAX_UNANSWERED, SmtpClient
from restante.protocol.smtp.client_events import (
    ClientWait,
    Closed,
    Extensions,
    Ready,
    StartTls,
    TransactionDone,
)
from tests.support.smtp_client import message


def said(client: SmtpClient, *lines: str) -> str:
    """What the client sends once the peer has said these lines, its events aside."""
    client.receive("".join(f"{line}\r\n" for line in lines).encode())
    while not isinstance(client.next_event(), ClientWait | Closed):
        pass
    return client.outgoing().decode()


def greeted(*extensions: str) -> SmtpClient:
    """A client whose peer offers these."""
    client = SmtpClient("client.example")
    said(client, "220 mx.example")
    said(client, *(f"250-{each}" for each in ("mx.example", *extensions)), "250 HELP")
    return client


def test_timeouts_and_commands() -> None:
    client = SmtpClient("client.example")
    seen = [(client.command, client.timeout)]

    def note(*lines: str) -> None:
        said(client, *lines)
        seen.append((client.command, client.timeout))

    note("220 mx.example")
    note("250 mx.example")
    client.send(message("b@b.example"))
    note()
    note("250 ok")
    note("250 ok")
    note("354 ok")
    client.end_content()
    note()
    note("250 ok")
    client.quit()
    note()
    assert seen == [
        ("greeting", 300),
        ("EHLO client.example", 300),
        ("idle", 180),
        ("MAIL FROM:<a@a.example>", 300),
        ("RCPT TO:<b@b.example>", 300),
        ("DATA", 120),
        ("content", 180),
        ("end of data", 600),
        ("idle", 180),
        ("QUIT", 10),
    ]


def test_unanswered_commands_are_bounded() -> None:
    client = greeted("PIPELINING")
    client.send(message(*(f"u{number}@b.example" for number in range(300))))
    sent = said(client).count("\r\n")
    assert sent == MAX_UNANSWERED
    assert said(client, *["250 ok"] * 100).count("\r\n") == 100
    assert said(client, *["250 ok"] * 100).endswith("DATA\r\n")


def test_chunks_await_their_answers_without_pipelining() -> None:
    client = greeted("CHUNKING")
    client.send(message("b@b.example"))
    said(client)
    said(client, "250 ok")
    said(client, "250 ok")
    for _ in range(2):
        assert client.next_event() is ClientWait.NEED_CONTENT
        client.content(b"x" * 100_000)
    assert client.next_event() is ClientWait.NEED_DATA
    assert client.command == "BDAT"
    said(client, "250 ok")
    assert client.next_event() is ClientWait.NEED_CONTENT


def test_a_refused_chunk_ends_the_content() -> None:
    client = greeted("CHUNKING", "PIPELINING")
    client.send(message("b@b.example"))
    said(client)
    said(client, "250 ok", "250 ok")
    client.content(b"x" * 100_000)
    client.content(b"x" * 100_000)
    client.receive(b"552 5.3.4 Too big\r\n")
    event = client.next_event()
    assert isinstance(event, TransactionDone)
    assert [str(result.reply) for result in event.results] == ["552 5.3.4 Too big"]
    client.outgoing()
    client.content(b"more")
    client.end_content()
    assert client.outgoing() == b""
    assert client.next_event() is ClientWait.NEED_ACTION


def test_a_long_password_waits_for_its_challenge() -> None:
    client = greeted("AUTH PLAIN")
    client.authenticate("PLAIN", "name", "p" * 500)
    assert client.outgoing() == b"AUTH PLAIN\r\n"
    response = said(client, "334 ")
    assert len(response) > 600
    assert client.command == "AUTH PLAIN"


def test_octets_that_come_during_the_handshake_end_the_session() -> None:
    client = greeted("STARTTLS")
    client.start_tls()
    client.outgoing()
    client.receive(b"220 go\r\n")
    assert isinstance(client.next_event(), StartTls)
    client.receive(b"250 mx.evil\r\n")
    client.tls_started()
    closed = client.next_event()
    assert isinstance(closed, Closed)
    assert client.outgoing() == b""


def test_what_was_offered_before_the_handshake_is_void() -> None:
    client = greeted("STARTTLS", "DSN", "SIZE 5")
    client.start_tls()
    said(client, "220 go")
    client.tls_started()
    assert client.extensions == Extensions()
    client.receive(b"250 mx.example\r\n")
    assert client.next_event() == Ready(Extensions(extended=True))


def test_a_message_to_nobody() -> None:
    client = greeted()
    client.send(message())
    assert client.next_event() == TransactionDone((), dsn=False)
    assert client.outgoing() == b""


@pytest.mark.parametrize(
    "action",
    [
        SmtpClient.start_tls,
        SmtpClient.tls_started,
        SmtpClient.quit,
        lambda client: client.send(message("b@b.example")),
        lambda client: client.authenticate("PLAIN", "name", "password"),
    ],
)
def test_an_action_out_of_turn(action: Callable[[SmtpClient], None]) -> None:
    client = SmtpClient("client.example")
    with pytest.raises(RuntimeError):
        action(client)
    assert client.outgoing() == b""


def test_an_unknown_mechanism() -> None:
    with pytest.raises(ValueError, match="X-THING"):
        greeted("AUTH X-THING").authenticate("X-THING", "name", "password")


def test_after_the_end_nothing_happens() -> None:
    client = greeted()
    client.receive_eof("gone")
    closed = Closed(None, "idle", "gone")
    assert [client.next_event(), client.next_event()] == [closed, closed]
    client.receive(b"250 late\r\n")
    client.receive_eof()
    assert client.next_event() == closed
    with pytest.raises(RuntimeError):
        client.quit()

"""What the benches over TLS count on: generators that speak it, and notice faults there too."""

from __future__ import annotations

import contextlib
import json
import smtplib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.certificates import rsa_pair
from bench.fetching import Handshake, Sessions, parse
from bench.programs import generator
from bench.sending import Load
from bench.systems.system import HOST, wait_for_greeting
from tests.support.instance import PATIENCE
from tests.support.ports import free_port

POP3 = {
    "": "+OK hello\r\n",
    "USER": "+OK\r\n",
    "PASS": "+OK\r\n",
    "STAT": "+OK 1 6\r\n",
    "LIST": "+OK\r\n1 6\r\n.\r\n",
    "UIDL": "+OK\r\n1 a\r\n.\r\n",
    "QUIT": "+OK\r\n",
}
"""Answers by their commands; the first is the greeting."""
SMTP = {
    "": "220-hello\r\n220 there\r\n",
    "EHLO": "250-here\r\n250 STARTTLS\r\n",
    "STARTTLS": "220 2.0.0 go on\r\n",
    "MAIL": "250 2.1.0 OK\r\n",
    "RCPT": "250 2.1.5 OK\r\n",
    "DATA": "354 go on\r\n",
    ".": "250 2.0.0 OK\r\n",
    "QUIT": "221 2.0.0 bye\r\n",
}


@dataclass
class Server:
    """Answers by rote, one connection after another."""

    context: ssl.SSLContext
    answers: Mapping[str, str]
    heard: list[str] = field(default_factory=list)
    """Lines of all connections, with their ends."""
    versions: list[str | None] = field(default_factory=list)
    """Of TLS, of each handshake."""
    names: list[str | None] = field(default_factory=list)
    """Whom clients wanted to reach."""

    @contextmanager
    def serving(self, connections: int, *, tls: bool) -> Iterator[int]:
        """On the port that it gives; ``tls``: from the first octet on."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=self._serve, args=(listener, connections, tls))
            thread.start()
            yield listener.getsockname()[1]
            thread.join()

    def _serve(self, listener: socket.socket, connections: int, tls: bool) -> None:
        for _ in range(connections):
            connection, _ = listener.accept()
            with contextlib.suppress(OSError):  # a client that finds a fault goes at once
                connection = self._secured(connection) if tls else connection
                connection.sendall(self.answers[""].encode())
                while self._converse(connection) == "STARTTLS":
                    connection = self._secured(connection)
            connection.close()

    def _converse(self, connection: socket.socket) -> str:
        """Until the client ends it, or wants TLS: then the command."""
        with connection.makefile("rb") as lines:
            for line in lines:
                self.heard.append(line.decode())
                command = line.decode().rstrip().partition(" ")[0]
                if command and command in self.answers:
                    connection.sendall(self.answers[command].encode())
                if command == "STARTTLS":
                    return command
        return ""

    def _secured(self, connection: socket.socket) -> ssl.SSLSocket:
        secured = self.context.wrap_socket(connection, server_side=True)
        self.versions.append(secured.version())
        return secured


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    files = rsa_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


def load(name: str, port: int, *options: str) -> tuple[int, str]:
    """How a generator ends, and what it prints."""
    command = [generator(name), f"--port={port}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("handshake", "resumed"), [(Handshake.FULL, 0), (Handshake.RESUMED, 2)])
def test_sessions_over_tls_are_counted(
    context: ssl.SSLContext, handshake: Handshake, resumed: int
) -> None:
    server = Server(context, POP3)
    context.sni_callback = lambda _tls, name, _context: server.names.append(name)
    sessions = Sessions("session", messages=1, handshake=handshake)
    with server.serving(3, tls=True) as port:
        status, output = load("pop3load", port, "--user=x", *sessions.options(3))
    told = parse(output)
    assert (status, told.sessions, told.messages, told.resumed) == (0, 3, 3, resumed)
    assert server.versions == ["TLSv1.3"] * 3
    assert set(server.names) == {HOST}


def test_a_server_without_tls_1_3_is_a_fault(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Server(context, POP3).serving(1, tls=True) as port:
        status, output = load("pop3load", port, "--user=x", f"--tls={HOST}", "session")
    assert (status, json.loads(output)["broken"]) == (1, 1)


def test_messages_go_by_starttls_each_with_a_connection(context: ssl.SSLContext) -> None:
    server = Server(context, SMTP)
    options = Load(1, octets=1000, tls=True).secured(2)
    with server.serving(2, tls=False) as port:
        status, output = load("smtpload", port, *options)
    assert (status, json.loads(output)["messages"]) == (0, 2)
    assert server.versions == ["TLSv1.3"] * 2
    first, second = ("".join(server.heard).split("QUIT\r\n"))[:2]
    commands, message = first.split("DATA\r\n")
    assert [line.split()[0] for line in commands.splitlines()] == [
        "EHLO",
        "STARTTLS",
        "EHLO",
        "MAIL",
        "RCPT",
    ]
    assert "RCPT TO:<1@bench.test>\r\n" in commands
    assert "RCPT TO:<2@bench.test>\r\n" in second
    assert len(message.removesuffix(".\r\n")) == 1000
    assert all(line.endswith("\r\n") for line in message.splitlines(keepends=True))
    assert "\r\n\r\nxxxx" in message
    assert max(map(len, message.splitlines())) < 80


@pytest.mark.parametrize("octets", range(200, 280, 3))
def test_messages_are_as_long_as_they_have_to_be(context: ssl.SSLContext, octets: int) -> None:
    server = Server(context, SMTP)
    with server.serving(1, tls=False) as port:
        status, _ = load("smtpload", port, "--to=x@bench.test", f"--octets={octets}")
    _, _, message = "".join(server.heard).partition("DATA\r\n")
    text, end, _ = message.rpartition(".\r\nQUIT\r\n")
    assert (status, len(text), bool(end)) == (0, octets, True)
    assert text.replace("\r\n", "").isprintable()


@pytest.mark.parametrize(
    ("command", "answer", "fault"),
    [
        ("", "554 5.3.2 away\r\n", "refused"),
        ("STARTTLS", "454 4.7.0 not now\r\n", "refused"),
        ("STARTTLS", "220 2.0.0 go on\r\n250 2.1.0 OK\r\n", "wrong"),
        ("RCPT", "550 5.1.1 nobody\r\n", "refused"),
        (".", "452-4.3.1 full\r\n452 4.3.1 try later\r\n", "refused"),
        ("QUIT", "221 bye\n", "wrong"),
    ],
)
def test_messages_that_are_not_taken_are_faults(
    context: ssl.SSLContext, command: str, answer: str, fault: str
) -> None:
    server = Server(context, {**SMTP, command: answer})
    with server.serving(1, tls=False) as port:
        status, output = load("smtpload", port, "--to=x@bench.test", f"--tls={HOST}")
    assert (status, json.loads(output)[fault]) == (1, 1)


# The host that takes everything


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[int]:
    pair, port = rsa_pair(tmp_path), free_port()
    command = [generator("smtpsink"), f"--port={port}", f"--certificate={pair.certificate}"]
    with subprocess.Popen([*command, f"--key={pair.key}"]) as process:
        wait_for_greeting(port, b"220", tmp_path / "no-log")
        yield port
        process.terminate()


@pytest.mark.parametrize("tls", [False, True])
def test_a_sink_takes_all_that_it_is_told(sink: int, tls: bool) -> None:
    """However long, and whatever looks like an end of it."""
    with smtplib.SMTP("127.0.0.1", sink, timeout=PATIENCE) as client:
        client.ehlo()
        assert client.has_extn("starttls")
        if tls:
            client.starttls(context=anybody())
            client.ehlo()
            assert not client.has_extn("starttls")
        for content in (b"", b".", b"\n.\n..\r\n.x\r\n", b"x" * 300_000, b"line\r\n" * 100_000):
            assert client.sendmail("me@example.net", ["you@example.net"], content) == {}
        assert client.quit()[0] == 221


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_sink_finds_the_end_however_it_is_cut(sink: int, size: int) -> None:
    said = b"DATA\r\nx\r\n.x\r\n\r\n.\r\nDATA\r\n.\r\nNOOP\r\nQUIT\r\n"
    with socket.create_connection(("127.0.0.1", sink), PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(0, len(said), size):
            client.sendall(said[place : place + size])
        with client.makefile("rb") as lines:
            codes = [line[:3] for line in lines]
    assert codes == [b"220", b"354", b"250", b"354", b"250", b"250", b"221"]


def test_a_sink_answers_many_commands_at_once(sink: int) -> None:
    with socket.create_connection(("127.0.0.1", sink), PATIENCE) as client:
        client.sendall(b"NOOP\r\n" * 20_000 + b"QUIT\r\n")
        with client.makefile("rb") as lines:
            assert sum(line.startswith(b"250 ") for line in lines) == 20_000


def test_a_sink_wants_nothing_behind_starttls_in_clear_text(sink: int) -> None:
    with socket.create_connection(("127.0.0.1", sink), PATIENCE) as client:
        client.sendall(b"STARTTLS\r\nNOOP\r\n")
        with client.makefile("rb") as lines, contextlib.suppress(ConnectionError):
            assert b"250" not in lines.read()


def anybody() -> ssl.SSLContext:
    """For a client who asks nobody for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context

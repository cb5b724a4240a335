"""What the benches over TLS count on: generators that speak it, and notice faults there too."""

from __future__ import annotations

import contextlib
import json
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
from bench.systems.system import HOST

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

"""Another mail host on loopback, which answers as its script says: real sockets, real threads."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"

HANG = "hang"
"""A reply that never comes."""
DROP = "drop"
"""The connection is closed in its place."""
DRIP = "drip"
"""A reply that goes on and on, an octet now and then."""
DEAF = "deaf"
"""As an answer to DATA: go on. But nothing is read, while an octet is sent now and then."""
MOMENT = 1
"""Milliseconds between two of these octets."""

Said = str | list[str] | Callable[[str], str]
"""A reply; several, one after another, the last of which stays; or what a command makes of it."""


@dataclass
class SmtpPeer:
    """What it answers to each verb, and what it heard. ``END`` is the end of a content.

    As an answer to ``HANDSHAKE``, which begins TLS, ``HANG`` is known.
    """

    says: dict[str, Said] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    """For STARTTLS; None with STARTTLS on offer: a handshake that fails."""
    implicit_tls: bool = False
    offers: tuple[str, ...] = ("PIPELINING", "8BITMIME")
    port: int = 0
    connections: int = 0
    commands: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    """For every content, whether it came by TLS."""
    objections: list[str] = field(default_factory=list)
    """What clients said of handshakes that they did not finish."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def keep_waiting(self) -> None:
        """What happens all the time while a client waits for what never comes."""

    def verbs(self) -> list[str]:
        """The commands' first words, in upper case."""
        return [command.split(" ")[0].upper() for command in self.commands]

    def reply(self, verb: str, command: str) -> str:
        """The answer to a command, without its line end."""
        said = self.says.get(verb) or self._usual(verb)
        if isinstance(said, list):
            return said.pop(0) if len(said) > 1 else said[0]
        return said if isinstance(said, str) else said(command)

    def _usual(self, verb: str) -> str:
        match verb:
            case "GREETING":
                return "220 mx.peer.example ESMTP"
            case "EHLO":
                lines = ["mx.peer.example", *self.offers]
                marks = ["-"] * (len(lines) - 1) + [" "]
                return "\r\n".join(
                    f"250{mark}{line}" for mark, line in zip(marks, lines, strict=True)
                )
            case "DATA":
                return "354 go on"
            case "STARTTLS":
                return "220 go ahead"
            case "QUIT":
                return "221 bye"
            case "AUTH":
                return "235 2.7.0 welcome"
        return "250 2.0.0 ok"


@contextlib.contextmanager
def smtp_peer(peer: SmtpPeer, address: str = LOOPBACK, port: int = 0) -> Iterator[SmtpPeer]:
    """Serve; ``peer.port`` is where."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=200) as listener:
        peer.port = listener.getsockname()[1]
        acceptor = threading.Thread(target=_accept, args=(peer, listener))
        acceptor.start()
        try:
            yield peer
        finally:
            peer.stopped.set()
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()


def _accept(peer: SmtpPeer, listener: socket.socket) -> None:
    threads = []
    while not peer.stopped.is_set():
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno != errno.EMFILE:
                break
            time.sleep(0.01)  # a test has taken all descriptors, for a moment
            continue
        peer.connections += 1
        thread = threading.Thread(target=_serve, args=(peer, connection))
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()


def _serve(peer: SmtpPeer, connection: socket.socket) -> None:
    connection.settimeout(60)
    with contextlib.suppress(OSError, _Ended), contextlib.closing(_Session(peer, connection)) as it:
        it.run()


class _Ended(Exception):
    """The script says that the connection ends."""


class _Session:
    def __init__(self, peer: SmtpPeer, connection: socket.socket) -> None:
        self._peer = peer
        self._connection = connection
        self._lines = connection.makefile("rb")

    def close(self) -> None:
        self._lines.close()
        self._connection.close()

    def run(self) -> None:
        if self._peer.implicit_tls:
            self._handshake()
        self._answer("GREETING", "")
        while line := self._lines.readline():
            command = line.decode("utf-8", "replace").rstrip("\r\n")
            verb = command.split(" ")[0].upper()
            self._peer.commands.append(command)
            if verb == "BDAT":
                self._chunk(command)
            elif self._answer(verb, command).startswith("354"):
                self._data()
            elif verb == "STARTTLS" and self._last.startswith("220"):
                self._handshake()
            elif verb == "QUIT":
                return

    def _answer(self, verb: str, command: str) -> str:
        self._last = said = self._peer.reply(verb, command)
        if said == DEAF:
            self._connection.sendall(b"354 go on\r\n")
        while said in {HANG, DRIP, DEAF}:
            if said != HANG:
                self._connection.sendall(b"2")
            self._keep_waiting()
        if said == DROP:
            raise _Ended
        self._connection.sendall(said.encode() + b"\r\n")
        if said.startswith("421"):
            raise _Ended
        return said

    def _keep_waiting(self) -> None:
        """Say nothing for a moment; raises _Ended when the client is gone."""
        gone = select.poll()
        gone.register(self._connection, select.POLLRDHUP)
        if gone.poll(MOMENT) or self._peer.stopped.is_set():
            raise _Ended
        self._peer.keep_waiting()

    def _data(self) -> None:
        content = bytearray()
        while (line := self._lines.readline()) != b".\r\n":
            if not line:
                raise _Ended
            content += line.removeprefix(b".")
        self._take(bytes(content))

    def _chunk(self, command: str) -> None:
        words = command.upper().split(" ")
        data = self._lines.read(int(words[1]))
        if "LAST" in words:
            self._take(data)
        else:
            self._answer("BDAT", command)

    def _take(self, content: bytes) -> None:
        self._peer.contents.append(content)
        self._peer.encrypted.append(isinstance(self._connection, ssl.SSLSocket))
        self._answer("END", "")

    def _handshake(self) -> None:
        while self._peer.says.get("HANDSHAKE") == HANG:
            self._keep_waiting()
        if self._peer.tls is None:
            self._connection.sendall(b"no handshake\r\n")
            raise _Ended
        self._lines.close()
        try:
            self._connection = self._peer.tls.wrap_socket(self._connection, server_side=True)
        except ssl.SSLError as error:
            self._peer.objections.append(error.reason or str(error))
            raise
        self._lines = self._connection.makefile("rb")

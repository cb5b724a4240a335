"""Asks the running server, which has everything at hand."""

from __future__ import annotations

import contextlib
import socket

from restante.checkpassword.wire import (
    MAX_ANSWER,
    Answer,
    BadMessage,
    Question,
    decode_answer,
    encode_question,
    socket_path,
)
from restante.unix_socket import address_of

PATIENCE = 60.0
"""Seconds to wait for an answer: a refusal is delayed, and logins wait for one another."""


def ask(directory: str, question: Question) -> Answer | None:
    """The server's answer; None if there is no server, or it is just going."""
    path = socket_path(directory)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with connection, contextlib.suppress(OSError, BadMessage):
        connection.settimeout(PATIENCE)
        with address_of(path) as address:
            connection.connect(address)
        connection.sendall(encode_question(question))
        connection.shutdown(socket.SHUT_WR)
        return decode_answer(_read(connection))
    return None


def _read(connection: socket.socket) -> bytes:
    octets = b""
    while len(octets) <= MAX_ANSWER:
        more = connection.recv(MAX_ANSWER)
        if not more:
            break
        octets += more
    return octets

"""A MySQL server that asks for passwords encrypted by its RSA key, and nothing else of one.

``python -m tests.support.rsa_server`` lets the engine log in there, in a process in which nothing
has imported cryptography before; with ``registrar`` a registrar does, which root starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from pathlib import Path

from restante.config.load import FILE_NAME, load
from restante.config.tree import Database
from restante.directory.engine import open_engine
from restante.errors import CannotKnow
from restante.service.children import fork
from restante.service.registrar import run_registrar
from restante.service.user import server_user

SALT = b"twenty octets of it."
PASSWORD = "pass word"
CAPABILITIES = 0x0028_A209
"""Protocol 4.1, a database named at once, plugins, transactions."""
OK = b"\0\0\0\2\0\0\0"
FULL_LOGIN = b"\1\4"
WANTS_KEY = b"\2"
NO_SUCH_TABLE = b"\xff\x7a\x04#42S02no such table"


class Server:
    """One connection after another; ``heard`` are the passwords."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: caching_sha2_password, then a refusal of whatever is asked."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        key = rsa.generate_private_key(65537, 2048)
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _send(writer, 0, greeting())
        await _packet(reader)
        _send(writer, 2, FULL_LOGIN)
        if (await _packet(reader))[1] != WANTS_KEY:
            return
        _send(writer, 4, b"\1" + pem)
        _, encrypted = await _packet(reader)
        plain = key.decrypt(
            encrypted, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        )
        self.heard.append(bytes(a ^ b for a, b in zip(plain, SALT, strict=False)))
        _send(writer, 6, OK)
        number, _ = await _packet(reader)
        _send(writer, number + 1, NO_SUCH_TABLE)


def greeting(more: int = 0) -> bytes:
    """What it begins with; ``more`` capabilities than it has."""
    flags = (CAPABILITIES | more).to_bytes(4, "little")
    return (
        b"\n8.0.36\0\1\0\0\0"
        + SALT[:8]
        + b"\0"
        + flags[:2]
        + b"\xff\2\0"
        + flags[2:]
        + bytes([len(SALT) + 1])
        + bytes(10)
        + SALT[8:]
        + b"\0caching_sha2_password\0"
    )


def _send(writer: asyncio.StreamWriter, number: int, payload: bytes) -> None:
    writer.write(len(payload).to_bytes(3, "little") + bytes([number]) + payload)


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readexactly(4)
    return head[3], await reader.readexactly(int.from_bytes(head[:3], "little"))


def ask_registrar() -> None:
    """Say what passwords the server has heard from a registrar that was asked for an account."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening = socket.create_server(("127.0.0.1", 0))
    environ = {
        "RESTANTE_SERVER__ME": "mx.example.com",
        "RESTANTE_SERVER__USER": "nobody",
        "RESTANTE_DATABASE__URL": url(listening.getsockname()[1]),
    }
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / FILE_NAME).touch()
        settings = load(directory, environ)
    user = server_user(settings)
    assert user is not None

    def live() -> int:
        ours.close()
        return run_registrar(settings, user, its)

    pid = fork("registrar", live)
    its.close()
    server = Server()

    async def serve() -> None:
        await asyncio.start_server(server.serve, sock=listening)
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, b'{"id": 1, "account": "iain@example.com"}')
        await loop.sock_recv(ours, 4096)

    asyncio.run(serve())
    ours.close()
    os.waitpid(pid, 0)
    print(server.heard)


def url(port: int) -> str:
    """The setting for the server at a port."""
    return f"mysql://restante:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/db"


async def main() -> None:
    """Say whether cryptography is imported before, and what passwords the server has heard."""
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    engine = open_engine(Database(url=url(port)), "/")
    print("cryptography" in sys.modules)
    with contextlib.suppress(CannotKnow):
        await engine.fetch("SELECT 1 FROM mailbox")
    await engine.close()
    print(server.heard)
    listening.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["registrar"]:
        ask_registrar()
    else:
        asyncio.run(main())

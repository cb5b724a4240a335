"""However the octets of a client are cut, its POP3 session says and does the same."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from restante.auth.login import PasswordAuthenticator
from restante.config.tree import Auth, Pop3
from restante.net.connection import Connection
from restante.net.pop3 import Pop3Service
from restante.store.maildir import MaildirStore
from tests.support.guards import Unguarded
from tests.support.memory_directory import MemoryDirectory, Tables, account

HOST = "pop.example.com"
LOGIN = b"USER iain\r\nPASS secret\r\n"
ALL = b"".join(b"RETR %d\r\n" % number for number in range(1, 7))
MAIL = {
    "new/1700000001.a,S=8,W=12": b"A: 1\n\n.x",
    "cur/1700000002.b:2,S": b"",
    "new/1700000003.with space": b"A: 1\r\n\r\n.\r\nno end",
    "cur/1700000004.odd\n:2,": b"q\r",
    "new/1700000005.large": b"A: 1\n\n" + b"y" * 99 + b"\nz" * 150_000,
}
COMMANDS = st.sampled_from(
    [
        b"LIST\r\n", b"UIDL\r\n", b"STAT\r\n", b"RSET\r\n", b"NOOP\r\n", b"CAPA\r\n", b"UTF8\r\n",
        b"RETR 1\r\n", b"RETR 5\r\n", b"RETR 6\r\n", b"TOP 5 3\r\n", b"TOP 3 0\r\n", b"DELE 2\r\n",
        b"DELE 5\r\n", b"UIDL 4\r\n", b"\r", b"\n", b" ", b"\xff", b"x" * 600, LOGIN, ALL,
    ]
)  # fmt: skip


async def hold(pieces: list[bytes], home: Path) -> tuple[bytes, str]:
    """What the client hears, and why the session ended."""
    loop = asyncio.get_running_loop()
    owner = account("iain", str(home), os.getuid(), os.getgid())
    tables = Tables(mailbox=[owner], passwords={"iain": ("secret", "Password")})
    authenticator = PasswordAuthenticator(MemoryDirectory(tables), Auth(), Unguarded())
    service = Pop3Service(
        Pop3(max_errors=1000), HOST, Auth(), authenticator, MaildirStore(), handshakes=None
    )
    ended: asyncio.Future[str] = loop.create_future()

    async def serve(connection: Connection) -> None:
        ended.set_result(await service.serve(connection, "session"))

    server = await loop.create_server(
        lambda: Connection(serve, asyncio.Event(), "127.0.0.1"), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    hearing = asyncio.create_task(reader.read(-1))
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0)
    writer.write_eof()
    heard, reason = await hearing, await ended
    writer.close()
    server.close()
    await authenticator.close()
    return heard, reason


def outcome(pieces: list[bytes]) -> tuple[bytes, str, list[str]]:
    """What came of a session: what was said, why it ended, and what mail is left."""
    with tempfile.TemporaryDirectory(prefix="restante-test-") as root:
        home = Path(root)
        for part in ("tmp", "new", "cur"):
            (home / "Maildir" / part).mkdir(parents=True)
        for name, content in MAIL.items():
            (home / "Maildir" / name).write_bytes(content)
        said, reason = asyncio.run(hold(pieces, home))
        left = sorted(os.listdir(home / "Maildir" / "new") + os.listdir(home / "Maildir" / "cur"))
    return said, reason, left


@settings(max_examples=50)
@given(st.lists(COMMANDS, max_size=12), st.sampled_from([b"", b"QUIT\r\n"]), st.integers(1, 40))
def test_cutting_changes_nothing(commands: list[bytes], end: bytes, length: int) -> None:
    """The server is not the first to close: what was said last might not be heard then."""
    wire = LOGIN + b"".join(commands) + end
    cut = [wire[start : start + length] for start in range(0, len(wire), length)]
    whole = outcome([wire])
    assert b"maildrop has 5 messages" in whole[0]
    assert whole == outcome(cut)

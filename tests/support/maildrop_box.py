"""A Maildir to put messages into, and to read them from as a maildrop."""

from __future__ import annotations

import os
from pathlib import Path

from restante.directory import Account
from restante.store import Maildrop
from restante.store.maildir import MaildirDrop, MaildirStore


class Box:
    """A Maildir and its account."""

    def __init__(self, root: Path) -> None:
        self.path = root / "Maildir"
        for folder in ("tmp", "new", "cur"):
            (self.path / folder).mkdir(parents=True)
        self.account = Account("iain", os.getuid(), os.getgid(), str(root))
        self.store = MaildirStore()

    def put(self, name: str, content: bytes = b"A: 1\n\nHello\n") -> Path:
        path = self.path / name
        path.write_bytes(content)
        return path

    async def open(self) -> MaildirDrop:
        return await self.store.open(self.account)

    async def listing(self) -> list[tuple[str, int]]:
        drop = await self.open()
        drop.close()
        messages = drop.messages
        return [
            (uid.decode("ascii"), size)
            for uid, size in zip(messages.uids, messages.sizes, strict=True)
        ]


async def read(drop: Maildrop, index: int) -> bytes:
    return b"".join([piece async for piece in drop.read(index)])

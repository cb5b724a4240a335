"""What a connection brings, one piece at a time."""

from __future__ import annotations

from restante.net.connection import Connection


async def hear(connection: Connection, timeout: float) -> bytes:
    """The octets that come next; empty at the end of the stream; raises as ``listen`` does."""
    heard: list[bytes] = []

    def take(data: bytes) -> bool:
        heard.append(data)
        return False

    await connection.listen(take, timeout, interruptible=lambda: False)
    return b"".join(heard)

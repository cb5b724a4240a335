"""A client that reads nothing of what it is told."""

from __future__ import annotations

import asyncio
import socket

ROOM = 4096
"""Octets that the system is asked to hold for it."""


async def flood(port: int, commands: bytes, first: bytes = b"") -> None:
    """Send ``first``, and ``commands`` again and again until the server drops the connection."""
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        deaf.setblocking(False)
        await loop.sock_connect(deaf, ("127.0.0.1", port))
        try:
            await loop.sock_sendall(deaf, first)
            while True:
                await loop.sock_sendall(deaf, commands)
        except ConnectionError:
            return

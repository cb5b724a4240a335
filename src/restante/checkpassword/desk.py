"""A socket at which one process answers others of root and of its own user."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from restante import maillog
from restante.unix_socket import place_of

MAX_AT_ONCE = 500
"""Questions that are dealt with at the same time; others go without an answer."""
PATIENCE = 5.0
"""Seconds for a peer to say its question, or to take its answer."""
BACKLOG = 256
ACCEPT_PAUSE = 0.1
"""Seconds to wait when a connection cannot be accepted."""

_CREDENTIALS = struct.Struct("3i")
"""pid, uid and gid of a peer (SO_PEERCRED, unix(7))."""

Respond = Callable[[bytes], Awaitable[bytes]]
"""The answer to a question; raises ValueError where it is none."""


class Desk:
    """One socket: a question is all that comes until its end, an answer ends the connection."""

    def __init__(self, path: str, most: int, respond: Respond) -> None:
        """``most``: octets of a question."""
        self._path = path
        self._most = most
        self._respond = respond
        self._bound: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen, in place of whoever did before; where that cannot be, the log says so."""
        try:
            self._bound = _bind(self._path)
        except OSError as error:
            maillog.socket_failed(self._path, error.strerror or str(error))
            return
        self._begin(self._accept(self._bound))

    async def stop(self) -> None:
        """Hear no more, and let nobody wait."""
        if self._bound is None:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # The name stays: it may be a successor's by now, and where nobody listens nobody answers.
        self._bound.close()

    async def _accept(self, bound: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(bound)
            except OSError as error:
                maillog.socket_failed(self._path, str(error))
                await asyncio.sleep(ACCEPT_PAUSE)
            else:
                self._begin(self._serve(connection))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                if _may_ask(connection) and len(self._tasks) <= MAX_AT_ONCE:
                    await self._answer(connection)
            except (OSError, ValueError, TimeoutError):
                return  # whoever asked asks anew, or does without
            except Exception as error:  # noqa: BLE001 - a bug must not end the desk
                maillog.unplanned(self._path, error)

    async def _answer(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            question = await self._read(connection)
        answer = await self._respond(question)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(connection, answer)

    async def _read(self, connection: socket.socket) -> bytes:
        """One octet more than a question may have, at most."""
        loop = asyncio.get_running_loop()
        octets = b""
        while len(octets) <= self._most:
            more = await loop.sock_recv(connection, self._most + 1 - len(octets))
            if not more:
                break
            octets += more
        return octets


def _may_ask(connection: socket.socket) -> bool:
    """Whether it is root or this process's own user who asks; nobody else may try passwords."""
    octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(octets)
    return uid in (0, os.geteuid())


def _bind(path: str) -> socket.socket:
    """Listen there under another name first, so that somebody listens at ``path`` all the time."""
    directory, name = os.path.split(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    fresh = f"{name}.{os.getpid()}"
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with place_of(directory) as (place, short):
            os.fchmod(bound.fileno(), 0o600)  # the file gets this mode, from the first
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=place)
            bound.bind(f"{short}/{fresh}")
            bound.listen(BACKLOG)
            os.rename(fresh, name, src_dir_fd=place, dst_dir_fd=place)
    except OSError:
        bound.close()
        raise
    return bound

"""The server's side: answers checkpassword programs of root and of the server's own user."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Coroutine, Iterator
from typing import Any

from restante import maillog
from restante.auth import Authenticator, LoginAttempt, Refusal, Welcome
from restante.auth.login import can_be_login
from restante.checkpassword.wire import (
    FIND,
    LATER,
    MAX_QUESTION,
    NO,
    YES,
    Answer,
    BadMessage,
    Person,
    Question,
    decode_question,
    encode_answer,
    socket_path,
)
from restante.directory import Account, Directory
from restante.errors import RestanteError

SERVICE = "checkpassword"
"""As the log calls it."""
MAX_AT_ONCE = 500
"""Programs that are answered at the same time; others hear at once that it is too busy."""
PATIENCE = 5.0
"""Seconds for a program to say its question, or to take its answer."""
BACKLOG = 256
ACCEPT_PAUSE = 0.1
"""Seconds to wait when a connection cannot be accepted."""

_CREDENTIALS = struct.Struct("3i")
"""pid, uid and gid of a peer (SO_PEERCRED, unix(7))."""


async def decided(
    question: Question, session: str, authenticator: Authenticator, directory: Directory
) -> Answer:
    """The answer to a question; never raises what it foresees."""
    if question.verb == FIND:
        return await _found(question.login, directory)
    attempt = LoginAttempt(session, question.login, question.password, SERVICE, question.peer)
    answer = await authenticator.login(attempt)
    if isinstance(answer, Welcome):
        return _yes(answer.account)
    return Answer(LATER if answer.reason is Refusal.SYSTEM_ERROR else NO)


async def _found(login: str, directory: Directory) -> Answer:
    if not can_be_login(login):
        return Answer(NO)
    try:
        credentials = await directory.credentials(login)
        account = credentials.account if credentials else await directory.system_user(login)
    except RestanteError as error:
        maillog.checkpassword_failed(str(error))
        return Answer(LATER)
    return Answer(NO) if account is None else _yes(account)


def _yes(account: Account) -> Answer:
    return Answer(YES, Person(account.name, account.uid, account.gid, account.home))


class Desk:
    """One socket, at which one worker answers."""

    def __init__(
        self, instance: str, authenticator: Authenticator, directory: Directory, ids: Iterator[str]
    ) -> None:
        """``ids``: names for sessions, in the log."""
        self._path = socket_path(instance)
        self._authenticator = authenticator
        self._directory = directory
        self._ids = ids
        self._bound: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen, in place of whoever did before; where that cannot be, the log says so.

        Programs do without a server then.
        """
        try:
            self._bound = _bind(self._path)
        except OSError as error:
            maillog.checkpassword_failed(f"{self._path}: {error.strerror}")
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
                maillog.checkpassword_failed(str(error))
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
                if _may_ask(connection):
                    await self._answer(connection)
            except (OSError, BadMessage, TimeoutError):
                return  # it asks anew, or decides by itself
            except Exception as error:  # noqa: BLE001 - a bug must not end the desk
                maillog.unplanned("checkpassword", error)

    async def _answer(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            question = decode_question(await _read(connection))
        if len(self._tasks) > MAX_AT_ONCE:
            answer = Answer(LATER)
        else:
            session = next(self._ids)
            answer = await decided(question, session, self._authenticator, self._directory)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(connection, encode_answer(answer))


async def _read(connection: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    octets = b""
    while len(octets) <= MAX_QUESTION:
        more = await loop.sock_recv(connection, MAX_QUESTION)
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
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(bound.fileno(), 0o600)  # the file gets this mode, from the first
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=place)
        bound.bind(f"/proc/self/fd/{place}/{fresh}")  # a path of any length (unix(7))
        bound.listen(BACKLOG)
        os.rename(fresh, name, src_dir_fd=place, dst_dir_fd=place)
    except OSError:
        bound.close()
        raise
    finally:
        os.close(place)
    return bound

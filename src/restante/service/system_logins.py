"""Logins of the system's users: who asks the shadow file, and how a worker asks him.

Workers of a server that root has started cannot read the shadow file. They ask the registrar,
which can, through the socket ``run/shadow`` of the instance: a connection for each login, on
which a question is sent and ended, and an answer comes back, both JSON::

    {"login": "ann", "password": "...", "peer": "192.0.2.7"}
    {"user": null}    or    {"user": ["ann", 1000, 1000, "/home/ann"], "good": false,
    "detail": "..."}    or    {"error": "..."}

So a worker learns whether a password is right, and never a hash.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

from restante.auth import LoginAttempt, NoSystemLogins, SystemLogins, SystemVerdict
from restante.auth.system import HostLogins
from restante.checkpassword.desk import Desk
from restante.config import Settings
from restante.directory import Account
from restante.directory.system import HostPasswords
from restante.errors import CannotKnow, TemporaryError
from restante.unix_socket import address_of

MAX_MESSAGE = 16 * 1024
"""Octets of a question or an answer: a login, a password and a peer, or an account."""
PATIENCE = 30.0
"""Seconds to wait for an answer: passwords are checked one after the other."""


def system_logins(settings: Settings, *, asks_registrar: bool) -> SystemLogins:
    """What a worker asks where no table knows a login.

    ``asks_registrar``: root has started the server, and another process may read the shadow file.
    """
    if not settings.routing.system_files:
        return NoSystemLogins()
    return RegistrarLogins(_path(settings)) if asks_registrar else _host_logins(settings)


def shadow_desk(settings: Settings) -> ShadowDesk | None:
    """What the registrar is to keep open; None where no user of the system has mail."""
    if not settings.routing.system_files:
        return None
    return ShadowDesk(_path(settings), _host_logins(settings))


def _path(settings: Settings) -> str:
    return os.path.join(settings.directory, "run", "shadow")


def _host_logins(settings: Settings) -> HostLogins:
    return HostLogins(HostPasswords(settings.mail.minimum_uid), settings.auth)


# The registrar's side


class ShadowDesk:
    """Answers the workers of an instance."""

    def __init__(self, path: str, logins: SystemLogins) -> None:
        self._logins = logins
        self._desk = Desk(path, MAX_MESSAGE, self._respond)

    def start(self) -> None:
        """Listen."""
        self._desk.start()

    async def stop(self) -> None:
        """Hear no more."""
        await self._desk.stop()
        await self._logins.close()

    async def _respond(self, octets: bytes) -> bytes:
        return json.dumps(await self._answer(_attempt(octets))).encode()

    async def _answer(self, attempt: LoginAttempt) -> dict[str, object]:
        try:
            found = await self._logins.check(attempt)
        except TemporaryError as error:
            return {"error": str(error)}
        if found is None:
            return {"user": None}
        account = found.account
        user = [account.name, account.uid, account.gid, account.home]
        return {"user": user, "good": found.is_good, "detail": found.detail}


def _attempt(octets: bytes) -> LoginAttempt:
    """The question; raises ValueError."""
    try:
        match json.loads(octets):
            case {"login": str(login), "password": str(password), "peer": str(peer)}:
                return LoginAttempt("", login, password, "", peer)
    except RecursionError as error:
        raise ValueError("no login") from error
    raise ValueError("no login")


# A worker's side


class RegistrarLogins:
    """Implements ``restante.auth.SystemLogins`` by asking the registrar."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def check(self, attempt: LoginAttempt) -> SystemVerdict | None:
        """See SystemLogins."""
        question = {"login": attempt.login, "password": attempt.password, "peer": attempt.peer}
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._ask(json.dumps(question).encode())
            return _verdict(json.loads(answer))
        except TimeoutError:
            raise CannotKnow(f"shadow: no answer within {PATIENCE:g} seconds") from None
        except OSError as error:
            raise CannotKnow(f"shadow: the registrar does not answer: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CannotKnow("shadow: the registrar's answer is none") from error

    async def close(self) -> None:
        """Nothing is held."""

    async def _ask(self, question: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
            with address_of(self._path) as path:
                await loop.sock_connect(connection, path)
            await loop.sock_sendall(connection, question)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while len(answer) <= MAX_MESSAGE:
                more = await loop.sock_recv(connection, MAX_MESSAGE)
                if not more:
                    break
                answer += more
            return answer


def _verdict(answer: dict[str, Any]) -> SystemVerdict | None:
    if "error" in answer:
        raise CannotKnow(str(answer["error"]))
    if answer["user"] is None:
        return None
    name, uid, gid, home = answer["user"]
    account = Account(str(name), int(uid), int(gid), str(home))
    return SystemVerdict(account, answer["good"] is True, str(answer["detail"]))

"""Whose an account is: a process that asks the database, so that the supervisor need not.

It runs as the server's user and listens to the supervisor, over a SOCK_SEQPACKET
pair. A question is one datagram of JSON, ``{"id": 7, "account": "iain@example.com"}`` or
``{"id": 8, "system": "alias"}``; the answer has the same id, and ``uid``, ``gid`` and ``home``, or
``error``.
It takes as long as the database does; the supervisor goes on meanwhile.

Where users of the system have mail, it also tells workers whether their passwords are right
(``system_logins``): it alone has the group that may read the shadow file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import replace

import uvloop

from restante import maillog
from restante.config import Settings
from restante.directory import Account
from restante.directory.engine import Engine, open_engine, pem_files
from restante.directory.lookups import SqlDirectory
from restante.directory.shadow import shadow_groups
from restante.directory.system import system_files
from restante.errors import RestanteError
from restante.service.preload import preload_driver
from restante.service.system_logins import shadow_desk
from restante.service.user import ServerUser, handed_files

MAX_QUESTION = 16384
"""Octets of a question, which the supervisor has written: office.MAX_NAME characters are in it,
of up to twelve octets each in JSON."""
MAX_HOME = 1000
"""Characters of a home's path that is told; a longer one is not made."""
MAX_WORDS = 1000
"""Characters of an error."""


def run_registrar(settings: Settings, user: ServerUser, end: socket.socket) -> int:
    """Answer until the supervisor closes its end; the exit status of the process."""
    # While this process is root: the driver and what that needs, and the key that the database
    # knows this host by, may lie where only root may read.
    preload_driver(settings, user.rights())
    pem = handed_files(pem_files(settings.database, settings.directory), user)
    engine = open_engine(settings.database, settings.directory, log_sql=settings.log.sql, pem=pem)
    _with_shadow(settings, user).become()
    uvloop.run(_serve(settings, engine, end))
    return 0


def _with_shadow(settings: Settings, user: ServerUser) -> ServerUser:
    """The user, in the group that may read the shadow file where that is asked."""
    if not settings.routing.system_files:
        return user
    return replace(user, groups=tuple(sorted({*user.groups, *shadow_groups()})))


async def _serve(settings: Settings, engine: Engine, end: socket.socket) -> None:
    registrar = _Registrar(SqlDirectory(engine, system_files(settings)), end)
    end.setblocking(False)
    loop = asyncio.get_running_loop()
    loop.add_reader(end, registrar.read)
    desk = shadow_desk(settings)
    if desk is not None:
        desk.start()
    await registrar.ended.wait()
    loop.remove_reader(end)
    if desk is not None:
        await desk.stop()


class _Registrar:
    """Questions on their way; the supervisor sees to it that they are not too many."""

    def __init__(self, directory: SqlDirectory, end: socket.socket) -> None:
        self._directory = directory
        self._end = end
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended = asyncio.Event()

    def read(self) -> None:
        """Begin with what was asked."""
        try:
            octets = self._end.recv(MAX_QUESTION)
        except BlockingIOError:
            return
        except OSError:  # the supervisor is gone, and has not read all of the answers
            octets = b""
        if not octets:
            self.ended.set()
            return
        task = asyncio.create_task(self._answer(json.loads(octets)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, question: dict[str, object]) -> None:
        try:
            answer = await self._found(question)
        except RestanteError as error:
            answer = {"error": str(error)[:MAX_WORDS]}
        except Exception as error:  # noqa: BLE001 - one bug must not end all the others' answers
            maillog.unplanned("registrar", error)
            answer = {"error": "an unplanned exception, see the log"}
        # If the supervisor does not listen, it will ask again.
        with contextlib.suppress(OSError):
            self._end.send(json.dumps({"id": question["id"], **answer}).encode())

    async def _found(self, question: dict[str, object]) -> dict[str, object]:
        if "account" in question:
            account = await self._directory.account(str(question["account"]))
        else:
            account = await self._directory.system_user(str(question["system"]))
        return {"error": "there is no such account"} if account is None else _owner(account)


def _owner(account: Account) -> dict[str, object]:
    home = account.home if len(account.home) <= MAX_HOME else ""
    return {"uid": account.uid, "gid": account.gid, "home": home}

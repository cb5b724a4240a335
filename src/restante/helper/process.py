"""A helper's process: takes connections from the nursery, and serves them until it is let go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import traceback
from collections.abc import Callable
from typing import Any

import uvloop

from restante import eventlog, maillog
from restante.directory.system import HostFiles
from restante.helper.limits import Limits
from restante.helper.messages import Owner
from restante.helper.nursery import CONNECTION, COUNT, HURRY
from restante.helper.serving import Serving, Tools
from restante.mda.writer import BatchWriter
from restante.store.maildir import MaildirStore
from restante.threads import ThreadPool

FILE_THREADS = 32
"""Maildrops and messages that are read at the same time."""


def run_helper(hatch: socket.socket, owner: Owner, limits: Limits) -> None:
    """Serve what comes down the hatch until it is shut and no connection is left."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(hatch, owner, limits))


async def _serve(hatch: socket.socket, owner: Owner, limits: Limits) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPool(FILE_THREADS, "files"))
    loop.set_exception_handler(_unplanned)
    writer = BatchWriter(
        limits.host,
        limits.minimum_uid,
        limits.minimum_gid,
        programs=limits.programs,
        instance=limits.instance,
        is_server=owner.uid == limits.server_uid,
        may_block=True,
    )
    files = HostFiles(limits.minimum_uid, limits.minimum_gid)
    household = Household(hatch, owner, Tools(writer, MaildirStore(), files))
    log_by(loop, household.remark)
    await household.ended.wait()
    await writer.close()


class Household:
    """All connections of a helper, and its end of the hatch."""

    def __init__(self, hatch: socket.socket, owner: Owner, tools: Tools) -> None:
        self._hatch = hatch
        self._owner = owner
        self._tools = tools
        self._loop = asyncio.get_running_loop()
        self._connections: dict[Serving, None] = {}
        self._taken = 0
        self._is_leaving = False
        self.ended = asyncio.Event()
        """The hatch is shut, and no connection is left."""
        hatch.setblocking(False)
        self._loop.add_reader(hatch, self._listen)

    def remark(self, text: str) -> None:
        """Let a worker log this line; if there is none, nobody learns of it."""
        for serving in self._connections:
            if serving.is_open:
                serving.remark(text)
                return

    def _listen(self) -> None:
        try:
            said, descriptors, _, _ = socket.recv_fds(
                self._hatch, len(CONNECTION), 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            said, descriptors = b"", []
        if said == CONNECTION:
            self._taken += 1
            if descriptors:
                self._take(socket.socket(fileno=descriptors[0]))
            else:  # it was closed for want of a descriptor, and the worker sees that
                self._count()
        elif said == HURRY:
            self._ask_back()
        elif not said:
            self._leave()

    def _take(self, connection: socket.socket) -> None:
        serving = Serving(connection, self._owner, self._tools, self._changed)
        self._connections[serving] = None

    def _changed(self, serving: Serving) -> None:
        if serving not in self._connections:
            return  # the last answer found the worker gone, and both have been told of
        if serving.is_unused and not serving.is_open:
            del self._connections[serving]
        if self._is_leaving:
            serving.ask_back()
            self._end()
        else:
            self._count()

    def _count(self) -> None:
        """If no connection is left, say how many there were: the nursery may want to end this."""
        if not self._connections:
            try:
                self._hatch.send(COUNT.pack(self._taken))
            except OSError:
                self._leave()

    def _ask_back(self) -> None:
        for serving in self._connections:
            serving.ask_back()

    def _leave(self) -> None:
        self._loop.remove_reader(self._hatch)
        self._hatch.close()
        self._is_leaving = True
        self._ask_back()
        self._end()

    def _end(self) -> None:
        """Once no worker is there any more: what runs for none is cut short by ``close``."""
        if not any(serving.is_open for serving in self._connections):
            self.ended.set()


def _unplanned(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    message = str(context.get("message", "event loop"))
    maillog.unplanned(message, context.get("exception") or RuntimeError(message))


def log_by(loop: asyncio.AbstractEventLoop, remark: Callable[[str], None]) -> None:
    """Send the mail log of this process, from whatever thread, to a worker."""

    def send(_level: str, event: str, fields: eventlog.Fields) -> None:
        error = fields.pop("exc_info", None)
        trace = "".join(traceback.format_exception(error)) if error else ""
        words = " ".join(f"{key}={value}" for key, value in {"event": event, **fields}.items())
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever listens
            loop.call_soon_threadsafe(remark, f"{words}\n{trace}" if trace else words)

    eventlog.log.destination = eventlog.Destination(send, eventlog.DEBUG)

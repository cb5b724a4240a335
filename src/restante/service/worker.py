"""A worker: all services on one event loop, with a queue of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

import uvloop

from restante import maillog
from restante.config import Settings
from restante.directory.engine import pem_files
from restante.errors import RestanteError
from restante.service.place import EXIT_CONFIGURATION, READY, WorkerPlace
from restante.service.user import handed_files
from restante.service.wiring import Worker
from restante.threads import ThreadPool
from restante.tls.certificates import paths_of
from restante.tls.files import HandedFiles

FILE_THREADS = 32
"""Maildrops and spooled messages that are read or written at the same time."""


def run_worker(
    settings: Settings, place: WorkerPlace, sockets: Mapping[str, list[socket.socket]]
) -> int:
    """Serve until SIGTERM, or until the supervisor is gone; the exit status of the process."""
    try:
        sys.unraisablehook = _unraisable
        pem = _give_up_root(settings, place)
        uvloop.run(_serve(settings, place, sockets, pem))
    except RestanteError as error:
        maillog.worker_failed(place.slot, str(error))
        _say(place.ready_fd, str(error))
        return EXIT_CONFIGURATION
    return 0


def _give_up_root(settings: Settings, place: WorkerPlace) -> HandedFiles | None:
    """Become the server's user; what only root may read is read before.

    None, and nothing is done, where the server was not started by root.
    """
    if place.user is None:
        return None
    paths = paths_of(settings) | pem_files(settings.database, settings.directory)
    pem = handed_files(paths, place.user)
    place.user.become()
    return pem


async def _serve(
    settings: Settings,
    place: WorkerPlace,
    sockets: Mapping[str, list[socket.socket]],
    pem: HandedFiles | None,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unplanned)
    # The usual number follows the cores; these threads wait for disks.
    loop.set_default_executor(ThreadPool(FILE_THREADS, "files"))
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(place.life_fd, stop.set)
    worker = Worker(settings, place, pem)
    try:
        if await _is_started(worker, sockets, stop):
            _say(place.ready_fd, READY)
            os.close(place.ready_fd)
            await stop.wait()
    finally:
        loop.remove_reader(place.life_fd)
        await worker.stop()


async def _is_started(
    worker: Worker, sockets: Mapping[str, list[socket.socket]], stop: asyncio.Event
) -> bool:
    """Whether it serves: not if it was told to leave before; raises OperatorError."""
    starting = asyncio.create_task(worker.start(sockets))
    leaving = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, leaving), return_when=asyncio.FIRST_COMPLETED)
    for each in (starting, leaving):
        each.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
        return True
    return False


def _unplanned(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody awaited: a bug, in a callback or a forgotten task."""
    message = str(context.get("message", "event loop"))
    maillog.unplanned(message, context.get("exception") or RuntimeError(message))


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """What could not be raised where it happened, told as Python does it.

    For ssl that is a host in other octets than ASCII, which a client asks for (that is the object,
    or from Python 3.14 on in the message). ``tls_failed`` is logged for that, and a trace of it
    would be for anybody to have written, as often as they like.
    """
    of_ssl = isinstance(what.object, bytes) or "servername" in (what.err_msg or "")
    if not (of_ssl and isinstance(what.exc_value, UnicodeDecodeError)):
        sys.__unraisablehook__(what)


def _say(ready_fd: int, text: str) -> None:
    """A supervisor that no longer listens is none of the worker's business."""
    with contextlib.suppress(OSError):
        os.write(ready_fd, text.encode())

"""The worker's side of its office (restante.service.office)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from collections.abc import Callable

from restante.errors import TemporaryError

MAX_ANSWER = 8192
"""Octets of an answer."""
PATIENCE = 40.0
"""Seconds to wait for one: longer than the supervisor waits for the registrar."""


class NotGiven(TemporaryError):
    """What was asked for cannot be had now; the text says why."""


Answer = tuple[dict[str, object], list[int]]


class Window:
    """Asks the supervisor; used from one event loop."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._numbers: Callable[[], int] = itertools.count().__next__
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        end.setblocking(False)
        asyncio.get_running_loop().add_reader(end, self._hear)

    async def file(self, path: str) -> int:
        """A descriptor of a certificate or key that the settings name; raises NotGiven."""
        _, descriptors = await self.ask("file", path)
        if not descriptors:
            raise NotGiven("the answer had no descriptor")
        return descriptors[0]

    async def ask(self, kind: str, name: str) -> Answer:
        """The fields of an answer, and its descriptors, which are the caller's; raises NotGiven."""
        number = self._numbers()
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._end.send(json.dumps({"id": number, kind: name}).encode())
            async with asyncio.timeout(PATIENCE):
                fields, descriptors = await answer
        except OSError as error:  # TimeoutError is one
            raise NotGiven(f"the supervisor does not answer: {error!r}") from error
        finally:
            del self._waiting[number]
        if "error" in fields:
            raise NotGiven(str(fields["error"]))
        return fields, descriptors

    def close(self) -> None:
        """Ask no more."""
        asyncio.get_running_loop().remove_reader(self._end)
        self._end.close()
        for waiting in self._waiting.values():
            waiting.cancel()

    def _hear(self) -> None:
        try:
            octets, descriptors, _, _ = socket.recv_fds(
                self._end, MAX_ANSWER, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:  # not all was read that it was asked
            octets, descriptors = b"", []
        if not octets:  # the supervisor is gone, and tells the worker so elsewhere
            asyncio.get_running_loop().remove_reader(self._end)
            return
        fields = json.loads(octets)
        waiting = self._waiting.get(fields["id"])
        if waiting is not None and not waiting.done():
            waiting.set_result((fields, descriptors))
            return
        for descriptor in descriptors:
            os.close(descriptor)

"""Where a worker asks the supervisor for what it may not take by itself.

A worker shares a SOCK_SEQPACKET pair with the supervisor. A request is one datagram of JSON:
``{"id": 7, "helper": "iain@example.com"}``, a connection to the helper of an account;
``{"id": 8, "system": "alias"}``, to that of a user of the system; ``{"id": 9, "file": PATH}``, a
certificate or a key that the settings name, open; ``{"id": 10, "home": "iain@example.com"}``, a
connection to a process that makes the missing home of an account. The answer has the same id,
and either what was asked for, with a descriptor, or ``error``, which is always temporary.

Whoever took over a worker can write here whatever he likes, as fast as he can: a request is
small, is checked before anything is done, and only so many are read in a second.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from restante import maillog

MAX_REQUEST = 4096
"""Octets of a request; what is longer is refused."""
MAX_NAME = 1024
"""Characters of a name or a path in a request."""
MAX_ID = 2**53 - 1
TURN = 16
"""Requests of one worker that are read before others have their turn."""
PER_SECOND = 500
"""Requests of one worker that are read in a second; a whole second's may come at once."""
REST = 0.1
"""Seconds for which a worker that has asked for more is not listened to."""

_NO_NAME = re.compile("[\0\ud800-\udfff]")
"""Halves of surrogate pairs are no characters, though JSON can say them."""

Kind = Literal["helper", "system", "file", "home"]
_KINDS: tuple[Kind, ...] = get_args(Kind)


class BadRequest(Exception):
    """What came is no request; the text says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a worker wants."""

    id: int
    kind: Kind
    name: str
    """An account's or a user's, or the path of a file."""


def read_request(octets: bytes) -> Request:
    """The request in a datagram; raises BadRequest."""
    if len(octets) > MAX_REQUEST:
        raise BadRequest(f"more than {MAX_REQUEST} octets")
    try:
        said = json.loads(octets)
    except (ValueError, RecursionError) as error:
        raise BadRequest("no JSON") from error
    if not isinstance(said, dict) or len(said) != 2:
        raise BadRequest("no object with an id and one wish")
    number, kind = said.get("id"), next((kind for kind in _KINDS if kind in said), None)
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise BadRequest("no id")
    if kind is None:
        raise BadRequest("none of the known wishes")
    name = said[kind]
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or _NO_NAME.search(name):
        raise BadRequest("no name")
    return Request(number, kind, name)


class Office:
    """The supervisor's end of one worker's socket."""

    def __init__(
        self,
        slot: int,
        files: frozenset[str],
        end: socket.socket,
        serve: Callable[[Office, Request], None],
    ) -> None:
        """``files``: those it may have opened. ``serve`` answers a request, now or later."""
        self.slot = slot
        self.files = files
        self.end = end
        self._serve = serve
        self._allowance = float(PER_SECOND)
        self._counted = time.monotonic()
        self.pending = 0
        """Requests whose answers wait for the registrar."""
        end.setblocking(False)

    def listen(self) -> bool:
        """Serve what has been asked; False if the worker is gone, or asks too much for now."""
        for _ in range(TURN):
            if not self._may_ask():
                return False
            try:
                octets = self.end.recv(MAX_REQUEST + 1)
            except BlockingIOError:
                return True
            except OSError:
                octets = b""
            if not octets:
                self.close()
                return False
            self._allowance -= 1
            self._take(octets)
        return True

    def answer(
        self, request: int, fields: Mapping[str, object], descriptor: int | None = None
    ) -> None:
        """Send an answer; a worker that does not read its answers goes without."""
        datagram = json.dumps({"id": request, **fields}).encode()
        descriptors = [] if descriptor is None else [descriptor]
        try:
            socket.send_fds(self.end, [datagram], descriptors)
        except OSError:
            return

    def refuse(self, request: int, why: str) -> None:
        """Say that it cannot be had now."""
        self.answer(request, {"error": why})

    def close(self) -> None:
        """Hear no more."""
        self.end.close()

    @property
    def is_open(self) -> bool:
        """Whether the worker can ask."""
        return self.end.fileno() >= 0

    def _take(self, octets: bytes) -> None:
        try:
            request = read_request(octets)
        except BadRequest as error:
            maillog.request_refused(self.slot, "", str(error))
            # What is no request has no id to answer to, and comes from no worker of ours.
            self._allowance -= REST * PER_SECOND
            return
        self._serve(self, request)

    def _may_ask(self) -> bool:
        now = time.monotonic()
        earned = (now - self._counted) * PER_SECOND
        self._allowance, self._counted = min(self._allowance + earned, PER_SECOND), now
        return self._allowance >= 1

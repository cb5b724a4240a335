"""The nursery: the process of root that forks helpers, and knows nothing else.

It has one thread, reads nothing from the network, and takes orders from the supervisor
alone: a datagram ``{"uid": 1000, "gid": 1000, "place": ""}`` with one descriptor, a worker's
connection. It hands the connection to the helper of that uid and gid, which it forks if there is
none. For a ``place``, a network file system, there is one of its own: it may come to hang.
Where there is to be no helper, the connection's other end is told why (Kind.REFUSED). An order
with a ``home`` is for a process that makes it (restante.helper.makers).

Nursery and helper share a socket too, the hatch. Down it go the connections, and
``HURRY`` when others need the place; up it comes how many connections the helper has had, at each
moment when it has none left. If none is under way then, the helper is let go: its hatch is
shut, it ends by itself. It also does when the nursery is gone and its connections are.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from restante.helper.become import become, heed_no_end, leave_surroundings
from restante.helper.limits import Limits
from restante.helper.makers import Makers, Wish, reap
from restante.helper.messages import MAX_TEXT, Owner
from restante.helper.wire import Kind, Writer, head

MAX_ORDER = 8192
"""Octets in an order."""
ORDER_PATIENCE = 5.0
"""Seconds that an order waits for a place when all are taken."""
MAX_WAITING = 1000
"""Orders that wait; one more is refused at once."""
FOR_OTHERS = 4
"""One in so many helpers, and one at least, is for homes elsewhere than on one network file system:
where that hangs, so do its helpers, however many uids have homes there."""
END_PATIENCE = 60.0
"""Seconds after which a helper that was let go is killed, when no worker is left."""
TICK = 0.2
"""Seconds between two looks at what waits, while something does."""

SIGNALS = 512
"""Signals that are taken note of at once."""

CONNECTION = b"+"
"""Down the hatch, with a descriptor: one more connection."""
HURRY = b"h"
"""Down the hatch: give connections back that nothing happens on."""
COUNT = struct.Struct("!Q")
"""Up the hatch: so many connections were taken, none is left."""

PRELOADED = (
    *("encodings.ascii", "encodings.idna", "encodings.latin_1", "concurrent.futures.thread"),
    *("asyncio.runners", "asyncio.subprocess", "linecache", "tokenize"),
)
"""Modules that Python imports only when it needs them, of those that helpers may need."""

RunHelper = Callable[[socket.socket, Owner, Limits], None]
_Place = tuple[Owner, str]
"""Whose helper, and for which network file system."""


@dataclass(slots=True)
class _Helper:
    """A living process."""

    pid: int
    place: _Place
    hatch: socket.socket
    handed: int = 0
    """Connections it was given."""


@dataclass(frozen=True, slots=True)
class _Order:
    place: _Place
    connection: socket.socket
    until: float
    """When it is given up, on the monotonic clock."""

    @property
    def owner(self) -> Owner:
        """Whose helper is wanted."""
        return self.place[0]

    @property
    def far(self) -> str:
        """The network file system; empty: a disk of this machine."""
        return self.place[1]

    def refuse(self, why: str) -> None:
        """Tell the worker, which may not be there any more."""
        out = Writer()
        out.cut(why, MAX_TEXT)
        body = out.octets()
        with contextlib.suppress(OSError):
            self.connection.send(head(0, Kind.REFUSED, [body]) + body, socket.MSG_DONTWAIT)
        self.connection.close()


class Nursery:
    """Helpers by uid, gid and file system, bounded in number."""

    def __init__(self, orders: socket.socket, limits: Limits, run_helper: RunHelper) -> None:
        self._orders = orders
        self._limits = limits
        self._run_helper = run_helper
        self._helpers: dict[_Place, _Helper] = {}
        self._leaving: dict[int, float] = {}
        """Processes that were let go, and when they are killed."""
        self._waiting: deque[_Order] = deque()
        self._makers = Makers(limits.homes)
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until the supervisor is gone, then see every helper to its end."""
        self._orders.setblocking(False)
        ended = _child_ended()
        self._selector.register(self._orders, selectors.EVENT_READ, self._take_order)
        self._selector.register(ended, selectors.EVENT_READ, partial(ended.recv, SIGNALS))
        while self._orders.fileno() >= 0 or self._helpers or self._leaving or self._makers.is_busy:
            busy = self._waiting or self._leaving or self._makers.is_busy
            for key, _ in self._selector.select(TICK if busy else None):
                key.data()
            reap(self._leaving)
            self._makers.look()
            self._serve_waiting()

    # Orders

    def _take_order(self) -> None:
        try:
            octets, descriptors, _, _ = socket.recv_fds(
                self._orders, MAX_ORDER, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            octets, descriptors = b"", []
        if not octets:
            self._end()
            return
        if not descriptors:
            return  # an order without a connection has nobody to answer
        connection = socket.socket(fileno=descriptors[0])
        try:
            said = json.loads(octets)
            owner = Owner(int(said["uid"]), int(said["gid"]))
            home, place = str(said.get("home", "")), str(said.get("place", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            connection.close()
            return
        if home:
            self._make(Wish(home, owner, connection))
        else:
            self._place(_Order((owner, place), connection, time.monotonic() + ORDER_PATIENCE))

    def _make(self, wish: Wish) -> None:
        objection = self._limits.objection(wish.owner.uid, wish.owner.gid)
        if objection:
            wish.refuse(objection)
        else:
            self._makers.take(wish)

    def _place(self, order: _Order) -> None:
        objection = self._limits.objection(order.owner.uid, order.owner.gid)
        if objection:
            order.refuse(objection)
        elif order.place in self._helpers or self._has_room(order):
            self._hand(order)
        elif len(self._waiting) >= MAX_WAITING:
            self._refuse_for_now(order)
        else:
            self._waiting.append(order)
            self._hurry()

    def _has_room(self, order: _Order) -> bool:
        if len(self._helpers) + len(self._leaving) >= self._limits.helpers:
            return False
        there = sum(far == order.far for _, far in self._helpers) if order.far else 0
        return there < self._most(order)

    def _most(self, order: _Order) -> int:
        """How many helpers there may be for homes where the order's is."""
        most = self._limits.helpers
        return max(1, most - max(1, most // FOR_OTHERS)) if order.far else most

    def _refuse_for_now(self, order: _Order) -> None:
        where = f" for {order.far}" if order.far else ""
        order.refuse(f"all {self._most(order)} helpers{where} are busy (mail.helpers)")

    def _hand(self, order: _Order) -> None:
        try:
            helper = self._helpers.get(order.place) or self._fork(order.place)
            socket.send_fds(helper.hatch, [CONNECTION], [order.connection.fileno()])
        except OSError as error:
            order.refuse(f"the helper of uid {order.owner.uid} cannot be had: {error.strerror}")
            return
        helper.handed += 1
        order.connection.close()

    def _serve_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            order = self._waiting.popleft()
            if order.place in self._helpers or self._has_room(order):
                self._hand(order)
            elif order.until < time.monotonic():
                self._refuse_for_now(order)
            else:
                self._waiting.append(order)
        if self._waiting:
            self._hurry()

    def _hurry(self) -> None:
        for helper in self._helpers.values():
            with contextlib.suppress(OSError):
                helper.hatch.send(HURRY)

    # Helpers

    def _fork(self, place: _Place) -> _Helper:
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        try:
            pid = os.fork()
        except OSError:
            mine.close()
            raise
        else:
            if pid == 0:
                self._become_helper(its, place[0])
        finally:
            its.close()
        helper = _Helper(pid, place, mine)
        self._helpers[place] = helper
        self._selector.register(mine, selectors.EVENT_READ, partial(self._listen, helper))
        return helper

    def _become_helper(self, hatch: socket.socket, owner: Owner) -> None:
        """Never returns: the child's only way out is its exit status."""
        status = 1
        try:
            hatch = socket.socket(fileno=leave_surroundings(hatch.detach()))
            become(owner.uid, owner.gid, is_server=owner.uid == self._limits.server_uid)
            self._run_helper(hatch, owner, self._limits)
            status = 0
        except BaseException as error:  # noqa: BLE001 - the last line before the process ends
            sys.stderr.write(f"restante-helper of uid {owner.uid}: {error!r}\n")
        finally:
            os._exit(status)

    def _listen(self, helper: _Helper) -> None:
        """What comes up a hatch: a count, or the end."""
        if self._helpers.get(helper.place) is not helper:
            return  # it was let go since the kernel said that there is something
        try:
            octets = helper.hatch.recv(COUNT.size)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets or (len(octets) == COUNT.size and octets == COUNT.pack(helper.handed)):
            self._let_go(helper)

    def _let_go(self, helper: _Helper) -> None:
        """The helper ends as soon as it finds its hatch shut; nobody is handed to it any more."""
        self._selector.unregister(helper.hatch)
        helper.hatch.close()
        del self._helpers[helper.place]
        patience = self._limits.drain_timeout + END_PATIENCE
        self._leaving[helper.pid] = time.monotonic() + patience

    def _end(self) -> None:
        """The supervisor is gone: no more orders, and no more helpers once they have finished."""
        self._selector.unregister(self._orders)
        self._orders.close()
        for order in self._waiting:
            order.refuse("the server shuts down")
        self._waiting.clear()
        self._makers.refuse_all("the server shuts down")
        for helper in list(self._helpers.values()):
            self._let_go(helper)


def _child_ended() -> socket.socket:
    """What becomes readable when a child has ended; it lives as long as the process."""
    readable, written = socket.socketpair()
    readable.setblocking(False)
    written.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(written.detach(), warn_on_full_buffer=False)
    return readable


def main(arguments: list[str]) -> int:
    """Be the nursery: descriptor of the order socket, then the limits."""
    # Only here: what helpers need is in memory before they are forked, once for all of them; and
    # their users need not be able to read this program's files.
    from restante.helper.process import run_helper

    for name in PRELOADED:
        importlib.import_module(name)

    heed_no_end()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    orders = socket.socket(fileno=int(arguments[0]))
    orders.set_inheritable(False)
    limits = Limits.from_argument(arguments[1])
    gc.collect()
    gc.freeze()
    Nursery(orders, limits, run_helper).run()
    return 0

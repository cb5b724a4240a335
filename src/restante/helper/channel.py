"""Frames over a stream socket on the event loop, in both directions, with descriptors.

asyncio's transports pass no descriptors, so this watches the socket itself. What is sent
within one turn of the loop leaves with one system call.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from restante.helper.wire import MAX_DESCRIPTORS, BadFrame, Frame, Parser, head

RECEIVED = 64 * 1024
"""Octets taken from the socket at a time. The allocator has so many at hand; for 128 KiB and more
it asks the kernel for pages each time (mallopt(3), M_MMAP_THRESHOLD), and gives them back."""
MOST_RECEIVED = 4
"""So often until others have their turn: the other end may fill the socket without end."""
BUFFERED = 512 * 1024
"""Octets that the kernel is asked to hold for each direction."""
FULL = 4 * 1024 * 1024
"""Octets that wait for the other end; from here on a helper reads no more requests."""
IOV_MAX = 1024
"""Buffers in one sendmsg(2) (Linux's UIO_MAXIOV)."""

_CONTROL = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
_DESCRIPTOR = array.array("i").itemsize
_TRUNCATED = int(socket.MSG_CTRUNC)  # enums are slow to calculate with


class Channel:
    """One end of a connection between worker and helper. Belongs to one event loop.

    ``on_frame`` takes each frame, and may raise BadFrame; ``on_lost`` is called once, with
    the reason, when the connection has ended by itself, and not after ``close``.
    ``takes_descriptors``: it is the helper's end, to which requests come.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_frame: Callable[[Frame], None],
        on_lost: Callable[[str], None],
        *,
        takes_descriptors: bool,
    ) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._takes_descriptors = takes_descriptors
        self._parser = Parser()
        self._buffers: deque[bytes | memoryview] = deque()
        self._descriptors: deque[tuple[int, int]] = deque()
        """Descriptors to send, each with how many buffers go before the frame it belongs to."""
        self._waiting = 0
        self._scheduled = False
        self._writing = False
        self._reading = False
        self._goes_on = False
        self._held = False
        self._drained: asyncio.Future[None] | None = None
        self.is_open = True
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFERED)
        self._watch()

    # Out

    def send(
        self,
        number: int,
        kind: int,
        buffers: Sequence[bytes],
        descriptor: int = -1,
        *,
        at_once: bool = False,
    ) -> None:
        """Send a frame soon; raises BadFrame if it is too large.

        ``at_once``: before this returns, as far as the other end takes it, and what waits with it.

        ``descriptor`` belongs to the channel from here on. After the end nothing is sent.
        """
        try:
            front = head(number, kind, buffers, descriptor >= 0)
        except BadFrame:
            _close(descriptor)
            raise
        if not self.is_open:
            _close(descriptor)
            return
        octets = len(front) + sum(map(len, buffers))
        sent = 0
        if descriptor >= 0:
            self._descriptors.append((len(self._buffers), descriptor))
        elif at_once and not self._buffers:
            sent = self._try(front, buffers)
            if sent == octets:
                return
        self._buffers.append(front)
        self._buffers.extend(buffers)
        self._waiting += octets
        if sent:
            self._forget(sent)
        if self._writing:
            return
        if at_once:
            self._flush()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    @property
    def is_behind(self) -> bool:
        """Whether the other end has yet to take so much that ``drain`` waits for it."""
        return self._waiting >= FULL

    async def drain(self) -> None:
        """Wait until the other end has taken enough of what was sent, or is gone."""
        while self.is_open and self.is_behind:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def hold(self) -> None:
        """Read nothing more for now."""
        self._held = True
        self._watch()

    def resume(self) -> None:
        """Read again."""
        self._held = False
        self._watch()

    def close(self) -> None:
        """End the connection at once; ``on_lost`` is not called."""
        if not self.is_open:
            return
        self.is_open = False
        self._watch()
        if self._writing:
            self._loop.remove_writer(self._socket)
        self._socket.close()
        for descriptor in self._parser.take_descriptors():
            _close(descriptor)
        for _, descriptor in self._descriptors:
            _close(descriptor)
        self._descriptors.clear()
        self._buffers.clear()
        self._wake()

    def _try(self, front: bytes, buffers: Sequence[bytes]) -> int:
        """Send what nothing waits before; how many octets of it the other end has taken."""
        try:
            return self._socket.sendmsg((front, *buffers))
        except OSError:
            return 0  # whoever sends it from where it waits finds out why

    def _turn(self) -> None:
        self._scheduled = False
        if self._buffers and not self._writing:
            self._flush()

    def _flush(self) -> None:
        if not self.is_open:
            return
        try:
            while self._buffers:
                self._send_some()
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket, self._flush)
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        else:
            if self._writing:
                self._writing = False
                self._loop.remove_writer(self._socket)
        if self._waiting < FULL:
            self._wake()
        self._watch()

    def _send_some(self) -> None:
        """One system call: up to the next frame with a descriptor, which begins a call."""
        count = min(len(self._buffers), IOV_MAX)
        rights: list[tuple[int, int, array.array[int]]] = []
        if self._descriptors and self._descriptors[0][0] == 0:
            descriptor = self._descriptors[0][1]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
            if len(self._descriptors) > 1:
                count = min(count, self._descriptors[1][0])
        elif self._descriptors:
            count = min(count, self._descriptors[0][0])
        buffers = list(islice(self._buffers, count))
        sent = self._socket.sendmsg(buffers, rights)
        if rights:
            _close(self._descriptors.popleft()[1])
        self._forget(sent)

    def _forget(self, sent: int) -> None:
        self._waiting -= sent
        if not self._waiting and not self._descriptors:
            self._buffers.clear()
            return
        gone = 0
        while self._buffers and sent >= len(self._buffers[0]):
            sent -= len(self._buffers.popleft())
            gone += 1
        if sent:
            self._buffers[0] = memoryview(self._buffers[0])[sent:]
        if gone and self._descriptors:
            self._descriptors = deque((place - gone, fd) for place, fd in self._descriptors)

    def _wake(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    # In

    def _watch(self) -> None:
        # Answers are always read: two ends that wait for each other to read would wait for ever.
        must_wait = self._held or (self._takes_descriptors and self.is_behind)
        wanted = self.is_open and not must_wait
        if wanted and not self._reading:
            self._loop.add_reader(self._socket, self._receive)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._socket)
        self._reading = wanted

    def _receive(self) -> None:
        """Take all that there is.

        Where the other end is gone and had left something unread, the kernel tells of an error as
        well, and uvloop calls a reader that once and never again, whatever is still to be read.
        So whoever stops in the midst of it goes on without being called.
        """
        for _ in range(MOST_RECEIVED):
            if not self._receive_some():
                return
        if not self._goes_on:
            self._goes_on = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        if self._reading:
            self._receive()

    def _receive_some(self) -> bool:
        """Whether there may be more."""
        descriptors: list[int] = []
        try:
            octets = self._take(descriptors)
            if not octets:
                raise ConnectionResetError("the other end is gone")
            for frame in self._parser.feed(octets, descriptors):
                if not self.is_open:
                    _close(frame.descriptor)
                    continue
                self._on_frame(frame)
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, BadFrame) as error:
            self._lose(str(error))
        return self._reading

    def _take(self, descriptors: list[int]) -> bytes:
        if not self._takes_descriptors:
            return self._socket.recv(RECEIVED)
        octets, control, flags, _ = self._socket.recvmsg(
            RECEIVED, _CONTROL, socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors += array.array("i", data[: len(data) // _DESCRIPTOR * _DESCRIPTOR])
        if flags & _TRUNCATED:
            for descriptor in descriptors:
                _close(descriptor)
            raise BadFrame("more descriptors than a frame may bring")
        return octets

    def _lose(self, why: str) -> None:
        if self.is_open:
            self.close()
            self._on_lost(why)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)

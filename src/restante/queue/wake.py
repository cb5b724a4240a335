"""How an operator's tool tells the owner of a queue that it has changed something there.

The owner has bound a datagram socket in the queue's directory; what is sent does not
matter. Its path may be longer than an address can be (108 octets, unix(7)), so that both
sides go by way of a descriptor of the directory.
"""

from __future__ import annotations

import contextlib
import os
import socket

from restante.queue.schema import WAKE
from restante.unix_socket import address_of


class WakeSocket:
    """The owner's side. Whoever has the lock on the queue may make one."""

    def __init__(self, directory: str) -> None:
        """Bind it, in place of one that a killed owner left; raises OSError."""
        self._path = os.path.join(directory, WAKE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(self._socket.fileno(), 0o600)  # the file gets this mode, from the first
            with address_of(self._path) as address:
                self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable when somebody has called."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Take note of every call so far."""
        with contextlib.suppress(OSError):
            while True:
                self._socket.recv(1)

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def wake(directory: str) -> bool:
    """Tell the owner of the queue in ``directory`` to look anew; False if nobody has it."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with caller, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        path = os.path.join(directory, WAKE)
        with address_of(path) as address, contextlib.suppress(BlockingIOError):
            caller.sendto(b"", address)  # a full buffer holds calls enough
        return True
    return False

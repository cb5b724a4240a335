"""How the supervisor starts the nursery."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from restante.helper.limits import Limits

_KEPT = ("PATH", "TZ", "LANG", "LC_ALL", "TMPDIR")
"""Variables of the environment that the nursery gets; others may hold what is secret."""


def start_nursery(limits: Limits) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The nursery, a fresh program that shares no memory with this one, and its order socket.

    It ends when the socket is closed here, after its helpers. Raises OSError.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        try:
            process = subprocess.Popen(  # noqa: S603 - this program again
                [
                    *(sys.executable, "-I", "-m", "restante.helper"),
                    *(str(its.fileno()), limits.to_argument()),
                ],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
    return process, ours


def order(
    orders: socket.socket,
    uid: int,
    gid: int,
    connection: socket.socket,
    *,
    home: str = "",
    place: str = "",
) -> None:
    """Give the helper of a uid and gid a connection; closed here afterwards. Raises OSError.

    There is one for each ``place``, a network file system on which there are homes. With a
    ``home`` no helper is meant: the home is made, and the connection's end told so.
    """
    with connection:
        message = {"uid": uid, "gid": gid, "place": place} | ({"home": home} if home else {})
        socket.send_fds(orders, [json.dumps(message).encode()], [connection.fileno()])

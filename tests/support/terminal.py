"""The restante command at a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.instance import PATIENCE


class Session(NamedTuple):
    """What a command left on its terminal."""

    code: int
    screen: str


def at_terminal(directory: Path, *arguments: str, typed: str = "", columns: int = 80) -> Session:
    """Run a command on the instance in ``directory``, with ``typed`` at the keyboard."""
    screen, keyboard = pty.openpty()
    fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with closing(os.fdopen(screen, "rb", buffering=0)) as shown:
        process = subprocess.Popen(
            [sys.executable, "-m", "restante", "--dir", str(directory), *arguments],
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
        )
        os.close(keyboard)
        os.write(screen, typed.encode())
        seen = b""
        with suppress(OSError):  # the end of a terminal is EIO
            while octets := shown.read(4096):
                seen += octets
        return Session(process.wait(PATIENCE), seen.decode().replace("\r\n", "\n"))

"""A file system that does not answer, as that of a machine which is away. For root.

It is FUSE's, served by the test itself by the kernel's own protocol: it is there, and whoever asks
it for anything waits, until it is ended.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.instance import PATIENCE
from tests.support.power import (
    FUSE_DEVICE,
    IMAGE_NAME,
    REQUEST_SIZE,
    ImageServer,
    VolatileDisk,
    begun,
    mount_fuse,
    mounted,
)

IS_POSSIBLE = os.geteuid() == 0 and os.path.exists(FUSE_DEVICE)


class HangingSystem:
    """It is mounted at ``place``."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._fd = os.open(FUSE_DEVICE, os.O_RDWR | os.O_NONBLOCK)
        try:
            mount_fuse(self._fd, place, b"allow_other")
            begun(self._fd)
        except BaseException:
            self.end()
            raise

    def wait_until_asked(self) -> None:
        """Somebody waits for an answer from now on."""
        with selectors.DefaultSelector() as asked:
            asked.register(self._fd, selectors.EVENT_READ)
            assert asked.select(PATIENCE), "nobody has asked"
        os.read(self._fd, REQUEST_SIZE)

    def end(self) -> None:
        """Whoever waits, and whoever comes, hears that it is not connected (ENOTCONN)."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextlib.contextmanager
def hanging(place: Path) -> Iterator[HangingSystem]:
    """One that is gone afterwards."""
    place.mkdir()
    system = HangingSystem(place)
    try:
        yield system
    finally:
        system.end()
        subprocess.run(["umount", "--lazy", place], check=True)


@contextlib.contextmanager
def far_file(directory: Path, place: Path) -> Iterator[Callable[[], None]]:
    """A file at ``place`` that lies on such a file system, mounted at ``directory``.

    It is well, until the function is called that this gives.
    """
    directory.mkdir()
    fd = os.open(FUSE_DEVICE, os.O_RDWR)
    mount_fuse(fd, directory)
    stop = os.eventfd(0)
    serving = threading.Thread(target=_serve, args=(fd, stop))
    serving.start()

    def end() -> None:
        if serving.is_alive():
            os.eventfd_write(stop, 1)
            serving.join()
            os.close(fd)

    try:
        with mounted("--bind", directory / IMAGE_NAME, place):
            yield end
    finally:
        end()
        os.close(stop)
        subprocess.run(["umount", "--lazy", directory], check=True)


def _serve(fd: int, stop: int) -> None:
    server = ImageServer(fd, VolatileDisk(b"", random.Random(0)), lambda: None)
    with selectors.DefaultSelector() as selector:
        for each in (fd, stop):
            selector.register(each, selectors.EVENT_READ)
        while stop not in [key.fd for key, _ in selector.select()]:
            server.serve_one()

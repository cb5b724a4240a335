"""The queues below a root: which there are, and whose one is."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from typing import IO

from restante.queue import QueueTaken, QueueUnusable
from restante.queue.bodies import make_durable_directory
from restante.queue.schema import BODIES

LOCK = "lock"
"""The file that whoever has a queue holds locked."""
TRIES = 10
"""So often it may be removed while it is made, before that is an error."""
_SLOT = re.compile("0|[1-9][0-9]*")


def lock_queue(directory: str) -> IO[bytes]:
    """The lock on the queue in ``directory``, which is made if need be.

    Whoever had it may have removed the queue just before: then it is made again. Raises
    QueueTaken, or OSError.
    """
    tries = 0
    while True:
        try:
            make_durable_directory(directory)
            lock = open(os.path.join(directory, LOCK), "ab")  # noqa: SIM115 - held while open
        except FileNotFoundError:
            tries += 1
            if tries == TRIES:
                raise  # its name leads nowhere
            continue
        try:
            _hold(lock, directory)
            is_there = os.fstat(lock.fileno()).st_nlink > 0
        except BaseException:
            lock.close()
            raise
        if is_there:
            return lock
        lock.close()


def _hold(lock: IO[bytes], directory: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise QueueTaken(f"another process has the queue {directory}") from error


def remove_queue(directory: str) -> None:
    """Remove a queue to which the caller has the lock, and that last; raises OSError.

    As long as its file has its name, nobody else has the queue and makes anything in it. Bodies
    go before the database, without which they would be taken for mail. Raises QueueUnusable, with
    nothing removed, where another directory lies in it: a second queue that was copied to the
    same place, with all of its mail.
    """
    names = sorted(os.listdir(directory), key=lambda name: name != BODIES)
    for name in names:
        if name != BODIES and os.path.isdir(os.path.join(directory, name)):
            raise QueueUnusable(f"the queue {directory} is empty, and {name} in it is not its own")
    for name in names:
        path = os.path.join(directory, name)
        if name == BODIES:
            shutil.rmtree(path)
        elif name != LOCK:
            os.unlink(path)
    os.unlink(os.path.join(directory, LOCK))
    os.rmdir(directory)


def is_slot(name: str) -> bool:
    """Whether it is a queue's name: its number in the usual digits, without leading zeros."""
    return _SLOT.fullmatch(name) is not None


def queue_slots(root: str) -> frozenset[int]:
    """The queues that lie below ``root``; raises QueueUnusable when nobody can say."""
    try:
        return frozenset(int(name) for name in os.listdir(root) if is_slot(name))
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise QueueUnusable(f"the queues in {root} cannot be listed: {error.strerror}") from error

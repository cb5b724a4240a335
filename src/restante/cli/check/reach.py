"""Whether file systems answer: whoever asks one that hangs waits with it."""

from __future__ import annotations

import subprocess
import sys

from restante.mounts import FarPlaces

PATIENCE = 10.0
"""Seconds for a file system to say whether a directory is there."""
_ASK = "import os, sys; os.stat(sys.argv[1])"


def answers(path: str) -> bool:
    """Whether the file system does that a path lies on, links followed.

    A process asks: of a thread that hangs, a change of this one's rights would wait for an answer.
    """
    command = [sys.executable, "-ISc", _ASK, path]
    asking = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own program
    try:
        asking.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        asking.kill()
        return False
    return True


class Reach:
    """What is known of network file systems, each of which is asked once."""

    def __init__(self) -> None:
        self._places = FarPlaces()
        self._answers: dict[str, bool] = {}

    def includes(self, path: str) -> bool:
        """Whether a path is on a disk of this machine or on one that answers; follows no links."""
        place = self._places.of(path)
        if place and place not in self._answers:
            self._answers[place] = answers(place)
        return not place or self._answers[place]

    @property
    def silent(self) -> list[str]:
        """Where those are mounted that did not answer."""
        return sorted(place for place, answered in self._answers.items() if not answered)

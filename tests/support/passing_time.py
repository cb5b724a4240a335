"""A loop's clock that a test sets on, so that nobody else has to hurry."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.support.smtp_peer import SmtpPeer

STEP = 1.0
"""Seconds that pass in one go while a peer is silent."""
TURNS = 20
"""Of the loop, in which all that is due is done."""


class PassingTime:
    """The running loop's clock, until ``patch`` is undone; this machine's seconds pass too.

    While a peer keeps others waiting it runs fast.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._passed = 0.0
        patch.setattr(self._loop, "time", self.now)
        patch.setattr(SmtpPeer, "keep_waiting", lambda _: self.pass_by(STEP))

    def now(self) -> float:
        """What the clock shows."""
        return self._time() + self._passed

    def pass_by(self, seconds: float) -> None:
        """Let time pass; in whatever thread."""
        self._passed += seconds
        with contextlib.suppress(RuntimeError):  # the test is over
            self._loop.call_soon_threadsafe(lambda: None)  # it may be asleep for longer

    async def until_later(self, seconds: float) -> None:
        """Let time pass, and whoever waited for it go on."""
        self.pass_by(seconds)
        for _ in range(TURNS):
            await asyncio.sleep(0)

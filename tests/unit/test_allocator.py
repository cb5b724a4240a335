"""What is free goes back to the system, also from the midst of what is not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from restante.service import allocator
from tests.support.no_threads import FewThreads

MEBIBYTE = 1024 * 1024
PIECE = 100_000
"""Octets: less than what malloc(3) has mappings of their own for."""


def resident() -> int:
    """Octets of this process that are in memory (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("refusals", [0, 3])
async def test_what_is_free_is_given_back(refusals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a moment without threads."""
    asyncio.get_running_loop().set_default_executor(FewThreads(refusals))
    monkeypatch.setattr(allocator, "INTERVAL", 0.01)
    pieces = [b"x" * PIECE for _ in range(600)]
    kept = pieces[::2]
    del pieces
    before = resident()
    tidying = asyncio.create_task(allocator.give_back_for_ever())
    async with asyncio.timeout(30):
        while before - resident() < 15 * MEBIBYTE:  # noqa: ASYNC110 - the kernel sends no events
            await asyncio.sleep(0.01)
    tidying.cancel()
    assert kept == [b"x" * PIECE] * len(kept)

"""Every dialog of the client engine, heard whole, split at every octet and octet by octet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client_dialog import Turn, hold, parse

DIRECTORY = Path(__file__).parents[1] / "dialogs" / "client-core"
DIALOGS = sorted(DIRECTORY.glob("*.txt"))
MAX_SPLITS = 800
"""Octets in one turn of the peer that are still split at every place."""


@pytest.fixture(params=DIALOGS, ids=lambda path: path.stem)
def dialog(request: pytest.FixtureRequest) -> list[Turn]:
    """Each dialog in turn."""
    return parse(request.param)


def test_whole(dialog: list[Turn]) -> None:
    hold(dialog, lambda said: iter([said]))


def test_octet_by_octet(dialog: list[Turn]) -> None:
    hold(dialog, lambda said: (bytes([octet]) for octet in said))


def test_split_everywhere(dialog: list[Turn]) -> None:
    longest = max(len(turn.said) for turn in dialog)
    for place in range(1, longest, 1 + longest // MAX_SPLITS):

        def cut(said: bytes, at: int = place) -> Iterator[bytes]:
            yield from (said[:at], said[at:])

        hold(dialog, cut)


def test_there_are_dialogs() -> None:
    assert len(DIALOGS) > 15

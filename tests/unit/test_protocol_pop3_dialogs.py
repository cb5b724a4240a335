"""The POP3 core holds the dialogs of tests/dialogs/pop3-core, however their octets are split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pop3_dialog import Dialog, Outcome, parse, play

DIALOGS = sorted((Path(__file__).parent.parent / "dialogs" / "pop3-core").glob("*.txt"))


@pytest.fixture(params=DIALOGS, ids=lambda path: path.stem)
def dialog(request: pytest.FixtureRequest) -> Dialog:
    path: Path = request.param
    return parse(path)


def _check(dialog: Dialog, outcome: Outcome) -> None:
    assert outcome.server.decode().splitlines() == dialog.server.decode().splitlines()
    assert outcome.server == dialog.server
    assert outcome.deleted == dialog.deleted
    assert outcome.closed == dialog.closed


def _splits(length: int) -> Iterator[int]:
    """Every place where a dialog of some length is split, and some where it is very long."""
    return iter(range(1, length, 1 if length < 2000 else length // 150))


def test_whole(dialog: Dialog) -> None:
    _check(dialog, play(dialog, dialog.client))


def test_split_anywhere(dialog: Dialog) -> None:
    for place, part in enumerate(dialog.client):
        for split in _splits(len(part)):
            before, after = dialog.client[:place], dialog.client[place + 1 :]
            _check(dialog, play(dialog, [*before, part[:split], part[split:], *after]))


def test_byte_by_byte(dialog: Dialog) -> None:
    octets = b"".join(dialog.client)
    _check(dialog, play(dialog, (octets[n : n + 1] for n in range(len(octets)))))


def test_dialogs_are_there() -> None:
    assert len(DIALOGS) >= 15


def test_top_stops_reading_early() -> None:
    dialog = parse(DIALOGS[0].parent / "top.txt")
    assert play(dialog, dialog.client).stopped_early >= 3

"""Every golden dialog, fed whole, split at every octet and octet by octet: one result."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from restante.protocol.smtp.server import Limits
from tests.support.dialog import Dialog, matches, parse
from tests.support.smtp_core import Record, run_core

DIRECTORY = Path(__file__).parents[1] / "dialogs" / "smtp-core"
DIALOGS = sorted(DIRECTORY.glob("*.txt"))
MAX_SPLITS = 2500
"""Octets sent by a dialog that is still split at every place."""


def hold(dialog: Dialog, blocks: Iterable[bytes]) -> Record:
    """The dialog held with a core."""
    return run_core(blocks, Limits(**dialog.limits), dialog.answers)


def check(dialog: Dialog, record: Record) -> None:
    """Compare all that was said and all that happened."""
    assert record.events == dialog.events
    assert len(record.lines) == len(dialog.expected), record.lines
    for pattern, line in zip(dialog.expected, record.lines, strict=True):
        assert matches(pattern, line), f"expected {pattern!r}, got {line!r}"


@pytest.fixture(params=DIALOGS, ids=lambda path: path.stem)
def dialog(request: pytest.FixtureRequest) -> Dialog:
    """Each dialog in turn."""
    return parse(request.param)


def test_whole(dialog: Dialog) -> None:
    check(dialog, hold(dialog, [dialog.sent]))


def test_octet_by_octet(dialog: Dialog) -> None:
    check(dialog, hold(dialog, (bytes([octet]) for octet in dialog.sent)))


def test_split_everywhere(dialog: Dialog) -> None:
    sent = dialog.sent
    step = 1 + len(sent) // MAX_SPLITS
    for cut in range(0, len(sent), step):
        check(dialog, hold(dialog, [sent[:cut], sent[cut:]]))


def test_there_are_dialogs() -> None:
    assert len(DIALOGS) > 15

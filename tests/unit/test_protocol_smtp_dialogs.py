"""Every golden dialog, fed whole, split at every octet and octet by octet: one result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pytest

from restante.protocol.smtp.profile import Extension, Limits, Profile
from tests.support.dialog import Dialog, matches, parse
from tests.support.smtp_core import HOST, Record, ScriptedDriver, run_driver

DIRECTORY = Path(__file__).parents[1] / "dialogs" / "smtp-core"
DIALOGS = sorted(DIRECTORY.glob("*.txt"))
LIMITS = {each.name for each in fields(Limits)}
SPLIT_EVERYWHERE = 600
"""Octets that are split at every place; if there are more, there is more of the same in them."""
FEW = 300
"""Places between the ends of lines at which very many octets are split."""


def hold(dialog: Dialog, blocks: Iterable[bytes]) -> Record:
    """The dialog held with a core."""
    return run_driver(ScriptedDriver(profile(dialog), dialog.answers, tls=is_tls(dialog)), blocks)


def profile(dialog: Dialog) -> Profile:
    """The server that the dialog wants."""
    said = dialog.limits
    limits = {name: said[name] for name in LIMITS if name in said}
    offered = {Extension.STARTTLS: said.get("starttls"), Extension.AUTH: said.get("auth")}
    return Profile(
        HOST,
        limits=Limits(**limits),
        extensions=tuple(each for each in Extension if offered.get(each, 1)),
        plaintext_auth=bool(said.get("plaintext_auth")),
        requires_auth=bool(said.get("requires_auth")),
    )


def is_tls(dialog: Dialog) -> bool:
    """Whether TLS began before the dialog did."""
    return bool(dialog.limits.get("tls"))


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
    check(dialog, hold(dialog, dialog.sent))


def test_octet_by_octet(dialog: Dialog) -> None:
    check(dialog, hold(dialog, (bytes([octet]) for octet in b"".join(dialog.sent))))


def cuts(part: bytes) -> Iterable[int]:
    """All places, or those about the ends of lines and some between them."""
    every = range(len(part))
    if len(part) <= SPLIT_EVERYWHERE:
        return every
    ends = [place for place in every if part[place] == ord("\n")]
    some = every[:: max(7, len(part) // FEW)]
    return {*some, *(cut for end in ends for cut in every[max(end - 3, 0) : end + 4])}


def test_split_everywhere(dialog: Dialog) -> None:
    for place, part in enumerate(dialog.sent):
        for cut in cuts(part):
            before, after = dialog.sent[:place], dialog.sent[place + 1 :]
            check(dialog, hold(dialog, [*before, part[:cut], part[cut:], *after]))


def test_there_are_dialogs() -> None:
    assert len(DIALOGS) > 15

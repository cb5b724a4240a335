"""What a campaign counts as a broken promise (tests/endurance)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.endurance.ledger import Copy, Ledger, TornError, content, read_copy

ANN = "ann@example.com"
RECEIVED = b"Received: from x ([127.0.0.1])\n\tby mx with ESMTP id 1k1abc;\n\tnow\n"
DIRECT = 'ts=1 level=info event=message_accepted session=1 id=1k1abc sender="" how=delivered s=1'
QUEUED = DIRECT.replace("delivered", "queued")


def as_stored(token: int) -> bytes:
    return RECEIVED + content(token, 1000).replace(b"\r\n", b"\n")


def maildir_with(directory: Path, *messages: bytes) -> Path:
    new = directory / "Maildir" / "new"
    new.mkdir(parents=True)
    for number, message in enumerate(messages):
        (new / str(number)).write_bytes(message)
    return directory / "Maildir"


def period(tmp_path: Path, *messages: bytes) -> Ledger:
    """Message 7 was acknowledged for Ann; these are in her mailbox."""
    ledger = Ledger(5, {7: (ANN,)})
    ledger.harvest(ANN, maildir_with(tmp_path, *messages))
    return ledger


def test_everything_there_once(tmp_path: Path) -> None:
    ledger = period(tmp_path, as_stored(7), as_stored(8))
    assert ledger.judge(DIRECT).faults == []
    assert not list((tmp_path / "Maildir" / "new").iterdir())


def test_a_lost_message(tmp_path: Path) -> None:
    assert period(tmp_path, as_stored(8)).judge(DIRECT).faults == [f"lost: 7 for {ANN}"]


def test_a_message_that_perhaps_was_deleted(tmp_path: Path) -> None:
    ledger = period(tmp_path)
    ledger.perhaps.add((7, ANN))
    assert ledger.judge(DIRECT).faults == []


def test_two_copies(tmp_path: Path) -> None:
    (fault,) = period(tmp_path, as_stored(7), as_stored(7)).judge(QUEUED).faults
    assert fault.startswith(f"doubled: 7 in {ANN}")


def test_a_deleted_message_that_is_there(tmp_path: Path) -> None:
    ledger = period(tmp_path, as_stored(7))
    ledger.fetched[7, ANN].append(Copy(7, "1k1abc"))
    (fault,) = ledger.judge(DIRECT).faults
    assert fault.startswith(f"doubled: 7 in {ANN}")


def test_a_deleted_message_that_the_queue_brings_again(tmp_path: Path) -> None:
    ledger = period(tmp_path, as_stored(7))
    ledger.fetched[7, ANN].append(Copy(7, "1k1abc"))
    verdict = ledger.judge(QUEUED)
    assert (verdict.faults, verdict.repeated) == ([], 1)


def test_a_message_of_a_former_period(tmp_path: Path) -> None:
    assert f"came back: 4 in {ANN}" in period(tmp_path, as_stored(4)).judge(DIRECT).faults


@pytest.mark.parametrize(
    "damage", [lambda m: m[:-30], lambda m: m.replace(b"xx", b"xy", 1), lambda _: b""]
)
def test_a_torn_message(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    faults = period(tmp_path, damage(as_stored(7))).judge(DIRECT).faults
    assert [fault.split(":")[0] for fault in faults] == ["torn", "lost"]


def test_a_message_by_pop3() -> None:
    assert read_copy(as_stored(9).replace(b"\n", b"\r\n")) == Copy(9, "1k1abc")


def test_no_message_at_all() -> None:
    with pytest.raises(TornError):
        read_copy(b"Subject: hello\n\nhello\n")

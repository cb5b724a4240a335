"""What the receiver says to somebody who has logged in, and to somebody who has not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.config.tree import Submission
from restante.envelope import NO_DSN, Origin
from restante.receiver import ServiceName
from restante.receiver.door import Receiver
from restante.routing.router import Router
from restante.spool import Spool
from tests.support.front_door import SETTINGS, Keeper, door, mail, peer

FROM_ANN = Address("ann", "example.com")


@pytest.mark.parametrize(
    ("service", "logged_in", "path", "told"),
    [
        ("submission", False, Address("ann", "example.com"), "530 5.7.0"),
        ("submission", False, NULL_REVERSE_PATH, "530 5.7.0"),
        ("submission", True, Address("ann", "example.com"), "250 2.1.0"),
        ("submission", True, Address("bob", "example.com"), "553 5.7.1"),
        ("submission", True, NULL_REVERSE_PATH, "250 2.1.0"),
        ("submission", True, Address("ann+bad", "example.com"), "553 5.1.8"),
        ("smtp", False, Address("bob", "example.com"), "250 2.1.0"),
        ("smtp", True, Address("bob", "example.com"), "553 5.7.1"),
        ("smtp", True, Address("ann", "example.com"), "250 2.1.0"),
    ],
)
async def test_mail(service: ServiceName, logged_in: bool, path: ReversePath, told: str) -> None:
    receiver = door()
    client = peer(receiver, service, logged_in=logged_in)
    reply, transaction = await mail(receiver, client, path)
    assert str(reply).startswith(told)
    assert (transaction is not None) is reply.is_success


async def test_a_user_may_send_anywhere_and_a_stranger_may_not() -> None:
    receiver = door()
    for logged_in, told in ((True, "250 2.1.5"), (False, "550 5.7.1")):
        client = peer(receiver, "smtp", logged_in=logged_in)
        _, transaction = await mail(receiver, client, Address("ann", "example.com"))
        assert transaction is not None
        (reply,) = await receiver.recipients(
            transaction, [(Address("far", "elsewhere.test"), NO_DSN)]
        )
        assert str(reply).startswith(told)


async def test_recipients_that_a_bug_leaves_without_an_answer_get_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def failing(*_: object) -> None:
        raise RuntimeError("a bug")

    receiver = door()
    _, transaction = await mail(receiver, peer(receiver, "smtp", logged_in=False), FROM_ANN)
    assert transaction is not None
    bob = Address("bob", "example.com")
    monkeypatch.setattr(Router, "route", failing)
    with pytest.raises(RuntimeError):
        await receiver.recipients(transaction, [(FROM_ANN, NO_DSN), (bob, NO_DSN)])
    assert not transaction.decided
    await receiver.recipients(transaction, [(FROM_ANN, NO_DSN)])
    with pytest.raises(RuntimeError):
        await receiver.recipients(transaction, [(FROM_ANN, NO_DSN), (bob, NO_DSN)])
    assert list(transaction.decided) == [FROM_ANN]


async def sent(
    receiver: Receiver,
    keeper: Keeper,
    message: bytes,
    tmp_path: Path,
    *,
    logged_in: bool = True,
    sender: ReversePath = FROM_ANN,
) -> bytes:
    """A message to ann as it is kept."""
    client = peer(receiver, "smtp", logged_in=logged_in)
    _, transaction = await mail(receiver, client, sender)
    assert transaction is not None
    await receiver.recipients(transaction, [(FROM_ANN, NO_DSN)])
    spool = Spool(str(tmp_path), 1000, 1000)
    await spool.write(message)
    try:
        origin = Origin("laptop.home", "192.0.2.7", "ESMTPSA")
        reply = await receiver.accept(transaction, origin, spool)
    finally:
        spool.close()
    assert reply.is_success
    return keeper.kept[-1].read()


@pytest.mark.parametrize(
    ("logged_in", "told", "begins"),
    [
        (True, False, b"Received: from client.invalid\n"),
        (True, True, b"Received: from laptop.home ([192.0.2.7])\n"),
        (False, False, b"Received: from laptop.home ([192.0.2.7])\n"),
    ],
)
async def test_where_a_user_is_stays_unsaid(
    tmp_path: Path, logged_in: bool, told: bool, begins: bytes
) -> None:
    keeper = Keeper()
    receiver = door(replace(SETTINGS, submission=Submission(received_client=told)), keeper)
    kept = await sent(receiver, keeper, b"Subject: hello\n\n", tmp_path, logged_in=logged_in)
    assert kept.startswith(begins + b"\tby mx.example.com with ESMTPSA id ")


async def test_a_sender_gets_its_domain_whoever_the_client_is() -> None:
    receiver = door()
    for logged_in in (True, False):
        client = peer(receiver, "smtp", logged_in=logged_in)
        _, transaction = await mail(receiver, client, Address("ann", ""))
        assert transaction is not None
        assert str(transaction.reverse_path) == "ann@example.com"


ADDED = rb"""Date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}
From: ann@example\.com
Message-ID: <[0-9a-z]{19}@mx\.example\.com>
"""
WHOLE = b"date: Thu, 1 Jan 1970 00:00:00 +0000\nFROM: boss@far.org\nMessage-id: <1@x>\n\nhello\n"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (WHOLE, re.escape(WHOLE)),
        (b"Subject: hello\n\nFrom: x\n", ADDED + b"Subject: hello\n\nFrom: x\n"),
        (b"From: x@y.org\n\nhello\n", ADDED.replace(b"From: ann@example\\.com\n", b"") + b"From: "),
        (b"\nhello\n", ADDED + b"\nhello\n"),
        (b"hello\n\nthere\n", ADDED + b"\nhello\n\nthere\n"),
        (b"", ADDED),
    ],
)
async def test_a_users_message_gets_the_fields_it_lacks(
    tmp_path: Path, message: bytes, expected: bytes
) -> None:
    keeper = Keeper()
    kept = await sent(door(recorder=keeper), keeper, message, tmp_path)
    own = kept.partition(b"\n\tfor <ann@example.com>;\n\t")[2].partition(b"\n")[2]
    assert re.match(expected, own), own


async def test_what_other_hosts_send_stays_as_it_is(tmp_path: Path) -> None:
    keeper = Keeper()
    kept = await sent(door(recorder=keeper), keeper, b"\nhello\n", tmp_path, logged_in=False)
    assert b"Message-ID" not in kept


async def test_the_author_of_a_notification_is_the_account(tmp_path: Path) -> None:
    keeper = Keeper()
    receiver = door(recorder=keeper)
    kept = await sent(receiver, keeper, b"\n", tmp_path, sender=NULL_REVERSE_PATH)
    assert b"\nFrom: ann@example.com\n" in kept

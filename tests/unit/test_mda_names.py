"""Names of deliveries: the same every time, different where they must be, fit for UIDL."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from restante.address import NULL_REVERSE_PATH
from restante.directory import Account
from restante.envelope import Envelope, queue_ids
from restante.mda import Delivery
from restante.mda.names import MAX_NAME, delivery_name

ENVELOPE = Envelope(next(queue_ids(3)), NULL_REVERSE_PATH, (), 1_700_000_000.9)
DELIVERY = Delivery(
    "/home/iain/Maildir", Account("iain", 1000, 1000, "/home/iain"), ("iain@example.com",)
)


def test_a_name_in_full() -> None:
    envelope = replace(ENVELOPE, queue_id="0abcdefghjkmnpqrstv")
    name = delivery_name(envelope, DELIVERY, "mx.example.com", 1234, 1300)
    pattern = r"1700000000\.0abcdefghjkmnpqrstv_[0-9a-f]{8}\.mx\.example\.com,S=1234,W=1300"
    assert re.fullmatch(pattern, name.full)
    assert name == delivery_name(envelope, DELIVERY, "mx.example.com", 1234, 1300)


def test_mailboxes_and_addresses_are_told_apart() -> None:
    deliveries = (
        DELIVERY,
        replace(DELIVERY, maildir="/home/paul/Maildir"),
        replace(DELIVERY, delivered_to=("iain@example.net",)),
    )
    assert len({delivery_name(ENVELOPE, each, "mx", 1, 1).stem for each in deliveries}) == 3


def test_a_message_is_known_by_its_flags_or_without() -> None:
    name = delivery_name(ENVELOPE, DELIVERY, "mx", 10, 11)
    assert name.is_borne_by(name.full)
    assert name.is_borne_by(f"{name.full}:2,RS")
    assert not name.is_borne_by(f"x{name.full}")
    assert not name.is_borne_by(f"{name.stem}x.mx")


def test_the_host_is_escaped() -> None:
    assert r".a\057b\072c,S" in delivery_name(ENVELOPE, DELIVERY, "a/b:c", 1, 1).full


def test_long_hosts_stay_apart() -> None:
    names = {
        delivery_name(ENVELOPE, DELIVERY, f"{'mail.' * 20}{end}", 1, 1).full for end in ("a", "b")
    }
    assert len(names) == 2


@given(
    host=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=255),
    size=st.integers(0, 10**9),
    lines=st.integers(0, 10**8),
)
def test_every_name_is_a_unique_id(host: str, size: int, lines: int) -> None:
    """Any host and size: 1 to 70 characters of 0x21 to 0x7E, no slash, no colon (RFC 1939 §7)."""
    name = delivery_name(ENVELOPE, DELIVERY, host, size, size + lines).full
    assert re.fullmatch(r"[!-~]+", name)
    assert not set("/:") & set(name)
    assert len(name) <= MAX_NAME

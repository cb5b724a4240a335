"""Who may relay, and which senders are refused."""

from __future__ import annotations

import pytest

from restante.address import NULL_REVERSE_PATH, Address
from restante.config.tree import Receiver
from restante.receiver.policy import Policy

POLICY = Policy(
    Receiver(
        relay_networks=("192.0.2.0/24", "2001:db8::/32"),
        badmailfrom=("Bad@example.com", "@spam.example", "@spähm.example", "a@xn--bro-hoa.test"),
    )
)


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        ("192.0.2.7", True),
        ("198.51.100.7", False),
        ("2001:db8::7", True),
        ("::1", False),
        ("", False),  # it was gone before its address could be asked for
    ],
)
def test_who_may_relay(peer: str, may: bool) -> None:
    assert POLICY.may_relay(peer) is may


@pytest.mark.parametrize(
    ("sender", "bad"),
    [
        (Address("bad", "example.com"), True),
        (Address("good", "example.com"), False),
        (Address("any", "spam.example"), True),
        (Address("any", "sub.spam.example"), False),
        (Address("any", "xn--sphm-moa.example"), True),
        (Address("any", "SPÄHM.example"), True),
        (Address("a", "büro.test"), True),
        (Address("b", "büro.test"), False),
        (NULL_REVERSE_PATH, False),
    ],
)
def test_bad_senders(sender: Address, bad: bool) -> None:
    assert POLICY.is_bad_sender(sender) is bad

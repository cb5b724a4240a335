"""Which protection a destination gets."""

from __future__ import annotations

import pytest

from restante.network import is_loopback
from restante.relay.routes import destination
from restante.relay.tls import TlsPolicies

POLICIES = TlsPolicies(
    {
        "example.net": "encrypt",
        ".example.net": "none",
        "bücher.example": "verify",
        "named.example": "may",
    },
    ["smart.example:587", "[127.0.0.1]:2525", "named.example:25"],
)


@pytest.mark.parametrize(
    ("lane", "policy"),
    [
        ("example.net", "encrypt"),
        ("sub.example.net", "none"),
        ("xn--bcher-kva.example", "verify"),
        ("example.org", "may"),
        ("[192.0.2.1]", "may"),
        ("example.net:25", "encrypt"),
        ("xn--bcher-kva.example:587", "verify"),
        ("bücher.example:587", "verify"),
        ("smart.example:587", "verify"),
        ("smart.example:25", "may"),
        ("smart.example", "may"),
        ("named.example:25", "may"),
        ("[127.0.0.1]:2525", "may"),
    ],
)
def test_the_most_exact_policy_counts(lane: str, policy: str) -> None:
    assert POLICIES.of(destination(lane)) == policy


def test_the_empty_key_is_for_all_others() -> None:
    policies = TlsPolicies({"": "encrypt", "example.net": "may"}, ["smart.example:587"])
    assert policies.of(destination("example.net")) == "may"
    assert policies.of(destination("smart.example:587")) == "encrypt"


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True)),
        *(("192.0.2.1", False), ("::ffff:192.0.2.1", False), ("x", False)),
    ],
)
def test_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback

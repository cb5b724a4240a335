"""How many connections a worker holds."""

from __future__ import annotations

from restante.net.server import ConnectionLimits
from restante.net.shares import Board


def limits_of(total: int, per_address: int) -> ConnectionLimits:
    return ConnectionLimits(total, per_address, Board(1).share(0), lambda: None)


def test_in_all_and_from_one_address() -> None:
    limits = limits_of(total=3, per_address=2)
    assert [limits.enter("a"), limits.enter("a")] == ["", ""]
    assert "from this address" in limits.enter("a")
    assert limits.enter("b") == ""
    assert limits.enter("c") == "too many connections"
    limits.leave("a")
    assert limits.enter("c") == ""
    assert limits.enter("a") == "too many connections"


def test_no_limit_for_one_address() -> None:
    limits = limits_of(total=100, per_address=0)
    assert all(limits.enter("a") == "" for _ in range(100))


def test_the_addresses_of_one_ipv6_customer_are_one_client() -> None:
    limits = limits_of(total=100, per_address=2)
    assert [limits.enter("2001:db8:1:2::1"), limits.enter("2001:db8:1:2:ffff::2")] == ["", ""]
    assert "from this address" in limits.enter("2001:db8:1:2::3")
    assert limits.enter("2001:db8:1:3::1") == ""
    limits.leave("2001:db8:1:2::1")
    assert limits.enter("2001:db8:1:2::3") == ""

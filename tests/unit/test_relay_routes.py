"""Where mail for a domain goes: qmail's precedence, and names for ways out that never collide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.config.nexthop import NextHop
from restante.relay.names import NoDomainName, to_ascii
from restante.relay.routes import ByMx, Routes, destination

ROUTES = Routes(
    {
        "example.net": "relay.example",
        ".example.net": "inside.example:26",
        ".deep.example.net": "",
        "bücher.example": "[192.0.2.7]",
        ".net": "[2001:DB8::1]:2525",
        "[192.0.2.9]": "127.0.0.1:2525",
        "": "Smart.Example:587",
    }
)


@pytest.mark.parametrize(
    ("domain", "lane"),
    [
        ("example.net", "relay.example:25"),
        ("a.example.net", "inside.example:26"),
        ("deep.example.net", "inside.example:26"),
        ("x.deep.example.net", "x.deep.example.net"),
        ("other.net", "[2001:db8::1]:2525"),
        ("bücher.example", "[192.0.2.7]:25"),
        ("xn--bcher-kva.example", "[192.0.2.7]:25"),
        ("[192.0.2.9]", "[127.0.0.1]:2525"),
        ("net", "smart.example:587"),
        ("example.org", "smart.example:587"),
    ],
)
def test_the_most_exact_route_counts(domain: str, lane: str) -> None:
    assert ROUTES.of(domain) == lane


def test_without_routes_a_domain_is_its_own_lane_in_a_labels() -> None:
    routes = Routes({})
    assert routes.of("example.net") == "example.net"
    assert routes.of("bücher.example") == "xn--bcher-kva.example"
    assert routes.of("[192.0.2.1]") == "[192.0.2.1]"


def test_an_empty_key_with_an_empty_value_is_no_route() -> None:
    assert Routes({"": ""}).of("example.net") == "example.net"


def test_a_domain_that_cannot_exist_keeps_its_name() -> None:
    assert Routes({}).of("\u0378.example") == "\u0378.example"


@pytest.mark.parametrize(
    ("lane", "leads"),
    [
        ("example.net", ByMx("example.net")),
        ("[192.0.2.1]", ByMx("[192.0.2.1]")),
        ("[ipv6:2001:db8::1]", ByMx("[ipv6:2001:db8::1]")),
        ("smart.example:587", NextHop("smart.example", 587, is_address=False)),
        ("[192.0.2.1]:25", NextHop("192.0.2.1", 25, is_address=True)),
        ("[2001:db8::1]:25", NextHop("2001:db8::1", 25, is_address=True)),
        ("no:lane", ByMx("no:lane")),
    ],
)
def test_a_lane_tells_where_it_leads(lane: str, leads: object) -> None:
    assert destination(lane) == leads
    assert str(leads) == lane


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("relay", "relay:25"),
        ("192.0.2.1", "[192.0.2.1]:25"),
        ("[IPv6:2001:DB8:0::1]:26", "[2001:db8::1]:26"),
        ("xn--bcher-kva.example:65535", "xn--bcher-kva.example:65535"),
    ],
)
def test_next_hops_are_written_in_one_form(text: str, written: str) -> None:
    assert str(NextHop.parse(text)) == written
    assert str(NextHop.parse(written)) == written


@pytest.mark.parametrize("text", ["", ":25", "a b", "a:0", "a:65536", "::1", "[a]", "1.2.3", "-"])
def test_what_is_no_next_hop(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|names) no"):
        NextHop.parse(text)


@pytest.mark.parametrize("name", ["example.com\u3002", "bücher.example\uff61", "\u3002"])
def test_a_name_that_ends_in_another_dot_cannot_exist(name: str) -> None:
    with pytest.raises(NoDomainName):
        to_ascii(name)


def test_labels_that_are_ascii_are_for_the_dns_to_judge() -> None:
    assert to_ascii("A_b.m\u00fcller.ab--c.example") == "a_b.xn--mller-kva.ab--c.example"


def test_a_name_that_is_too_long_in_a_labels_cannot_exist() -> None:
    with pytest.raises(NoDomainName):
        to_ascii(".".join(["\u00e9" * 20] * 12))


@given(st.text())
def test_any_name_has_a_labels_or_cannot_exist(name: str) -> None:
    """Nothing but NoDomainName is raised, and the result is ASCII without capitals."""
    try:
        ascii_name = to_ascii(name)
    except NoDomainName:
        return
    assert ascii_name.isascii()
    assert ascii_name == ascii_name.lower()

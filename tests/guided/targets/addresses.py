"""Addresses, domains and networks, whoever wrote them."""

from __future__ import annotations

import contextlib
import ipaddress

from restante.address import (
    MAX_DOMAIN,
    MAX_LOCAL_PART,
    Address,
    AddressSyntaxError,
    check_domain,
    dash_prefixes,
    domain_keys,
    fold,
    sender_for,
    shown,
    split_subaddress,
)
from restante.address_syntax import split_mailbox
from restante.config.nexthop import NextHop
from restante.config.tree import HostPort
from restante.labels import MAX_FORMS, forms, in_a_labels, name_forms, name_in_a_labels
from restante.network import network_of, plain_address
from restante.receiver.literals import Literals
from restante.relay.names import NoDomainName, to_ascii
from tests.guided.target import Target, text_of


def address(data: bytes) -> None:
    """An address is refused, or is the same when it is written and read again."""
    text = text_of(data)
    try:
        parsed = Address.parse(text)
    except AddressSyntaxError:
        _is_refused(text)
        return
    local, domain = split_mailbox(text)
    assert parsed == Address(local, fold(domain)), "the short way and the long one"
    assert len(parsed.local.encode()) <= MAX_LOCAL_PART
    assert len(parsed.domain.encode()) <= MAX_DOMAIN
    assert str(parsed).isprintable()
    assert Address.parse(parsed.to_mailbox()) == parsed
    assert Address.from_stored(str(parsed)) == parsed
    assert shown(str(parsed)) == parsed.to_mailbox()
    assert fold(parsed.folded) == parsed.folded
    assert next(iter(dash_prefixes(parsed.local)))[0] == parsed.local
    for user, extension in dash_prefixes(parsed.local):
        assert parsed.local in (user, f"{user}-{extension}")
    tagged = split_subaddress(parsed.local, "+")
    assert tagged is None or "+".join(tagged) == parsed.local
    for key in domain_keys(parsed.domain):
        assert parsed.domain.endswith(key)
    sender_for(f"list-@{parsed.domain}-@[]", parsed)


def _is_refused(text: str) -> None:
    try:
        split_mailbox(text)
    except AddressSyntaxError:
        return
    raise AssertionError("the long way takes it")


def stored_address(data: bytes) -> None:
    """What stands in a row is shown without an exception, whatever it is."""
    text = text_of(data)
    stored = Address.from_stored(text)
    assert str(stored) == text or text.endswith("@")
    shown(text)
    stored.to_path()


def domain(data: bytes) -> None:
    """A domain is refused, or folded; its forms are few, and those of each form are the same."""
    text = text_of(data)
    try:
        checked = check_domain(text)
    except AddressSyntaxError:
        return
    assert check_domain(checked) == checked == fold(text)
    try:
        Address.parse(f"a@{text}")
    except AddressSyntaxError as error:
        raise AssertionError("a domain that no address can have") from error
    found = forms(checked)
    assert found[0] == checked
    assert len(found) == len(set(found)) <= MAX_FORMS
    assert in_a_labels(in_a_labels(checked)) == in_a_labels(checked)
    assert in_a_labels(checked) in found
    for form in found:
        assert len(form.encode()) > MAX_DOMAIN or check_domain(form) == form
    assert name_forms(f"a@{checked}") == tuple(f"a@{form}" for form in found)
    assert name_in_a_labels(f"a@{checked}") == f"a@{in_a_labels(checked)}"
    with contextlib.suppress(NoDomainName):
        assert check_domain(to_ascii(checked)).isascii()


def any_name(data: bytes) -> None:
    """Whatever a client calls a host or itself, it has forms, and no exception comes of it."""
    text = text_of(data)
    folded = fold(text)
    assert folded in forms(folded)
    assert folded in name_forms(folded)
    name_in_a_labels(folded)
    network = network_of(plain_address(text))
    assert network_of(network.narrow.removesuffix("/64")).wide == network.wide
    literals = Literals("example.com")
    resolved = literals.resolved(Address("a", folded))
    assert resolved.domain in (folded, "example.com")


def next_hop(data: bytes) -> None:
    """A next hop or a listener is refused, or the same after it was written and read."""
    text = text_of(data)
    try:
        hop = NextHop.parse(text)
    except ValueError:
        pass
    else:
        assert NextHop.parse(str(hop)) == hop
        assert 0 < hop.port < 65536
        assert not hop.is_address or ipaddress.ip_address(hop.host)
    try:
        listener = HostPort.parse(text)
    except ValueError:
        return
    assert HostPort.parse(str(listener)) == listener


ADDRESSES = (
    b"ann@example.com", b'"a b\\"c"@example.com', b"ann", b"a.b+c@x-y.example", b"a@[192.0.2.1]",
    b"\xc3\xa9@m\xc3\xbcller.example", b"postmaster", b'"a@b"@c.example', b"a-b-c@d.e",
)  # fmt: skip
DOMAINS = (
    b"example.com", b"m\xc3\xbcller.example", b"xn--mller-kva.example", b"[192.0.2.1]",
    b"[IPv6:2001:db8::1]", b"\xd7\xa9.example", b"xn--a.b", b"faSS.de", b"fa\xc3\x9f.de",
    b"\xe3\x80\x82.example", b"a\xe2\x80\x8db.c",
)  # fmt: skip
WORDS = (
    b"@", b".", b'"', b"\\", b"-", b"+", b"xn--", b"\xc3\xa9", b"\xc3\x9f", b"[", b"]", b"IPv6:",
    b"::ffff:", b"\xe3\x80\x82", b"\xe2\x80\x8d", b"\xc2\xa0", b"\xff", b"%eth0", b"192.0.2.1",
)  # fmt: skip
HOPS = (b"mx.example:25", b"[192.0.2.1]:2525", b"[IPv6:::1]", b"[::1]:25", b"192.0.2.1", b"a:0")

TARGETS = (
    Target(address, ADDRESSES, WORDS, longest=300),
    Target(stored_address, (*ADDRESSES, b"a@"), WORDS, longest=300),
    Target(domain, DOMAINS, WORDS, longest=300),
    Target(any_name, (*DOMAINS, b"::ffff:192.0.2.1", b"fe80::1%eth0"), WORDS, longest=300),
    Target(next_hop, HOPS, WORDS, longest=100),
)

"""Trace fields, queue ids and contents."""

from __future__ import annotations

import functools
import os
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from restante.address import NULL_REVERSE_PATH, Address
from restante.envelope import (
    Content,
    Origin,
    delivered_to_field,
    invocation_field,
    memory_content,
    queue_ids,
    received_field,
    received_from,
    return_path_field,
)
from tests.support.contents import spooled_content

AT = 1_795_464_000.0
IAIN = Address("iain", "example.com")
ANN = Address("ann", "example.com")


def received(origin: Origin, *recipients: Address) -> str:
    field = received_field(origin, "mx.example.com", "id1", recipients, AT)
    assert field.endswith(b"\n")
    assert b"\r" not in field
    text: str = message_from_bytes(field + b"\n")["Received"]
    return " ".join(text.split())


def test_received_names_the_client_and_its_address() -> None:
    field = received(Origin("client.example.net", "192.0.2.1", "ESMTP"), IAIN)
    assert field.startswith(
        "from client.example.net ([192.0.2.1]) by mx.example.com with ESMTP id id1"
        " for <iain@example.com>; "
    )
    assert parsedate_to_datetime(field.partition("; ")[2]).timestamp() == AT


@pytest.mark.parametrize(
    ("helo", "written"),
    [
        ("a;b(", "a?b?"),
        ('<x@[y]:"z\\,)>', "?x??y???z????"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("[(]", "???"),
        ("under_score.[x", "under_score.?x"),
    ],
)
def test_received_keeps_its_form_whatever_a_client_calls_itself(helo: str, written: str) -> None:
    field = received_field(Origin(helo, "192.0.2.1", "ESMTP"), "mx", "id1", (IAIN,), AT)
    assert field.startswith(f"Received: from {written} ([192.0.2.1])\n\tby mx ".encode())
    assert received_from(field) == f"{written} (192.0.2.1)"


def test_received_tells_no_recipient_of_another() -> None:
    field = received(Origin("client.example.net", "192.0.2.1", "ESMTP"), IAIN, ANN)
    assert " for " not in field


def test_received_has_a_domain_in_a_labels_where_the_recipient_is_ascii_then() -> None:
    origin = Origin("c", "192.0.2.1", "UTF8SMTP")
    field = received_field(origin, "mx", "id1", (Address("a b", "müller.example"),), AT)
    assert b'\n\tfor <"a b"@xn--mller-kva.example>;' in field


def test_received_names_no_recipient_for_whom_alone_the_header_would_be_utf8() -> None:
    field = invocation_field(1, "mx", "id1", (Address("jürgen", "müller.example"),), AT)
    assert field.startswith(b"Received: by mx (invoked by uid 1)\n\tid id1;\n\t")


def test_received_from_ipv6_and_from_here() -> None:
    assert "([IPv6:2001:db8::1])" in received(Origin("c", "2001:db8::1", "SMTP"), IAIN)
    assert received(Origin("", "", "SMTP"), IAIN).startswith("from localhost by")


@pytest.mark.parametrize(
    ("origin", "client"),
    [
        (Origin("c.example", "192.0.2.1", "SMTP"), "c.example (192.0.2.1)"),
        (Origin("c.example", "2001:db8::1", "ESMTP"), "c.example (2001:db8::1)"),
        (Origin("[192.0.2.9]", "192.0.2.1", "ESMTP"), "[192.0.2.9] (192.0.2.1)"),
        (Origin("", "192.0.2.1", "SMTP"), "unknown (192.0.2.1)"),
        (Origin("", "", "SMTP"), ""),
    ],
)
def test_the_client_is_found_in_its_received_field(origin: Origin, client: str) -> None:
    trace = received_field(origin, "mx.example.com", "id1", (IAIN,), AT)
    assert received_from(trace) == client
    assert received_from(b"X-Other: field\n" + trace) == ""


def test_delivery_fields() -> None:
    assert return_path_field(NULL_REVERSE_PATH) == b"Return-Path: <>\n"
    assert return_path_field(Address("a b", "x.y")) == b'Return-Path: <"a b"@x.y>\n'
    assert delivered_to_field("iain@example.com") == b"Delivered-To: iain@example.com\n"


def test_queue_ids_are_unique_sorted_and_of_one_length() -> None:
    """The clock stands still, and two workers count at the same time."""
    ids = [next(each) for each in [queue_ids(0, lambda: 10**18), queue_ids(1, lambda: 10**18)]]
    one = queue_ids(3, lambda: 10**18)
    ids += [next(one) for _ in range(1000)]
    assert len(set(ids)) == len(ids)
    assert {len(each) for each in ids} == {19}
    later = next(queue_ids(0, lambda: 10**18 + 1000))
    assert later > max(ids)


def test_queue_ids_tell_the_time_and_the_count() -> None:
    """Microseconds in base 32, without i, l, o and u; then how many came before."""
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    times = [0, 1, 1023, 1024, 2**20 - 1, 2**20, 1_700_000_000_123_456, 2**55 - 1, 2**20 - 1]
    clock = iter(times)
    ids = queue_ids(33, lambda: 1000 * next(clock))
    for count, time in enumerate(times):
        number = functools.reduce(
            lambda high, low: 32 * high + digits.index(low), next(ids)[:15], 0
        )
        assert number == (time << 20) + (count << 10) + 33


def test_queue_ids_of_machines_differ() -> None:
    """Same slot, same moment, same count: five alike are drawn once in 2**80 times."""
    assert len({next(queue_ids(0, lambda: 10**18)) for _ in range(5)}) > 1


def test_contents_know_their_sizes(tmp_path: Path) -> None:
    body = b"Subject: x\n\nline\n" * 10
    spool = tmp_path / "body"
    spool.write_bytes(body)
    facts = memory_content(b"", body).facts
    for content in (
        memory_content(b"Received: x\n", body),
        spooled_content(b"Received: x\n", str(spool), body.count(b"\n"), facts),
    ):
        assert content.read() == b"Received: x\n" + body
        assert content.size == len(content.read())
        assert content.lines == content.read().count(b"\n")


def test_a_content_by_descriptor_is_read_from_its_start_every_time(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"body\n" * 100_000)
    with open(tmp_path / "body", "rb") as body:
        body.seek(7)
        content = Content(b"trace\n", body.fileno(), 500_000, 100_000)
        assert content.read() == content.read() == b"trace\n" + b"body\n" * 100_000
        assert os.lseek(body.fileno(), 0, os.SEEK_CUR) == 7
        os.truncate(body.name, 300_000)
        with pytest.raises(OSError, match="a spooled body is 200000 octets shorter than it was"):
            content.read()

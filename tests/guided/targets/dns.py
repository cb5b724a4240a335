"""What the DNS answers, by way of dnspython."""

from __future__ import annotations

import asyncio
from typing import Any

import dns.asyncresolver
import dns.message
import dns.nameserver

from restante.relay.lookup import Answer, CannotTell, Dns, NoSuchName, Records
from restante.relay.resolver import _parsed
from tests.guided.target import Choices, Target

KINDS = ("MX", "A", "AAAA")
NAME = "example.com"


class _Server(dns.nameserver.Nameserver):
    """Answers every question with the same octets, but for the id, which must be that of it."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def __str__(self) -> str:
        return "Do53:192.0.2.53@53"

    def kind(self) -> str:
        """As dnspython names it."""
        return "Do53"

    def is_always_max_size(self) -> bool:
        """As with TCP: nothing is asked twice for its size."""
        return True

    def answer_nameserver(self) -> str:
        """Who has answered."""
        return "192.0.2.53"

    def answer_port(self) -> int:
        """Where."""
        return 53

    async def async_query(
        self, request: dns.message.QueryMessage, *_: Any, **__: Any
    ) -> dns.message.Message:
        """The answer; raises whatever dnspython makes of nonsense."""
        octets = request.id.to_bytes(2) + self._octets
        response = dns.message.from_wire(octets)
        if not request.is_response(response):
            raise dns.exception.FormError
        return response


class _Source:
    """One server, asked once."""

    def __init__(self, octets: bytes) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = [_Server(octets)]
        self._resolver.retry_servfail = False

    def resolver(self) -> dns.asyncresolver.Resolver:
        """As those of Dns have it."""
        return self._resolver


def dns_answer(data: bytes) -> None:
    """Whatever a server of the DNS answers: records, no such name, or that it cannot be known."""
    choices = Choices(data)
    kind = choices.one_of(KINDS)
    found = asyncio.run(_asked(kind, choices.rest))
    match found:
        case Records(values):
            if kind == "MX":
                assert all(0 <= preference < 65536 for preference, _ in _parsed(values))
        case CannotTell(why):
            assert why.startswith(NAME)
        case _:
            assert isinstance(found, NoSuchName)


async def _asked(kind: Any, octets: bytes) -> Answer:
    asking = Dns()
    asking._source = _Source(octets)  # type: ignore[assignment]
    return await asking.ask(NAME, kind)


def _response(kind: int, rcode: int, *records: bytes) -> bytes:
    question = b"\7example\3com\0" + kind.to_bytes(2) + b"\0\1"
    head = b"\x81" + bytes([0x80 | rcode]) + b"\0\1" + len(records).to_bytes(2) + bytes(4)
    return head + question + b"".join(records)


def _record(kind: int, octets: bytes) -> bytes:
    return b"\xc0\x0c" + kind.to_bytes(2) + b"\0\1\0\0\0\x3c" + len(octets).to_bytes(2) + octets


MX, A, AAAA, CNAME, SOA = 15, 1, 28, 5, 6
TARGETS = (
    Target(
        dns_answer,
        [
            b"\0" + _response(MX, 0, _record(MX, b"\0\x0a\2mx\xc0\x0c"), _record(MX, b"\0\0\0")),
            b"\1" + _response(A, 0, _record(A, b"\xc0\0\2\1")),
            b"\2" + _response(AAAA, 0, _record(CNAME, b"\1x\xc0\x0c")),
            b"\1" + _response(A, 3),
            b"\0" + _response(MX, 2),
        ],
        (
            b"\xc0\x0c",
            b"\7example\3com\0",
            b"\0\x0f\0\1",
            b"\0\5\0\1",
            b"\0\6\0\1",
            b"\0\1",
            b"\1.",
        ),
        longest=300,
    ),
)

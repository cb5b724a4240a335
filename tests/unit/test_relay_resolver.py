"""Where mail for a domain is offered, against a DNS server that speaks real packets."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import dns.asyncresolver
import dns.exception
import pytest

from restante.config.tree import DAY, HOUR, HostPort
from restante.relay.here import Here
from restante.relay.lookup import CannotTell, Dns, Kind, NoSuchName, Records
from restante.relay.resolver import (
    MAX_ADDRESSES,
    MAX_EXCHANGERS,
    MAX_KNOWN,
    Endpoint,
    Resolved,
    Resolver,
)
from restante.relay.routes import destination
from restante.status import PermanentFailure, TemporaryFailure
from tests.support.nameserver import Zone, nameserver
from tests.unit.test_relay_cache import Ticks

HERE = Here(["mx.here.example", "hélo.example"], [HostPort("127.0.0.1", 25)])
SILENT = "dns.silent"


@pytest.fixture
def zone() -> Zone:
    return Zone()


@pytest.fixture
def server(zone: Zone) -> Iterator[HostPort]:
    with nameserver(zone) as address:
        yield address


async def resolve(server: HostPort, lane: str) -> Resolved:
    resolver = Resolver(Dns([server]), lambda: HERE, shuffle=lambda names: names.sort())
    return await resolver.resolve(destination(lane))


def addresses(resolved: Resolved) -> list[str]:
    assert isinstance(resolved, tuple), resolved
    return [f"{each.host} {each.where}" for each in resolved]


def failure(resolved: Resolved) -> tuple[bool, str]:
    """Whether it is for good, and its enhanced status."""
    assert isinstance(resolved, TemporaryFailure | PermanentFailure), resolved
    return isinstance(resolved, PermanentFailure), resolved.reply.enhanced


# Mail exchangers


async def test_exchangers_by_preference(zone: Zone, server: HostPort) -> None:
    zone.records = {
        ("example.net", "MX"): ["20 late.example.", "5 First.example.", "100 last.example."],
        ("first.example", "A"): ["192.0.2.1"],
        ("late.example", "A"): ["192.0.2.2"],
        ("last.example", "A"): ["192.0.2.3"],
    }
    assert addresses(await resolve(server, "example.net")) == [
        "first.example 192.0.2.1",
        "late.example 192.0.2.2",
        "last.example 192.0.2.3",
    ]


async def test_exchangers_of_one_preference_are_shuffled(zone: Zone, server: HostPort) -> None:
    zone.records = {("example.net", "MX"): ["10 a.example.", "10 b.example.", "5 c.example."]}
    for name in "abc":
        zone.records[f"{name}.example", "A"] = ["192.0.2.1"]
    seen: list[list[str]] = []

    def backwards(names: list[str]) -> None:
        names.sort(reverse=True)
        seen.append(list(names))

    resolver = Resolver(Dns([server]), lambda: HERE, shuffle=backwards)
    resolved = await resolver.resolve(destination("example.net"))
    assert [each.split()[0] for each in addresses(resolved)] == [
        "c.example",
        "b.example",
        "a.example",
    ]
    assert seen[:2] == [["c.example"], ["b.example", "a.example"]]


async def test_both_families_in_turns(zone: Zone, server: HostPort) -> None:
    zone.records = {
        ("example.net", "A"): ["192.0.2.1", "192.0.2.2"],
        ("example.net", "AAAA"): ["2001:db8::1"],
    }
    assert addresses(await resolve(server, "example.net")) == [
        "example.net 2001:db8::1",
        "example.net 192.0.2.1",
        "example.net 192.0.2.2",
    ]


async def test_addresses_of_a_family_are_shuffled_each_time(zone: Zone, server: HostPort) -> None:
    """Be the first ones dead: who tries again comes to another one, of however many."""
    zone.records = {
        ("example.net", "A"): [f"192.0.2.{number}" for number in range(1, 10)],
        ("example.net", "AAAA"): [f"2001:db8::{number}" for number in range(1, 10)],
    }
    resolver = Resolver(Dns([server]), lambda: HERE, shuffle=random.Random(1).shuffle)
    found = [await resolver.resolve(destination("example.net")) for _ in range(30)]
    tried = [addresses(each) for each in found]
    assert all(["::" in each for each in some] == [True, False] * 2 for some in tried)
    assert len({each for some in tried for each in some}) == 18
    assert zone.asked("example.net", "A") == 1, "what the DNS said is kept as it was"


async def test_aliases_are_followed(zone: Zone, server: HostPort) -> None:
    zone.records = {
        ("www.example.net", "CNAME"): ["example.net."],
        ("example.net", "MX"): ["10 mx.example.net."],
        ("mx.example.net", "CNAME"): ["host.example.net."],
        ("host.example.net", "A"): ["192.0.2.1"],
    }
    assert addresses(await resolve(server, "www.example.net")) == ["mx.example.net 192.0.2.1"]


async def test_a_domain_beyond_ascii(zone: Zone, server: HostPort) -> None:
    zone.records = {("xn--bcher-kva.example", "A"): ["192.0.2.1"]}
    assert addresses(await resolve(server, "bücher.example")) == ["xn--bcher-kva.example 192.0.2.1"]


async def test_numbers_are_bounded(zone: Zone, server: HostPort) -> None:
    names = [f"mx{number:02}.example" for number in range(50)]
    zone.records = {("example.net", "MX"): [f"{n} {name}." for n, name in enumerate(names)]}
    for name in names:
        zone.records[name, "A"] = [f"192.0.2.{number}" for number in range(1, 20)]
    resolved = addresses(await resolve(server, "example.net"))
    assert len(resolved) == MAX_EXCHANGERS * MAX_ADDRESSES
    assert resolved[MAX_ADDRESSES].startswith("mx01.example ")
    assert sum(kind == "A" for _, kind, _ in zone.questions) == MAX_EXCHANGERS


async def test_an_answer_that_is_too_long_for_udp(zone: Zone, server: HostPort) -> None:
    zone.records = {("example.net", "A"): ["192.0.2.1"]}
    zone.truncated = {"example.net"}
    assert addresses(await resolve(server, "example.net")) == ["example.net 192.0.2.1"]
    assert ("example.net", "A", "tcp") in zone.questions


# What does not exist, and what cannot be known


async def test_a_null_mx_is_permanent(zone: Zone, server: HostPort) -> None:
    zone.records = {("example.net", "MX"): ["0 ."], ("example.net", "A"): ["192.0.2.1"]}
    resolved = await resolve(server, "example.net")
    assert failure(resolved) == (True, "5.1.10")
    assert isinstance(resolved, PermanentFailure)
    assert resolved.reply.code == 556


async def test_a_root_among_others_is_no_null_mx(zone: Zone, server: HostPort) -> None:
    """RFC 7505 §3: a null MX is the only one."""
    zone.records = {
        ("example.net", "MX"): ["0 .", "10 mx.example."],
        ("mx.example", "A"): ["192.0.2.1"],
    }
    assert addresses(await resolve(server, "example.net")) == ["mx.example 192.0.2.1"]


@pytest.mark.parametrize(
    ("lane", "permanent", "status"),
    [
        ("nowhere.example", True, "5.1.2"),
        ("\u0378.example", True, "5.1.2"),
        ("no-address.example", True, "5.4.4"),
        ("dangling.example", True, "5.4.4"),
        ("failing.example", False, "4.4.3"),
        ("half-failing.example", False, "4.4.3"),
        ("smart.example:25", False, "4.4.4"),
        ("no-address.example:25", False, "4.4.4"),
        ("failing.example:25", False, "4.4.3"),
        ("a" * 64 + ".example", True, "5.1.2"),
    ],
)
async def test_what_has_no_hosts(
    zone: Zone, server: HostPort, lane: str, permanent: bool, status: str
) -> None:
    zone.records = {
        ("no-address.example", "TXT"): ["nothing"],
        ("dangling.example", "MX"): ["10 gone.example."],
        ("half-failing.example", "MX"): ["10 gone.example.", "20 failing.example."],
    }
    zone.failing = {"failing.example"}
    assert failure(await resolve(server, lane)) == (permanent, status)


async def test_one_exchanger_whose_name_fails_does_not_matter(zone: Zone, server: HostPort) -> None:
    zone.records = {
        ("example.net", "MX"): ["10 failing.example.", "20 mx.example."],
        ("mx.example", "A"): ["192.0.2.1"],
    }
    zone.failing = {"failing.example"}
    assert addresses(await resolve(server, "example.net")) == ["mx.example 192.0.2.1"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: it is not worth waiting."""
    monkeypatch.setattr("restante.relay.lookup.LOOKUP_TIMEOUT", 0.3)


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_is_silent(zone: Zone, server: HostPort) -> None:
    zone.silent = {"example.net"}
    resolved = await resolve(server, "example.net")
    assert failure(resolved) == (False, "4.4.3")
    assert isinstance(resolved, TemporaryFailure)
    assert resolved.detail == f"example.net MX: 127.0.0.1 port {server.port} is silent"


@pytest.mark.usefixtures("impatient")
async def test_no_server_at_all() -> None:
    assert failure(await resolve(HostPort("127.0.0.1", 1), "example.net")) == (False, "4.4.3")


# Address literals and routes


@pytest.mark.parametrize(
    ("lane", "found"),
    [
        ("[192.0.2.1]", "[192.0.2.1] 192.0.2.1"),
        ("[ipv6:2001:db8::1]", "[ipv6:2001:db8::1] 2001:db8::1"),
        ("[192.0.2.1]:2525", "[192.0.2.1] 192.0.2.1:2525"),
        ("[2001:db8::1]:26", "[2001:db8::1] [2001:db8::1]:26"),
        ("[127.0.0.1]:25", "[127.0.0.1] 127.0.0.1"),
        ("smart.example:587", "smart.example 192.0.2.3:587"),
    ],
)
async def test_literals_and_routes(zone: Zone, server: HostPort, lane: str, found: str) -> None:
    """The MX records of a route's host are not asked for, and its word is obeyed."""
    zone.records = {
        ("smart.example", "A"): ["192.0.2.3"],
        ("smart.example", "MX"): ["0 elsewhere.example."],
    }
    assert addresses(await resolve(server, lane)) == [found]
    assert zone.asked("smart.example", "MX") == 0


@pytest.mark.parametrize("literal", ["[nonsense]", "[ipv6:::1%1]", "[ipv6:fe80::1%eth0]"])
async def test_a_literal_that_is_none(server: HostPort, literal: str) -> None:
    """A zone is known to one host only (RFC 4007 §11.2)."""
    assert failure(await resolve(server, literal)) == (True, "5.1.2")


# This host itself


@pytest.mark.parametrize("best", ["mx.here.example.", "XN--hlo-bma.example.", "loop.example."])
async def test_a_best_exchanger_that_is_this_host(zone: Zone, server: HostPort, best: str) -> None:
    zone.records = {
        ("example.net", "MX"): [f"10 {best}", "20 mx.example."],
        ("mx.example", "A"): ["192.0.2.1"],
        ("loop.example", "A"): ["127.0.0.1"],
        (best.lower().rstrip("."), "TXT"): ["here"],
    }
    assert failure(await resolve(server, "example.net")) == (True, "5.4.6")


async def test_only_what_is_better_than_this_host_is_tried(zone: Zone, server: HostPort) -> None:
    zone.records = {
        ("example.net", "MX"): [
            "5 best.example.",
            "10 mx.here.example.",
            "10 same.example.",
            "20 worse.example.",
        ]
    }
    for name in ("best", "same", "worse"):
        zone.records[f"{name}.example", "A"] = ["192.0.2.1"]
    assert addresses(await resolve(server, "example.net")) == ["best.example 192.0.2.1"]


async def test_this_host_is_found_among_more_exchangers_than_are_looked_up(
    zone: Zone, server: HostPort
) -> None:
    """Else its mail would go to its equals, and to worse ones, which may send it back."""
    names = [f"a{number}.example" for number in range(MAX_EXCHANGERS)]
    zone.records = {
        ("example.net", "MX"): [
            "5 best.example.",
            *[f"10 {name}." for name in names],
            "10 mx.here.example.",
            "20 worse.example.",
        ]
    }
    for name in ("best.example", *names, "worse.example"):
        zone.records[name, "A"] = ["192.0.2.1"]
    assert addresses(await resolve(server, "example.net")) == ["best.example 192.0.2.1"]
    del zone.records["best.example", "A"]
    assert failure(await resolve(server, "example.net")) == (True, "5.4.6")


@pytest.mark.parametrize(("kind", "own"), [("A", "127.0.0.1"), ("AAAA", "::ffff:127.0.0.1")])
async def test_this_host_is_found_among_more_addresses_than_are_tried(
    zone: Zone, server: HostPort, kind: str, own: str
) -> None:
    """Though it comes last, by chance; else its mail would go to its siblings, and round."""
    zone.records = {
        ("example.net", "MX"): ["10 best.example.", "20 backup.example.", "30 worse.example."],
        ("best.example", "A"): ["192.0.2.1"],
        ("backup.example", "A"): [f"192.0.2.{number}" for number in range(11, 16)],
        ("backup.example", "AAAA"): [f"2001:db8::{number}" for number in range(11, 16)],
        ("worse.example", "A"): ["192.0.2.2"],
    }
    zone.records["backup.example", kind].append(own)
    resolver = Resolver(
        Dns([server]), lambda: HERE, shuffle=lambda names: names.sort(key=own.__eq__)
    )
    resolved = await resolver.resolve(destination("example.net"))
    assert addresses(resolved) == ["best.example 192.0.2.1"]


async def test_so_many_addresses_are_looked_at_and_no_more(zone: Zone, server: HostPort) -> None:
    """Each is a question to the kernel, and whoever has a domain may give it thousands."""

    class Counting(Here):
        asked = 0

        def takes_mail_at(self, address: str, port: int) -> bool:
            self.asked += 1
            return super().takes_mail_at(address, port)

    here = Counting([], [HostPort("127.0.0.1", 25)])
    zone.records = {
        ("example.net", "A"): [f"192.0.2.{number}" for number in range(60)],
        ("example.net", "AAAA"): [f"2001:db8::{number}" for number in range(60)],
    }
    await Resolver(Dns([server]), lambda: here).resolve(destination("example.net"))
    assert here.asked == MAX_KNOWN


async def test_a_better_exchanger_nobody_can_tell_of_is_no_loop(
    zone: Zone, server: HostPort
) -> None:
    """This host is the second best: the mail waits for the best one, and is not returned."""
    zone.records = {("example.net", "MX"): ["10 best.example.", "20 mx.here.example."]}
    zone.failing = {"best.example"}
    assert failure(await resolve(server, "example.net")) == (False, "4.4.3")


async def test_a_better_exchanger_without_an_address_leaves_this_host_as_the_best(
    zone: Zone, server: HostPort
) -> None:
    zone.records = {("example.net", "MX"): ["10 best.example.", "20 mx.here.example."]}
    assert failure(await resolve(server, "example.net")) == (True, "5.4.6")


async def test_a_literal_of_this_host(server: HostPort) -> None:
    assert failure(await resolve(server, "[127.0.0.1]")) == (True, "5.4.6")


@pytest.mark.parametrize(
    ("address", "port", "listener", "reached"),
    [
        ("127.0.0.1", 25, "127.0.0.1", True),
        ("127.0.0.1", 26, "127.0.0.1", False),
        ("127.0.0.2", 25, "127.0.0.1", False),
        ("127.0.0.2", 25, "0.0.0.0", True),
        ("::ffff:127.0.0.1", 25, "0.0.0.0", True),
        ("0.0.0.0", 25, "127.0.0.1", True),
        ("192.0.2.1", 25, "0.0.0.0", False),
        ("127.0.0.1", 25, "::", True),
        ("2001:db8::1", 25, "::", False),
        ("127.0.0.1", 25, "localhost", False),
    ],
)
def test_which_connections_reach_this_host(
    address: str, port: int, listener: str, reached: bool
) -> None:
    assert Here([], [HostPort(listener, 25)]).takes_mail_at(address, port) is reached


# What is remembered


async def test_answers_are_remembered_as_long_as_their_ttl_says(
    zone: Zone, server: HostPort
) -> None:
    zone.records = {("example.net", "A"): ["192.0.2.1"]}
    ticks = Ticks()
    dns = Dns([server], ticks)
    assert await dns.ask("example.net", "A") == Records(("192.0.2.1",))
    zone.records = {("example.net", "A"): ["192.0.2.2"]}
    ticks.now += zone.ttl - 1
    assert await dns.ask("example.net", "A") == Records(("192.0.2.1",))
    ticks.now += 1
    assert await dns.ask("example.net", "A") == Records(("192.0.2.2",))


async def test_what_does_not_exist_is_remembered_as_long_as_the_soa_says(
    zone: Zone, server: HostPort
) -> None:
    ticks = Ticks()
    dns = Dns([server], ticks)
    assert await dns.ask("example.net", "A") == NoSuchName()
    zone.records = {("example.net", "A"): ["192.0.2.2"]}
    assert await dns.ask("example.net", "MX") == Records(())
    ticks.now += zone.minimum - 1
    assert await dns.ask("example.net", "A") == NoSuchName()
    ticks.now += 1
    assert await dns.ask("example.net", "A") == Records(("192.0.2.2",))
    assert zone.asked("example.net", "MX") == 1


async def test_nothing_is_remembered_for_longer_than_a_day(zone: Zone, server: HostPort) -> None:
    """Nor for longer than an hour that something does not exist."""
    zone.records = {("example.net", "A"): ["192.0.2.1"]}
    zone.ttl = zone.minimum = 10 * DAY
    ticks = Ticks()
    dns = Dns([server], ticks)
    questions: list[tuple[str, Kind, float]] = [
        ("example.net", "A", DAY),
        ("example.net", "MX", HOUR),
        ("nowhere.example", "A", HOUR),
    ]
    for name, kind, seconds in questions:
        await dns.ask(name, kind)
        ticks.now += seconds - 1
        await dns.ask(name, kind)
        assert zone.asked(name, kind) == 1
        ticks.now += 1
        await dns.ask(name, kind)
        assert zone.asked(name, kind) == 2


async def test_a_failure_is_not_asked_for_again_at_once(zone: Zone, server: HostPort) -> None:
    zone.failing = {"example.net"}
    dns = Dns([server], Ticks())
    assert isinstance(await dns.ask("example.net", "A"), CannotTell)
    asked = zone.asked("example.net", "A")
    assert isinstance(await dns.ask("example.net", "A"), CannotTell)
    assert zone.asked("example.net", "A") == asked


async def test_many_who_ask_the_same_ask_once(zone: Zone, server: HostPort) -> None:
    zone.records = {("example.net", "A"): ["192.0.2.1"]}
    dns = Dns([server])
    answers = await asyncio.gather(*(dns.ask("example.net", "A") for _ in range(50)))
    assert set(answers) == {Records(("192.0.2.1",))}
    assert zone.asked("example.net", "A") == 1


async def test_who_gives_up_takes_the_answer_from_nobody(zone: Zone, server: HostPort) -> None:
    zone.records = {("example.net", "A"): ["192.0.2.1"]}
    dns = Dns([server])
    impatient = asyncio.create_task(dns.ask("example.net", "A"))
    patient = asyncio.create_task(dns.ask("example.net", "A"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == Records(("192.0.2.1",))


@pytest.mark.usefixtures("impatient")
async def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """dnspython asks the servers of resolv.conf at port 53 of their address: none is there."""
    path = tmp_path / "resolv.conf"
    ticks = Ticks()
    dns = Dns(clock=ticks, resolv_conf=str(path))
    for server in ("", "127.0.0.98", "127.0.0.199"):
        if server:
            path.write_text(f"nameserver {server}\n")
            os.utime(path, ns=(0, len(server)))
        answer = await dns.ask("example.net", "A")
        assert isinstance(answer, CannotTell)
        assert (server or "No such file") in answer.why
        ticks.now += 60


USELESS = [
    b"nameserver dns.example.com",
    b"nameserver 127.0.0.53#here",
    b"nameserver https://dns.example.com/",
    b"nameserver",
    b"search exa..mple",
    b"domain .example.com",
    b"# caf\xe9",
    b"options timeout:long ndots:" + b"9" * 5000,
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("line", USELESS)
async def test_a_line_of_resolv_conf_that_is_of_no_use(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(line + b"\nnameserver 127.0.0.99\n")
    answer = await Dns(resolv_conf=str(path)).ask("example.net", "A")
    assert isinstance(answer, CannotTell)
    assert answer.why.startswith("example.net A: 127.0.0.99")


@pytest.mark.parametrize("line", [b"", *USELESS[:2]])
async def test_a_resolv_conf_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    """The one of this host is asked, where there may be one."""
    asked: list[object] = []

    async def note(resolver: dns.asyncresolver.Resolver, *_: object, **__: object) -> None:
        asked.extend(resolver.nameservers)
        raise dns.exception.Timeout

    monkeypatch.setattr(dns.asyncresolver.Resolver, "resolve", note)
    path = tmp_path / "resolv.conf"
    path.write_bytes(line + b"\n")
    assert isinstance(await Dns(resolv_conf=str(path)).ask("example.net", "A"), CannotTell)
    assert asked == ["127.0.0.1"]


def test_where_an_endpoint_is() -> None:
    assert Endpoint("mx.example", "192.0.2.1", 25).where == "192.0.2.1"
    assert Endpoint("mx.example", "2001:db8::1", 2525).where == "[2001:db8::1]:2525"

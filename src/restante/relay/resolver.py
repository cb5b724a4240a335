"""From a destination to the hosts that its mail is offered to, in their order (RFC 5321 §5.1)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, zip_longest

from restante.config.nexthop import SMTP_PORT, NextHop
from restante.network import literal_address
from restante.relay.here import Here
from restante.relay.lookup import Answer, CannotTell, Dns, NoSuchName, Records
from restante.relay.names import NoDomainName, to_ascii
from restante.relay.routes import ByMx, Destination
from restante.status import PermanentFailure, Reply, TemporaryFailure

MAX_EXCHANGERS = 8
"""Hosts of one domain that are looked up; RFC 5321 §5.1 allows a limit."""
MAX_ADDRESSES = 4
"""Addresses of one host that are tried at a time; by chance, so that each is tried in time.

A destination has no other limit: better exchangers that are down would use it up each time, and
keep mail from a worse one. What is limited is the time of an attempt (driver.PATIENCE).
"""
MAX_KNOWN = 32
"""Addresses of one host among which this one is looked for: each is a question to the kernel."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one host."""

    host: str
    """Its name, in A-labels, or the address in brackets where it has none."""
    address: str
    port: int

    @property
    def where(self) -> str:
        """The address, with the port where that is not SMTP's own (``status.Peer.address``)."""
        if self.port == SMTP_PORT:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else self._with_port()

    def _with_port(self) -> str:
        return f"{self.address}:{self.port}"


Endpoints = tuple[Endpoint, ...]
Resolved = Endpoints | TemporaryFailure | PermanentFailure


class Resolver:
    """Finds the hosts of a destination; holds nothing but what the DNS said."""

    def __init__(
        self,
        dns: Dns,
        here: Callable[[], Here],
        port: int = SMTP_PORT,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        """``port``: where mail exchangers are; ``here`` is this host as it is called by now.

        ``shuffle`` orders those of one preference, and the addresses of a host.
        """
        self._dns = dns
        self._here = here
        self._port = port
        self._shuffle = shuffle

    async def resolve(self, destination: Destination) -> Resolved:
        """The endpoints to be tried, at least one, or the outcome of all recipients."""
        match destination:
            case NextHop():
                return await self._next_hop(destination)
            case ByMx(domain) if domain.startswith("["):
                return self._literal(domain)
            case ByMx(domain):
                return await self._domain(domain)

    async def _next_hop(self, route: NextHop) -> Resolved:
        """What the operator named is obeyed, even where it is this host."""
        if route.is_address:
            return (Endpoint(f"[{route.host}]", route.host, route.port),)
        try:
            host = to_ascii(route.host)
        except NoDomainName as error:
            return _no_such_route(route, str(error))
        found = await self._addresses(host)
        match found:
            case NoSuchName():
                return _no_such_route(route, "the DNS has no such name")
            case CannotTell(why):
                return _dns_failed(why)
            case Records(()):
                return _no_such_route(route, "it has no address")
            case Records(addresses):
                tried = addresses[:MAX_ADDRESSES]
                return tuple(Endpoint(host, each, route.port) for each in tried)

    def _literal(self, domain: str) -> Resolved:
        """RFC 5321 §4.1.3."""
        try:
            address = str(literal_address(domain))
        except ValueError:
            return PermanentFailure(Reply(550, "1.2", f"{domain} is no address of a host"))
        if self._here().takes_mail_at(address, self._port):
            return _loops(domain)
        return (Endpoint(domain, address, self._port),)

    async def _domain(self, domain: str) -> Resolved:
        try:
            name = to_ascii(domain)
        except NoDomainName as error:
            return _no_such_domain(domain, str(error))
        answer = await self._dns.ask(name, "MX")
        match answer:
            case NoSuchName():
                return _no_such_domain(domain)
            case CannotTell(why):
                return _dns_failed(why)
            case Records(()):
                return await self._hosts(domain, [[name]], implicit=True)
            case Records(values):
                exchangers = _parsed(values)
                if [host for _, host in exchangers] == [""]:
                    text = f"{domain} accepts no mail (null MX)"
                    return PermanentFailure(Reply(556, "1.10", text))
                return await self._hosts(domain, self._ordered(exchangers), implicit=False)

    def _ordered(self, exchangers: Sequence[tuple[int, str]]) -> list[list[str]]:
        """Hosts by preference, those of the same one by chance (RFC 5321 §5.1).

        But this host first of all, so that it is not among those for which there is no room.
        """
        groups = []
        room = MAX_EXCHANGERS
        for _, group in groupby(sorted(exchangers), key=lambda each: each[0]):
            names = [host for _, host in group if host]
            self._shuffle(names)
            names.sort(key=self._here().is_called, reverse=True)
            groups.append(names[:room])
            room -= len(groups[-1])
        return [group for group in groups if group]

    async def _hosts(
        self, domain: str, groups: Sequence[Sequence[str]], *, implicit: bool
    ) -> Resolved:
        """The endpoints of all hosts that are better than this one."""
        names = list(chain.from_iterable(groups))
        answers = await asyncio.gather(*(self._addresses(name) for name in names))
        found = dict(zip(names, answers, strict=True))
        endpoints: list[Endpoint] = []
        asked: list[Answer] = []
        for group in groups:
            if any(self._is_here(name, found[name]) for name in group):
                # Nor any that is worse than this host: it would send the mail back.
                return tuple(endpoints) or _no_better(domain, asked)
            endpoints += (
                Endpoint(name, address, self._port)
                for name in group
                if isinstance(answer := found[name], Records)
                for address in answer.values[:MAX_ADDRESSES]
            )
            asked += (found[name] for name in group)
        if endpoints:
            return tuple(endpoints)
        return _unreachable(domain, answers, implicit=implicit)

    def _shuffled(self, found: Records) -> list[str]:
        values = list(found.values)
        self._shuffle(values)
        return values

    def _is_here(self, name: str, addresses: Answer) -> bool:
        """Whether an exchanger is this host: by any address, also those that chance leaves out."""
        here = self._here()
        if here.is_called(name):
            return True
        values = addresses.values if isinstance(addresses, Records) else ()
        return any(here.takes_mail_at(each, self._port) for each in values)

    async def _addresses(self, name: str) -> Answer:
        """So many of them, IPv6 and IPv4 in turns: whichever works, it is among the first two.

        Those of a family come by chance, each time anew: the DNS has no order, and a host of
        which some are dead must be reached at last by the others.
        """
        six, four = await asyncio.gather(self._dns.ask(name, "AAAA"), self._dns.ask(name, "A"))
        lists = [self._shuffled(each) for each in (six, four) if isinstance(each, Records)]
        mixed = [each for each in chain.from_iterable(zip_longest(*lists)) if each is not None]
        if mixed:
            return Records(tuple(mixed[:MAX_KNOWN]))
        return next((answer for answer in (six, four) if isinstance(answer, CannotTell)), four)


def _parsed(values: Sequence[str]) -> list[tuple[int, str]]:
    """MX records as preference and host; the root, which is no host, is empty."""
    pairs = (value.split(" ", 1) for value in values)
    return [(int(preference), host.rstrip(".").lower()) for preference, host in pairs]


def _no_such_domain(domain: str, detail: str = "") -> PermanentFailure:
    return PermanentFailure(Reply(550, "1.2", f"the domain {domain} does not exist"), detail)


def _no_such_route(route: NextHop, why: str) -> TemporaryFailure:
    """A misspelt route is the operator's to mend: nobody's mail is returned for it."""
    reply = Reply(451, "4.4", f"the next hop {route.host} is not known now")
    return TemporaryFailure(reply, f"routing.smtproutes names {route}: {why}")


def _dns_failed(why: str) -> TemporaryFailure:
    return TemporaryFailure(Reply(451, "4.3", "the DNS did not answer"), why)


def _loops(domain: str) -> PermanentFailure:
    text = f"mail for {domain} would come back: its best mail exchanger is this host"
    return PermanentFailure(Reply(554, "4.6", text), "nothing here hosts the domain")


def _no_better(domain: str, better: Sequence[Answer]) -> TemporaryFailure | PermanentFailure:
    """This host is the best one, unless the DNS cannot tell now where a ``better`` one is."""
    for answer in better:
        if isinstance(answer, CannotTell):
            return _dns_failed(answer.why)
    return _loops(domain)


def _unreachable(
    domain: str, answers: Sequence[Answer], *, implicit: bool
) -> TemporaryFailure | PermanentFailure:
    for answer in answers:
        if isinstance(answer, CannotTell):
            return _dns_failed(answer.why)
    if implicit and all(isinstance(answer, NoSuchName) for answer in answers):
        return _no_such_domain(domain)
    return PermanentFailure(Reply(550, "4.4", f"no mail exchanger of {domain} has an address"))

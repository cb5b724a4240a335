"""Questions to the DNS, and their three answers: records, no such name, cannot know.

dnspython speaks with the servers: it retries, turns to the next one, and to TCP where
UDP is too short. What is known is kept here for as long as its TTL says.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.inet
import dns.name
import dns.nameserver
import dns.resolver

from restante.config.tree import HostPort
from restante.relay.cache import ExpiringCache

LOOKUP_TIMEOUT = 10.0
"""Seconds for one question, with all its retries at all servers."""
SERVER_TIMEOUT = 3.0
"""Seconds until a server that is silent is given up for the next one, or asked again."""
DNS_PORT = 53
MAX_QUESTIONS = 100
"""Questions on their way at the same time."""
MAX_RECORDS = 100
"""Records of one answer that are kept."""
CACHE_ENTRIES = 20_000
LONGEST_TTL = 86_400.0
"""Seconds; what the DNS says is asked again at least so often."""
LONGEST_NEGATIVE_TTL = 3600.0
"""The same for what does not exist (RFC 2308 §5 finds one to three hours to work well)."""
FAILURE_TTL = 30.0
"""Seconds for which a question is not asked again after it had no answer (RFC 2308 §7)."""
MAX_WHY = 300
"""Characters of a failure's text."""
RESOLV_CONF = "/etc/resolv.conf"
MAX_RESOLV_CONF = 65_536
"""Characters of it that are read."""

Kind = Literal["MX", "A", "AAAA"]


@dataclass(frozen=True, slots=True)
class Records:
    """The values, as master files write them; none: the name exists without such records."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoSuchName:
    """The DNS says that the name does not exist (NXDOMAIN), or it is none the DNS can have."""


@dataclass(frozen=True, slots=True)
class CannotTell:
    """No answer: a time-out, SERVFAIL, nonsense, no server. It says nothing about the name."""

    why: str


Answer = Records | NoSuchName | CannotTell


class Dns:
    """Asks, remembers, and asks the same thing only once at a time."""

    def __init__(
        self,
        nameservers: Sequence[HostPort] = (),
        clock: Callable[[], float] = time.monotonic,
        resolv_conf: str = RESOLV_CONF,
    ) -> None:
        """Without ``nameservers``, ``resolv_conf`` names them; it is read again when it changes."""
        self._source = _Fixed(nameservers) if nameservers else _System(resolv_conf)
        self._cache: ExpiringCache[tuple[str, Kind], Answer] = ExpiringCache(CACHE_ENTRIES, clock)
        self._asked: dict[tuple[str, Kind], asyncio.Task[Answer]] = {}
        self._room = asyncio.Semaphore(MAX_QUESTIONS)

    async def ask(self, name: str, kind: Kind) -> Answer:
        """The records of ``name``, an absolute domain name in ASCII; aliases are followed."""
        question = (name, kind)
        known = self._cache.get(question)
        if known is not None:
            return known
        task = self._asked.get(question)
        if task is None:
            task = self._asked[question] = asyncio.create_task(self._ask(name, kind))
            task.add_done_callback(lambda _: self._asked.pop(question, None))
        # Whoever gives up waiting does not take the answer from the others.
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Ask anew from now on, whatever was answered before."""
        self._cache.clear()

    async def _ask(self, name: str, kind: Kind) -> Answer:
        async with self._room:
            answer, seconds = await self._query(name, kind)
        self._cache.put((name, kind), answer, seconds)
        return answer

    async def _query(self, name: str, kind: Kind) -> tuple[Answer, float]:
        try:
            asked = dns.name.from_text(name)
        except dns.exception.DNSException:
            return NoSuchName(), LONGEST_NEGATIVE_TTL
        try:
            found = await self._source.resolver().resolve(
                asked, kind, search=False, raise_on_no_answer=False, lifetime=LOOKUP_TIMEOUT
            )
        except dns.resolver.NXDOMAIN as error:
            response = error.response(asked)  # type: ignore[no-untyped-call]
            ttl = response.resolve_chaining().minimum_ttl
            return NoSuchName(), min(ttl, LONGEST_NEGATIVE_TTL)
        except (dns.exception.DNSException, OSError) as error:
            return CannotTell(f"{name} {kind}: {_why(error)}"[:MAX_WHY]), FAILURE_TTL
        ttl = found.chaining_result.minimum_ttl
        if found.rrset is None:
            return Records(()), min(ttl, LONGEST_NEGATIVE_TTL)
        values = tuple(sorted(record.to_text() for record in found.rrset))
        return Records(values[:MAX_RECORDS]), min(ttl, LONGEST_TTL)


def _why(error: Exception) -> str:
    """What each server did, once, however often it was asked."""
    errors = getattr(error, "kwargs", {}).get("errors")
    if not errors:
        return str(error)
    return ", ".join(dict.fromkeys(_fault(server, said) for server, _, _, said, _ in errors))


def _fault(server: str | None, said: object) -> str:
    """``server`` as dnspython writes it: ``Do53:192.0.2.53@53``."""
    address, _, port = str(server).removeprefix("Do53:").rpartition("@")
    name = address if port == str(DNS_PORT) else f"{address} port {port}"
    return f"{name} is silent" if isinstance(said, dns.exception.Timeout) else f"{name}: {said}"


class _Fixed:
    """The servers that the settings name."""

    def __init__(self, nameservers: Sequence[HostPort]) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = [
            dns.nameserver.Do53Nameserver(each.host, each.port) for each in nameservers
        ]
        self._resolver.timeout = SERVER_TIMEOUT

    def resolver(self) -> dns.asyncresolver.Resolver:
        return self._resolver


class _System:
    """The servers of resolv.conf(5), whatever they are by now."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read_as: tuple[int, int, int] | None = None
        self._resolver: dns.asyncresolver.Resolver | None = None

    def resolver(self) -> dns.asyncresolver.Resolver:
        """Raises OSError."""
        status = os.stat(self._path)
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if self._resolver is None or version != self._read_as:
            self._resolver = dns.asyncresolver.Resolver(io.StringIO(self._read()))
            self._resolver.timeout = SERVER_TIMEOUT
            self._read_as = version
        return self._resolver

    def _read(self) -> str:
        """What of the file counts here: dnspython takes it as a whole, or not at all."""
        with open(self._path, encoding="utf-8", errors="replace") as file:
            return "\n".join(_heeded(file.read(MAX_RESOLV_CONF).split("\n")))


def _heeded(lines: Sequence[str]) -> Iterator[str]:
    """Servers and options, as the C library heeds them: without a server, the one of this host.

    A line that it cannot use keeps it from no other.
    """
    servers = 0
    for line in lines:
        match line.split():
            case ["nameserver", address, *_] if dns.inet.is_address(address):
                servers += 1
                yield line
            case ["options", *_]:
                yield line
    if not servers:
        yield "nameserver 127.0.0.1"

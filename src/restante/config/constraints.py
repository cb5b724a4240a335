"""What settings must be beyond their type and range: well-formed names, and sums that fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from restante.address import Address, AddressSyntaxError, check_domain
from restante.config.convert import shown
from restante.config.listeners import LISTENERS
from restante.config.tree import (
    MECHANISMS,
    TLS_POLICIES,
    Auth,
    HostPort,
    Programs,
    Relay,
    Settings,
)

MAX_DATABASE_WAIT = 9
"""Seconds; a peer hears 451 within 10 when the database does not answer."""

_UMASK = re.compile("0?[0-7]{3}")


@dataclass(frozen=True, slots=True)
class Problem:
    """A setting, as (section, name), and what is wrong with it."""

    setting: tuple[str, str]
    what: str


def check(settings: Settings) -> Iterator[Problem]:
    """Every problem in a tree whose types and ranges are right."""
    yield from _check_waits(settings)
    yield from _check_listeners(settings)
    yield from _check_tls(settings)
    yield from _check_required(settings)
    yield from _check_domains(settings)
    yield from _check_tables(settings)
    yield from _check_addresses(settings)
    yield from _check_networks(settings)
    yield from _check_relay(settings.relay)
    yield from _check_programs(settings.programs)
    yield from _check_mechanisms(settings.auth)


def _check_waits(settings: Settings) -> Iterator[Problem]:
    total = settings.database.connect_timeout + settings.database.query_timeout
    if total > MAX_DATABASE_WAIT:
        yield Problem(
            ("database", "query_timeout"),
            f"with connect_timeout it makes {total:g} seconds; {MAX_DATABASE_WAIT} are the most",
        )


def _check_listeners(settings: Settings) -> Iterator[Problem]:
    seen: set[HostPort] = set()
    for listening in LISTENERS:
        for address in listening.addresses(settings):
            if address.port and address in seen:
                yield Problem(listening.setting, f"{address} is named twice")
            seen.add(address)


def _check_tls(settings: Settings) -> Iterator[Problem]:
    tls = settings.tls
    if bool(tls.certificate) != bool(tls.key):
        missing, other = ("key", "certificate") if tls.certificate else ("certificate", "key")
        yield Problem(("tls", missing), f"is empty, and tls.{other} is of no use without it")
    for listening in LISTENERS:
        if listening.tls and listening.addresses(settings) and not tls.is_offered:
            yield Problem(listening.setting, "needs a certificate; set tls.certificate and tls.key")


def _check_required(settings: Settings) -> Iterator[Problem]:
    for section, name, value in (
        ("database", "url", settings.database.url),
        ("mail", "root", settings.mail.root),
        ("queue", "root", settings.queue.root),
        ("queue", "bouncefrom", settings.queue.bouncefrom),
        ("routing", "defaultdelivery", settings.routing.defaultdelivery),
        ("log", "target", settings.log.target),
    ):
        if not value.strip():
            yield Problem((section, name), "is empty")


def _check_domains(settings: Settings) -> Iterator[Problem]:
    routing = settings.routing
    may_be_empty = (
        ("server", "me", settings.server.me),
        ("routing", "envnoathost", routing.envnoathost),
        ("queue", "bouncehost", settings.queue.bouncehost),
        ("sendmail", "defaulthost", settings.sendmail.defaulthost),
        ("sendmail", "defaultdomain", settings.sendmail.defaultdomain),
        ("sendmail", "plusdomain", settings.sendmail.plusdomain),
        ("relay", "helohost", settings.relay.helohost),
    )
    for section, name, value in may_be_empty:
        if value:
            yield from _wrong_domains((section, name), [value])
    yield from _wrong_domains(("routing", "locals"), routing.locals)
    yield from _wrong_domains(
        ("routing", "rcpthosts"), [entry.removeprefix(".") for entry in routing.rcpthosts]
    )


def _check_tables(settings: Settings) -> Iterator[Problem]:
    routing = settings.routing
    for domain, replacement in routing.envnoathosts.items():
        yield from _wrong_domains(("routing", "envnoathosts"), [domain, replacement])
    for key in routing.virtualdomains:
        if "@" in key:
            yield from _wrong_address(("routing", "virtualdomains"), key)
        elif key:
            yield from _wrong_domains(("routing", "virtualdomains"), [key.removeprefix(".")])
    yield from _wrong_keys(("routing", "smtproutes"), routing.smtproutes)
    for relay in routing.smtproutes.values():
        if relay:
            yield from _wrong_next_hop(("routing", "smtproutes"), relay)


def _check_addresses(settings: Settings) -> Iterator[Problem]:
    delimiter = settings.routing.subaddress_delimiter
    if any(character == "@" or character.isspace() for character in delimiter):
        yield Problem(
            ("routing", "subaddress_delimiter"), f"{shown(delimiter)} cannot part an address"
        )
    for entry in settings.receiver.badmailfrom:
        if entry.startswith("@"):
            yield from _wrong_domains(("receiver", "badmailfrom"), [entry[1:]])
        else:
            yield from _wrong_address(("receiver", "badmailfrom"), entry)
    if settings.queue.doublebounceto:
        yield from _wrong_address(("queue", "doublebounceto"), settings.queue.doublebounceto)


def _check_networks(settings: Settings) -> Iterator[Problem]:
    named = (
        (("receiver", "relay_networks"), settings.receiver.relay_networks),
        (("auth", "guess_shared"), settings.auth.guess_shared),
    )
    for where, networks in named:
        for network in networks:
            text = _no_network(network)
            if text:
                yield Problem(where, f"{shown(network)}: {text}")


def _no_network(text: str) -> str:
    import ipaddress  # few sites need it, and small programs load settings too

    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        return str(error).removeprefix(repr(text)).removeprefix(text).strip()
    return ""


def _check_relay(relay: Relay) -> Iterator[Problem]:
    for nameserver in relay.nameservers:
        if not _is_ip_address(nameserver.host) or not nameserver.port:
            yield Problem(
                ("relay", "nameservers"), f"{nameserver} is no IP address with a port of its own"
            )
    yield from _wrong_keys(("relay", "tls_policy"), relay.tls_policy)
    for policy in relay.tls_policy.values():
        if policy not in TLS_POLICIES:
            what = f"{shown(policy)} is not one of {', '.join(TLS_POLICIES)}"
            yield Problem(("relay", "tls_policy"), what)
    for next_hop, credentials in relay.credentials.items():
        yield from _wrong_next_hop(("relay", "credentials"), next_hop)
        login, colon, password = credentials.partition(":")
        if not (login and colon and password):
            what = f"what stands for {shown(next_hop)} is not LOGIN:PASSWORD"
            yield Problem(("relay", "credentials"), what)


def _check_programs(programs: Programs) -> Iterator[Problem]:
    if not _UMASK.fullmatch(programs.umask):
        what = f"{shown(programs.umask)} is no umask in octal, as 077 is"
        yield Problem(("programs", "umask"), what)
    if "\0" in programs.path or not programs.path.startswith("/"):
        what = f"{shown(programs.path)} is no list of absolute directories, parted by colons"
        yield Problem(("programs", "path"), what)


def _check_mechanisms(auth: Auth) -> Iterator[Problem]:
    setting, named = ("auth", "mechanisms"), auth.mechanisms
    for name in named:
        if name not in MECHANISMS:
            yield Problem(setting, f"{shown(name)} is not one of {', '.join(MECHANISMS)}")
    if not named:
        yield Problem(setting, "is empty: nobody could log in")
    if "SCRAM-SHA-256-PLUS" in named and "SCRAM-SHA-256" not in named:
        yield Problem(setting, "SCRAM-SHA-256-PLUS is of use beside SCRAM-SHA-256 only")
    if auth.upgrade and "SCRAM-SHA-256" in named:
        what = "replaces the hashes that SCRAM-SHA-256 in auth.mechanisms needs; choose one of them"
        yield Problem(("auth", "upgrade"), what)


def _is_ip_address(text: str) -> bool:
    import ipaddress  # few sites need it, and small programs load settings too

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _wrong_next_hop(setting: tuple[str, str], text: str) -> Iterator[Problem]:
    from restante.config.nexthop import NextHop  # few sites need it, as above

    try:
        NextHop.parse(text)
    except ValueError as error:
        yield Problem(setting, f"{shown(text)} {error}")


def _wrong_keys(setting: tuple[str, str], keys: Iterable[str]) -> Iterator[Problem]:
    """Problems with what should be domains, .suffixes or the empty key."""
    yield from _wrong_domains(setting, [key.removeprefix(".") for key in keys if key])


def _wrong_domains(setting: tuple[str, str], domains: Iterable[str]) -> Iterator[Problem]:
    for domain in domains:
        try:
            check_domain(domain)
        except AddressSyntaxError as error:
            yield Problem(setting, f"{shown(domain)}: {error}")


def _wrong_address(setting: tuple[str, str], text: str) -> Iterator[Problem]:
    try:
        address = Address.parse(text)
    except AddressSyntaxError as error:
        yield Problem(setting, f"{shown(text)}: {error}")
    else:
        if not address.domain:
            yield Problem(setting, f"{shown(text)} has no domain")

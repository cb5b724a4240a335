"""One address, one decision: decisions 1 to 4 as a function of look-ups and settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from typing import Any, TypeVar

from restante.address import Address, dash_prefixes, split_subaddress
from restante.config.tree import Routing
from restante.directory import Directory, KnownLookups, Lookups
from restante.errors import CannotKnow, TemporaryError
from restante.labels import forms
from restante.routing.actions import ActionRules, find_actions
from restante.routing.decision import (
    Decision,
    Instructions,
    Mailbox,
    Misconfigured,
    Remote,
    ToMaildir,
    Unknown,
)
from restante.routing.instructions import BadInstruction, parse_instructions, resolve_path
from restante.routing.lists import ListReader
from restante.routing.ownership import Owner, find_owner, qualify
from restante.routing.sequence import objection
from restante.routing.site import Site
from restante.routing.trace import NO_NOTES, Notes
from restante.routing.users import find_user

MAX_PREFETCHED_PREFIXES = 4
"""Dash prefixes of one local part that are fetched ahead; longer chains are asked one by one."""
MAX_SIDE_BY_SIDE = 4
"""Addresses of one message that wait for files at the same time. A hundred of which each takes all
the time that a look-up has are settled within what senders wait, and a few messages do not take all
threads for look-ups from everybody else's."""

_T = TypeVar("_T")


class Router:
    """Routes addresses by the rules; holds settings only, so one serves all sessions."""

    def __init__(self, settings: Routing, me: str) -> None:
        """``me`` is the host's name; raises BadInstruction if the default delivery is none."""
        self._site = Site(settings, me)
        default = parse_instructions(settings.defaultdelivery.splitlines())
        self._action_rules = ActionRules(
            default,
            settings.subaddress_delimiter,
            settings.system_files,
            ListReader(settings.max_alias_targets),
        )
        self._maildir = ""
        """Where the default delivery goes, if that is one Maildir, and no file changes it."""
        if len(default) == 1 and isinstance(default[0], ToMaildir) and not settings.system_files:
            self._maildir = default[0].path
        self.max_alias_depth = settings.max_alias_depth
        self.max_alias_targets = settings.max_alias_targets

    @property
    def asks_files(self) -> bool:
        """Whether any address may have to wait for files, or for the system's name service."""
        return self._action_rules.system_files

    async def accepts(self, domain: str, lookups: Lookups, notes: Notes = NO_NOTES) -> bool:
        """Decision 1: whether a stranger may send to ``domain`` at all.

        An empty domain (``<postmaster>``) means envnoathost, and that is accepted as well
        where it is known to be a domain of this host. Raises what the look-ups raise.
        """
        notes.note("1", "may a stranger send to %s?", domain or "an address without a domain")
        if domain:
            return await self._accepts(domain, lookups, notes)
        here = self._site.envnoathost()
        notes.note("1", "no domain: setting routing.envnoathost makes it %s", here)
        if here in self._site.locals:
            notes.note("1", "setting routing.locals has %s", here)
            return True
        if await self._accepts(here, lookups, notes):
            return True
        for form in forms(here):
            if await lookups.knows_domain(form):
                return True
        return False

    async def _accepts(self, domain: str, lookups: Lookups, notes: Notes) -> bool:
        for form in forms(domain):
            if await lookups.accepts_domain(form):
                notes.note("1", "rcpthosts has %s", form)
                return True
        key = self._site.rcpthosts_key(domain)
        if key is None:
            notes.note("1", "neither rcpthosts nor setting routing.rcpthosts has %s", domain)
            return False
        notes.note("1", "setting routing.rcpthosts has %s", key)
        return True

    def qualified(self, address: Address) -> Address:
        """The address with a domain: decision 2, step 1."""
        return qualify(address, self._site, NO_NOTES)

    async def route(self, address: Address, lookups: Lookups, notes: Notes = NO_NOTES) -> Decision:
        """Decisions 2 to 4. Look-ups without an answer give Unknown, bad rows Misconfigured."""
        try:
            return _checked(address, await self._route(address, lookups, notes))
        except CannotKnow as error:
            return Unknown(address, str(error))
        except (TemporaryError, BadInstruction) as error:
            return Misconfigured(address, str(error))

    def at_once(self, address: Address, lookups: KnownLookups) -> Mailbox | None:
        """What ``route`` would find, for an address of the kind that nearly all mail is for.

        That is one which ``virtual`` gives to a mailbox without instructions, and of which all
        is at hand. None for any other: ask ``route``.
        """
        domain = address.domain
        if not (self._maildir and domain) or domain in self._site.locals:
            return None
        owned = lookups.simply_owned(address.local, domain)
        if owned is None:
            return None
        owner, account = owned
        delivered_to = owner if "@" in owner else f"{owner}@{domain}"
        if not delivered_to.isprintable():
            return None
        return Mailbox(account, delivered_to, resolve_path(account.home, self._maildir))

    async def _route(self, address: Address, lookups: Lookups, notes: Notes) -> Decision:
        notes.note("2", "who owns %s?", address)
        qualified = qualify(address, self._site, notes)
        owner = await find_owner(qualified, self._site, lookups, notes)
        if not isinstance(owner, Owner):
            return owner
        rules = self._action_rules
        user = await find_user(owner, lookups, notes, system_files=rules.system_files)
        return await find_actions(qualified, owner, user, lookups, notes, rules)

    def remote_without_rows(self, address: Address) -> Remote | None:
        """The decision if ``virtual`` has no row for the domain; None where it hangs on others.

        The same as ``route`` gives, out of the settings alone.
        """
        qualified = self.qualified(address)
        if qualified.domain in self._site.locals:
            return None
        key = self._site.virtualdomains_key(qualified)
        if key is not None and self._site.virtualdomains_prefix(key):
            return None
        return Remote(qualified)

    async def route_many(
        self, addresses: Sequence[Address], directory: Directory
    ) -> tuple[Decision, ...]:
        """The decisions for ``addresses``, in their order, out of one bulk look-up."""
        pairs = [pair for address in addresses for pair in self.wanted(address)]
        try:
            lookups = await directory.prefetch(pairs)
        except TemporaryError as error:
            return tuple(Unknown(address, str(error)) for address in addresses)
        if not self.asks_files:
            return tuple(
                [
                    self.at_once(address, lookups) or await self.route(address, lookups)
                    for address in addresses
                ]
            )
        return tuple(await side_by_side(lambda each: self.route(each, lookups), addresses))

    def wanted(self, address: Address) -> tuple[tuple[str, str], ...]:
        """The (local part, domain) pairs to prefetch, so that an ordinary address asks no more."""
        site = self._site
        domain = address.domain or site.envnoathost()
        base = split_subaddress(address.local, site.delimiter)
        if not (base or site.has_virtualdomains or domain in site.locals):
            return ((address.local, domain),)
        locals_ = [address.local, base[0]] if base else [address.local]
        pairs = [(local, domain) for local in locals_]
        here = domain
        if domain in site.locals:
            here = site.envnoathost(domain)
            pairs += [(local, here) for local in locals_]
            pairs += _prefixes(address.local, here)
        pairs += self._virtual_user(Address(address.local, here))
        return tuple(dict.fromkeys(pairs))

    def _virtual_user(self, address: Address) -> list[tuple[str, str]]:
        key = self._site.virtualdomains_key(address)
        prefix = self._site.virtualdomains_prefix(key) if key is not None else ""
        if not prefix:
            return []
        name = f"{prefix}-{address.local}"
        return [(name, address.domain), *_prefixes(name, address.domain)]


async def side_by_side(
    ask: Callable[[Address], Coroutine[Any, Any, _T]], addresses: Sequence[Address]
) -> list[_T]:
    """The answers for addresses that each may have to wait for a file, in their order."""
    if len(addresses) == 1:
        return [await ask(addresses[0])]
    found: list[_T] = []
    for start in range(0, len(addresses), MAX_SIDE_BY_SIDE):
        found += await asyncio.gather(*map(ask, addresses[start : start + MAX_SIDE_BY_SIDE]))
    return found


def _prefixes(local: str, domain: str) -> list[tuple[str, str]]:
    prefixes = islice(dash_prefixes(local), 1, 1 + MAX_PREFETCHED_PREFIXES)
    return [(name, domain) for name, _ in prefixes]


def _checked(address: Address, decision: Decision) -> Decision:
    """``decision``, unless a row would put a line end or the like into a header field, or keep
    the queue busy beyond measure."""
    if isinstance(decision, Mailbox | Instructions) and not decision.delivered_to.isprintable():
        why = f"the owner in {decision.delivered_to!r} holds a character that is not printable"
        return Misconfigured(address, why)
    if isinstance(decision, Instructions) and (why := objection(decision.actions)):
        return Misconfigured(address, why)
    return decision

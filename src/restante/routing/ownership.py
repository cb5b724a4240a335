"""Decision 2: who owns an address. The steps bear the numbers of the rules.

The order of the steps is the order of the code in ``find_owner``; within each, SQL
is asked before the settings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from restante.address import Address, split_subaddress
from restante.directory import Account, Lookups
from restante.labels import forms, in_a_labels
from restante.routing.decision import NoSuchUser, Remote
from restante.routing.site import Site
from restante.routing.trace import Notes


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose an address is, before it is known where that user lives."""

    name: str
    """A user name, perhaps with an extension; ``name@domain`` too if it came from ``virtual``."""
    delivered_to: str
    """``owner@domain``, or the owner's name when it holds an ``@``.

    The domain is as ``virtual`` has it; where a setting knows it, it is in A-labels.
    """
    from_virtual: bool = False
    """The name is a row's; otherwise it is a local part, in which ``@`` means nothing."""
    tag: str = ""
    """The subaddress that was cut off to find the owner."""
    account: Account | None = None
    """The account, when step 2a has found it already."""


def qualify(address: Address, site: Site, notes: Notes) -> Address:
    """Step 1: an address without a domain is at envnoathost."""
    if address.domain:
        return address
    qualified = Address(address.local, site.envnoathost())
    notes.note("2.1", "no domain: setting routing.envnoathost makes it %s", qualified)
    return qualified


async def find_owner(
    address: Address, site: Site, lookups: Lookups, notes: Notes
) -> Owner | Remote | NoSuchUser:
    """Decision 2 for an address with a domain; raises what the look-ups raise."""
    return await _Search(site, lookups, notes).run(address)


@dataclass(frozen=True, slots=True)
class _Search:
    site: Site
    lookups: Lookups
    notes: Notes

    async def run(self, address: Address) -> Owner | Remote | NoSuchUser:
        local = address.domain in self.site.locals
        if local:
            self.notes.note("2.2", "setting routing.locals has %s", address.domain)
            if owner := await self._in_locals(address):
                return owner
        here = self._rewritten(address) if local else address
        # Where envnoathost is the domain itself, step 2b has asked all that step 3 would ask.
        if not (local and here == address) and (owner := await self._in_virtual("2.3", here)):
            return owner
        return self._in_virtualdomains(here) or await self._unowned(here, local)

    async def _in_locals(self, address: Address) -> Owner | None:
        """Steps 2a and 2b: ``mailbox``, then ``virtual``; the subaddress before the catch-all."""
        if owner := await self._exact(address):
            return owner
        if (base := self._base(address)) and (owner := await self._exact(base[0])):
            return self._tagged("2.2", owner, *base)
        return await self._catch_all("2.2b", address)

    async def _exact(self, address: Address) -> Owner | None:
        if account := await self.lookups.account(address.local):
            self.notes.note("2.2a", "mailbox has the user %s", account.name)
            delivered_to = f"{account.name}@{in_a_labels(address.domain)}"
            return Owner(account.name, delivered_to, account=account)
        return await self._owned("2.2b", address)

    def _rewritten(self, address: Address) -> Address:
        """Step 2c."""
        here = Address(address.local, self.site.envnoathost(address.domain))
        self.notes.note("2.2c", "a local address nobody owns: envnoathost makes it %s", here)
        return here

    async def _in_virtual(self, step: str, address: Address) -> Owner | None:
        """Step 3: ``virtual``; the subaddress before the catch-all."""
        if owner := await self._owned(step, address):
            return owner
        if (base := self._base(address)) and (owner := await self._owned(step, base[0])):
            return self._tagged(step, owner, *base)
        return await self._catch_all(step, address)

    def _base(self, address: Address) -> tuple[Address, str] | None:
        parts = split_subaddress(address.local, self.site.delimiter)
        return (Address(parts[0], address.domain), parts[1]) if parts else None

    def _tagged(self, step: str, owner: Owner, base: Address, tag: str) -> Owner:
        self.notes.note(step, "as the subaddress %r of %s", tag, base)
        return replace(owner, tag=tag)

    async def _owned(self, step: str, address: Address) -> Owner | None:
        for domain in forms(address.domain):
            owners = await self.lookups.owners(address.local, domain)
            if owners:
                what = f"virtual gives {address.local}@{domain}"
                return self._first(step, owners, domain, what)
        return None

    async def _catch_all(self, step: str, address: Address) -> Owner | None:
        for domain in forms(address.domain):
            owners = await self.lookups.owners("", domain)
            if owners:
                return self._first(step, owners, domain, f"virtual gives the catch-all of {domain}")
        return None

    def _first(self, step: str, owners: tuple[str, ...], domain: str, what: str) -> Owner:
        name = owners[0]
        self.notes.note(step, "%s to %s", what, name)
        if len(owners) > 1:
            self.notes.note(step, "of %d owners only the first in order is taken", len(owners))
        delivered_to = name if "@" in name else f"{name}@{domain}"
        return Owner(name, delivered_to, from_virtual=True)

    def _in_virtualdomains(self, address: Address) -> Owner | None:
        """Step 4; the first key that matches counts, and an empty prefix exempts."""
        key = self.site.virtualdomains_key(address)
        if key is None:
            return None
        prefix = self.site.virtualdomains_prefix(key)
        if not prefix:
            self.notes.note("2.4", "setting routing.virtualdomains exempts %r", key)
            return None
        name = f"{prefix}-{address.local}"
        self.notes.note("2.4", "setting routing.virtualdomains has %r: user %s", key, name)
        return Owner(name, f"{name}@{in_a_labels(address.domain)}")

    async def _unowned(self, address: Address, local: bool) -> Owner | Remote | NoSuchUser:
        """Steps 5 to 7."""
        if local:
            self.notes.note("2.5", "it is local: user %s", address.local)
            return Owner(address.local, f"{address.local}@{in_a_labels(address.domain)}")
        for domain in forms(address.domain):
            if await self.lookups.knows_domain(domain):
                self.notes.note("2.6", "virtual has %s, but not this address", domain)
                return NoSuchUser(address, f"virtual has rows for {domain}, none for {address}")
        self.notes.note("2.7", "nothing here knows %s: it is remote", address.domain)
        return Remote(address)

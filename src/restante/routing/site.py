"""What the settings say about domains, made ready for fast questions (decisions 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from restante.address import Address, domain_keys, fold
from restante.config.tree import Routing
from restante.labels import forms, name_forms


class Site:
    """``routing.*`` settings, folded once; every question takes folded names.

    Domains are here in all their forms, so that no question has to find them.
    """

    def __init__(self, settings: Routing, me: str) -> None:
        self.locals = _in_all_forms(settings.locals)
        """The domains that ``routing.locals`` names."""
        self._envnoathost = fold(settings.envnoathost or me)
        self._envnoathosts = _folded_keys(settings.envnoathosts)
        self._rcpthosts = _in_all_forms(settings.rcpthosts)
        self._virtualdomains = _folded_keys(settings.virtualdomains)
        self.has_virtualdomains = bool(self._virtualdomains)
        """Whether ``routing.virtualdomains`` says anything."""
        self.delimiter = settings.subaddress_delimiter

    def envnoathost(self, domain: str = "") -> str:
        """The domain that stands in for ``domain``, or for none (decision 2, steps 1 and 2c)."""
        return fold(self._envnoathosts.get(domain, self._envnoathost))

    def rcpthosts_key(self, domain: str) -> str | None:
        """The entry of ``routing.rcpthosts`` that names the domain, or None (decision 1)."""
        return next((key for key in domain_keys(domain) if key in self._rcpthosts), None)

    def virtualdomains_key(self, address: Address) -> str | None:
        """The key of ``routing.virtualdomains`` that names the address, or None (step 4)."""
        table = self._virtualdomains
        if not table:
            return None
        if address.folded in table:
            return address.folded
        keys = (key for key in domain_keys(address.domain) if key in table)
        return next(keys, "" if "" in table else None)

    def virtualdomains_prefix(self, key: str) -> str:
        """The user prefix under ``key``; empty where the key exempts from wider ones."""
        return self._virtualdomains[key]


def _in_all_forms(domains: Iterable[str]) -> frozenset[str]:
    return frozenset(form for domain in domains for form in forms(fold(domain)))


def _folded_keys(table: Mapping[str, str]) -> dict[str, str]:
    """Addresses and domains in all forms; a key that is there as it is asked for goes first."""
    found = {fold(key): value for key, value in table.items()}
    for key, value in tuple(found.items()):
        for form in name_forms(key) if "@" in key else forms(key):
            found.setdefault(form, value)
    return found

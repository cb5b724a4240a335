"""Who may send as whom: the envelope senders that an account may use (RFC 6409 §6.1).

An address belongs to an account if it is the account's own name, or if mail for it
reaches the account, which is a question to routing: exact rows of ``virtual``, the
catch-all where nobody has the address, aliases of any depth and of several targets,
extensions and subaddresses all count because mail goes that way.
"""

from __future__ import annotations

from restante.address import Address, fold, split_subaddress
from restante.config import Settings
from restante.directory import Account, Directory
from restante.errors import CannotKnow, TemporaryError
from restante.labels import forms
from restante.receiver import Refusal
from restante.routing.reach import reaches
from restante.routing.router import Router
from restante.status import Reply

NOT_YOURS = Reply(553, "7.1", "this account may not send as this address")
CANNOT_KNOW_SENDER = Reply(451, "3.0", "cannot look up the sender now, try again later")
SENDER_MISCONFIGURED = Reply(451, "3.5", "the sender is not set up correctly, try again later")


class Senders:
    """``submission.senders``, obeyed."""

    def __init__(self, settings: Settings, router: Router, directory: Directory) -> None:
        routing = settings.routing
        homes = (settings.envnoathost, *routing.locals, *routing.envnoathosts.values())
        self._homes = frozenset(form for home in homes for form in forms(fold(home)))
        self._delimiter = routing.subaddress_delimiter
        self._allowed = settings.submission.senders
        self._router = router
        self._directory = directory

    async def refusal(self, account: Account, address: Address) -> Refusal | None:
        """Why the account may not send as the address, or None; never raises what it foresees."""
        try:
            if await self._may(account, address):
                return None
        except CannotKnow as error:
            return Refusal(CANNOT_KNOW_SENDER, str(error))
        except TemporaryError as error:
            return Refusal(SENDER_MISCONFIGURED, str(error))
        return Refusal(NOT_YOURS, f"submission.senders = {self._allowed}")

    async def _may(self, account: Account, address: Address) -> bool:
        if self._allowed == "any" or self._is_name(account, address):
            return True
        if self._allowed == "domains" and await self._has_domain(account, address.domain):
            return True
        return await reaches(self._router, self._directory, address, account)

    def _is_name(self, account: Account, address: Address) -> bool:
        """Whether the address is the account's name, with or without a subaddress.

        So most MAIL commands ask the database nothing.
        """
        base = split_subaddress(address.local, self._delimiter)
        own = {fold(address.local), fold(base[0])} if base else {fold(address.local)}
        local, domains = self._name(account)
        return local in own and address.domain in domains

    async def _has_domain(self, account: Account, domain: str) -> bool:
        _, domains = self._name(account)
        return domain in domains or await self._directory.owns_in(account.name, domain)

    def _name(self, account: Account) -> tuple[str, frozenset[str]]:
        """The account's name as a local part, and the domains in which it is its address.

        A name without a domain is an address in all of ``routing.locals`` and at envnoathost.
        """
        local, at, domain = fold(account.name).rpartition("@")
        return (local, frozenset(forms(domain))) if at else (domain, self._homes)

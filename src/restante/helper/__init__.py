"""Helpers: processes with the rights of a mailbox's owner, one for each uid and gid.

This page is the contract between the worker's side and whoever supplies helpers: the
supervisor's office, or a nursery of a test's own.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol

from restante.directory import Account
from restante.errors import TemporaryError


class NoHelper(TemporaryError):
    """A helper cannot be had now, or it went away before it answered; the text says why."""


class Crowded(NoHelper):
    """Others have waited for it for long: nobody else is to. Of the mailbox that says nothing."""


class IdsRefused(NoHelper):
    """Nobody has a helper with these ids: the account, or the settings, have to be changed."""


@dataclass(frozen=True, slots=True)
class Supplied:
    """A connection to a helper."""

    connection: socket.socket
    uid: int
    gid: int
    """Whose helper it is, as whoever supplies it knows; the caller compares."""


class Supplier(Protocol):
    """Where connections to helpers come from."""

    async def supply(self, account: Account) -> Supplied:
        """A new connection to the helper of the account, by its *name*; raises NoHelper.

        The supplier looks up by itself which uid and gid the account has.
        """
        ...

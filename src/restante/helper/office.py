"""Connections to helpers by way of the supervisor, which looks up whose helper an account gets."""

from __future__ import annotations

import os
import socket
from typing import Protocol

from restante.directory import Account
from restante.errors import TemporaryError
from restante.helper import NoHelper, Supplied


class Asks(Protocol):
    """A worker's line to the supervisor."""

    async def ask(self, kind: str, name: str) -> tuple[dict[str, object], list[int]]:
        """The fields of an answer and its descriptors; raises TemporaryError."""
        ...


class OfficeSupplier:
    """See Supplier."""

    def __init__(self, supervisor: Asks) -> None:
        self._supervisor = supervisor

    async def supply(self, account: Account) -> Supplied:
        """See Supplier: a row of ``mailbox`` comes before a user of the system, as in routing."""
        try:
            supplied = await self._ask("helper", account.name)
        except TemporaryError as error:
            return await self._as_system_user(account, str(error))
        if (supplied.uid, supplied.gid) == (account.uid, account.gid):
            return supplied
        supplied.connection.close()
        return await self._as_system_user(
            account, f"the account has uid {supplied.uid} and gid {supplied.gid} now"
        )

    async def _as_system_user(self, account: Account, why: str) -> Supplied:
        try:
            return await self._ask("system", account.name)
        except TemporaryError as error:
            raise NoHelper(f"{account.name}: {why}; {error}") from error

    async def _ask(self, kind: str, name: str) -> Supplied:
        fields, descriptors = await self._supervisor.ask(kind, name)
        uid, gid = fields.get("uid"), fields.get("gid")
        if not isinstance(uid, int) or not isinstance(gid, int) or len(descriptors) != 1:
            for descriptor in descriptors:
                os.close(descriptor)
            raise NoHelper("the supervisor's answer is none")
        return Supplied(socket.socket(fileno=descriptors[0]), uid, gid)

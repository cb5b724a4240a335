"""Helpers without a supervisor: a nursery of the test's own, or the helper's code right here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from restante.directory import Account, NoSystemFiles, SystemFiles
from restante.helper import NoHelper, Supplied
from restante.helper.limits import Limits
from restante.helper.messages import Owner
from restante.helper.pool import Helpers
from restante.helper.serving import Serving, Tools
from restante.helper.start import order, start_nursery
from restante.helper.writer import HelperWriter
from restante.mda.writer import BatchWriter
from restante.store.maildir import MaildirStore
from tests.support.deliveries import HOST

LIMITS = Limits(HOST, 100, 1, 10, 30.0)


class NurserySupplier:
    """Orders from a nursery, for whatever ids the account says it has."""

    def __init__(self, orders: socket.socket) -> None:
        self.orders = orders
        self.supplied = 0

    async def supply(self, account: Account) -> Supplied:
        self.supplied += 1
        ours, its = socket.socketpair()
        order(self.orders, account.uid, account.gid, its)
        return Supplied(ours, account.uid, account.gid)


@contextlib.contextmanager
def nursery(limits: Limits = LIMITS) -> Iterator[tuple[NurserySupplier, subprocess.Popen[bytes]]]:
    """A running nursery, which is gone afterwards with all of its helpers."""
    process, orders = start_nursery(limits)
    try:
        yield NurserySupplier(orders), process
    finally:
        orders.close()
        assert process.wait() == 0


class HereSupplier:
    """Serves with the helper's code in this very process, so that a test can reach into it."""

    def __init__(
        self,
        writer: BatchWriter,
        store: MaildirStore | None = None,
        files: SystemFiles | None = None,
    ) -> None:
        self.tools = Tools(writer, store or MaildirStore(), files or NoSystemFiles())
        self.serving: list[Serving] = []
        self.refuses = ""

    async def supply(self, account: Account) -> Supplied:
        await asyncio.sleep(0)
        if self.refuses:
            raise NoHelper(self.refuses)
        ours, its = socket.socketpair()
        owner = Owner(account.uid, account.gid)
        self.serving.append(Serving(its, owner, self.tools, lambda _serving: None))
        return Supplied(ours, account.uid, account.gid)


class FarWriter(HelperWriter):
    """A helper's writer whose helper is this process, and ends with it."""

    def __init__(self, near: BatchWriter) -> None:
        self.near = near
        self.supplier = HereSupplier(near)
        self.helpers = Helpers(self.supplier, 60.0)
        super().__init__(self.helpers)

    async def close(self) -> None:
        await super().close()
        await self.helpers.close()
        await self.near.close()


@contextlib.contextmanager
def passable_directory(uid: int = 0, gid: int = 0) -> Iterator[Path]:
    """A directory that others than root can pass through, as those of pytest's cannot be."""
    path = tempfile.mkdtemp(prefix="restante-")
    try:
        os.chmod(path, 0o755)
        if os.geteuid() == 0:
            os.chown(path, uid, gid)
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)

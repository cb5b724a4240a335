"""Who works with mail for a worker: the worker itself, or the helpers of its owners."""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass

from restante.config import Settings
from restante.directory import SystemFiles
from restante.directory.system import system_files
from restante.helper.choice import ChoosingFiles, ChoosingStore, ChoosingWriter, Nearness
from restante.helper.files import HelperFiles
from restante.helper.homemaking import Homes, HomesFirst
from restante.helper.homes import HomeRules
from restante.helper.limits import Limits
from restante.helper.office import Asks, OfficeSupplier
from restante.helper.pool import Helpers
from restante.helper.store import HelperStore
from restante.helper.writer import HelperWriter
from restante.mda import MailboxWriter
from restante.mda.writer import BatchWriter
from restante.mounts import FarPlaces
from restante.rights import Ways, own_rights, owners_rights
from restante.store import MailStore
from restante.store.maildir import MaildirStore


@dataclass(frozen=True, slots=True)
class Hands:
    """What touches files of mailboxes' owners."""

    writer: MailboxWriter
    store: MailStore
    files: SystemFiles
    helpers: Helpers | None

    async def close(self) -> None:
        """Finish what was begun and stop."""
        await self.writer.close()
        if self.helpers is not None:
            await self.helpers.close()


def own_hands(settings: Settings) -> Hands:
    """The process does all of it: as a user for this user's mailboxes, as root for all."""
    return Hands(
        _own_writer(settings),
        MaildirStore(_own_ways(settings)),
        system_files(settings),
        None,
    )


def helping_hands(settings: Settings, supervisor: Asks) -> Hands:
    """A helper of each owner does it, but for the mailboxes of the process's own user, as far as
    those lie on disks of this machine."""
    mail = settings.mail
    places = FarPlaces()
    nearness = Nearness(places)
    objection = limits(settings, os.geteuid()).objection
    share = max(1, settings.queue.concurrencylocal // 4)
    helpers = Helpers(OfficeSupplier(supervisor), mail.helper_idle, places, objection, share)
    near = _own_writer(settings)
    files: SystemFiles = system_files(settings)
    if settings.routing.system_files:
        files = ChoosingFiles(files, HelperFiles(helpers), nearness)
    writer = ChoosingWriter(near, HelperWriter(helpers, settings.programs.timeout), nearness)
    return Hands(
        HomesFirst(writer, Homes(supervisor)),
        ChoosingStore(MaildirStore(own_rights), HelperStore(helpers), nearness),
        files,
        helpers,
    )


def _own_ways(settings: Settings) -> Ways:
    """A user's rights are the same in any thread: the store may do without one."""
    if os.geteuid() != 0:
        return own_rights
    return owners_rights(settings.mail.minimum_uid, settings.mail.minimum_gid)


def _own_writer(settings: Settings) -> BatchWriter:
    mail = settings.mail
    return BatchWriter(
        settings.hostname,
        mail.minimum_uid,
        mail.minimum_gid,
        programs=settings.programs,
        instance=settings.directory,
    )


def limits(settings: Settings, server_uid: int) -> Limits:
    """What the nursery is told; ``server_uid``: the workers'."""
    mail = settings.mail
    return Limits(
        settings.hostname,
        mail.minimum_uid,
        mail.minimum_gid,
        mail.helpers,
        settings.server.drain_timeout,
        settings.directory,
        settings.programs,
        HomeRules(
            [settings.path(root) for root in (mail.root, *mail.home_roots)],
            _uid_of(mail.user),
        ),
        server_uid,
    )


def _uid_of(user: str) -> int:
    """Of ``mail.user``; root's where none is named, or there is none."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(user).pw_uid
    return 0

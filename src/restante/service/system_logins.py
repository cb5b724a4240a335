"""Logins of the system's users: who asks the shadow file, and how a worker asks him."""

from __future__ import annotations

from restante.auth import NoSystemLogins, SystemLogins
from restante.auth.system import HostLogins
from restante.config import Settings
from restante.directory.system import HostPasswords


def system_logins(settings: Settings) -> SystemLogins:
    """What a worker asks where no table knows a login."""
    if not settings.routing.system_files:
        return NoSystemLogins()
    return HostLogins(HostPasswords(settings.mail.minimum_uid), settings.auth)

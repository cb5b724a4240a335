"""Passwords in files that everybody can read: reason enough not to start."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from restante.config.tree import Settings


def exposed_passwords(
    settings: Settings, sources: Mapping[tuple[str, str], str], toml: str
) -> Iterator[str]:
    """Which files hold a password that is in force and that everybody can read; and the remedy.

    ``sources`` names the place that each setting comes from: one in restante.toml, whose path
    is ``toml``, the path of a control file, or a variable of the environment.
    """
    if settings.database.allow_exposed_password:
        return
    in_toml = f"{os.path.basename(toml)}:"
    places = [sources.get(setting, "") for setting in _passwords(settings)]
    files = [toml if place.startswith(in_toml) else place for place in places]
    for path in dict.fromkeys(filter(os.path.isabs, files)):
        if _is_for_everybody(path):
            # qmail's programs run as many users, who must read the control directory's file.
            how_long = "" if path == toml else " for as long as programs of qmail's need the file"
            yield (
                f"{path} holds a password and everybody can read it; run: chmod o-rwx {path} "
                f"(or set database.allow_exposed_password{how_long})"
            )


def _is_for_everybody(path: str) -> bool:
    """Whether others than owner and group may read it; not if it has gone meanwhile."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


def _passwords(settings: Settings) -> Iterator[tuple[str, str]]:
    """Section and name of each setting that holds one."""
    credentials, at, _ = settings.database.url.partition("://")[2].rpartition("@")
    if at and ":" in credentials:
        yield "database", "url"
    if settings.relay.credentials:
        yield "relay", "credentials"

"""A qmail control directory as a layer of settings, under restante.toml and the environment.

Where a directory is named, what its files leave out is as qmail-control(5) has it: the domains
in control/locals, for one, are control/me then. Two defaults are not qmail's. Without rcpthosts
nobody may relay (qmail accepts everything); and how much is done at the same time, which says
nothing about where mail goes, follows Restante's own processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from restante.config.control_files import Files, Stamps
from restante.config.control_syntax import (
    delivery,
    domain,
    domains,
    double_bounces,
    number,
    recipient_hosts,
    routes,
    seconds,
    senders,
    table,
    text,
)
from restante.config.sqlserver import database_url
from restante.config.tree import DAY, HOUR, system_hostname

Name = tuple[str, str]
"""Section and name of a setting."""

DATABYTES = 0
"""No limit: qmail's default."""
TIMEOUTSMTPD = 1200
"""Seconds; qmail's default, where RFC 5321 §4.5.3.2.7 asks for 300 at least."""
ME: Name = ("server", "me")
SYSTEM_FILES: Name = ("routing", "system_files")
"""No file's, but part of what a site has that has such a directory."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a setting comes from."""

    setting: Name
    read: Callable[[Files, str], Any]
    """Gives what a file says as TOML would have it; None if it says nothing."""
    default: Callable[[str], Any] | None = None
    """What stands then, by the host's name; None: what Restante has without control files."""
    file: str = ""
    """Where that is not the setting's name."""
    also: tuple[str, ...] = ()
    """Further files that are read for it."""
    live: bool = True
    """A running server heeds changes; otherwise it does at SIGHUP."""

    @property
    def files(self) -> tuple[str, ...]:
        """All of them, the first of which complaints about the setting name."""
        return (self.file or self.setting[1], *self.also)

    def take(self, files: Files) -> Any:
        """The setting's value; None for Restante's own default."""
        found = self.read(files, self.files[0])
        return self.default(files.me) if found is None and self.default else found


SOURCES = (
    Source(ME, domain, live=False),
    Source(("database", "url"), database_url, file="sqlserver", live=False),
    Source(("sendmail", "defaulthost"), domain, live=False),
    Source(("sendmail", "defaultdomain"), domain, str, live=False),
    Source(("sendmail", "plusdomain"), domain, str, live=False),
    Source(("routing", "envnoathost"), domain),
    Source(("routing", "localiphost"), domain, str),
    Source(("routing", "locals"), domains, lambda me: [me]),
    Source(("routing", "rcpthosts"), recipient_hosts, also=("morercpthosts",)),
    Source(("routing", "virtualdomains"), table),
    Source(("routing", "smtproutes"), routes),
    Source(("routing", "defaultdelivery"), delivery),
    Source(("receiver", "badmailfrom"), senders),
    Source(("smtp", "greeting"), text, file="smtpgreeting"),
    Source(("smtp", "databytes"), number, lambda _: DATABYTES),
    Source(("smtp", "timeoutsmtpd"), partial(seconds, most=DAY), lambda _: TIMEOUTSMTPD),
    Source(("relay", "helohost"), domain),
    Source(("relay", "timeoutconnect"), partial(seconds, most=HOUR)),
    Source(("relay", "timeoutremote"), partial(seconds, most=DAY)),
    Source(("queue", "queuelifetime"), number, live=False),
    Source(("queue", "concurrencylocal"), number, live=False),
    Source(("queue", "concurrencyremote"), number, live=False),
    Source(("queue", "bouncefrom"), text),
    Source(("queue", "bouncehost"), domain),
    Source(("queue", "doublebounceto"), double_bounces, also=("doublebouncehost",)),
)
"""What is read for which setting: all files, and no other."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What the control directory says."""

    values: Mapping[Name, Any] = field(default_factory=dict)
    """As TOML would have them."""
    places: Mapping[Name, str] = field(default_factory=dict)
    """The file behind each, as complaints name it."""
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    stamps: Stamps = field(default_factory=dict)
    """Of the files that were read."""


def read_control(
    directory: str, environ: Mapping[str, str], wanted: Callable[[Source], bool], me: str
) -> Layer:
    """What the files say for the ``wanted`` settings; files of no use to them are not opened.

    ``me`` is the host's name; empty if that is for the directory to say. Complaints are part of
    the answer; nothing is raised.
    """
    if not os.path.isdir(directory):
        return Layer(problems=(f"{directory}: there is no such control directory",))
    files = Files(directory, environ)
    files.me = me or _me(files)
    values: dict[Name, Any] = {}
    places: dict[Name, str] = {}
    for source in filter(wanted, SOURCES):
        value = source.take(files)
        if value is not None:
            values[source.setting] = value
            places[source.setting] = files.place(source.files[0])
    return Layer(values, places, tuple(files.problems), tuple(files.warnings), files.stamps)


def _me(files: Files) -> str:
    name = domain(files, "me")
    if name is None:
        name = system_hostname()
        files.warn("me", f"names no host; {name}, as the system has it, stands in")
    return name

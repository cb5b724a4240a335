"""What workers need of Python is imported before they are forked.

So it is read once, and lies in memory once, as what OpenSSL makes of its own when it is first
used. And Python may be installed where only root may
read (a home of root's, a private environment): what a worker that is no longer root imports
would then not be found. Modules that everybody needs are imported at the top of those that use
them; here are those that are usually imported when they are first of use.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec

from restante.config import Settings
from restante.directory.engine import MySQLLocation, parse_url
from restante.metrics.files import figures_directory
from restante.metrics.prometheus import DIRECTORY_VARIABLE

_RELAYING = (
    "dns._asyncio_backend",
    "dns.rdtypes.ANY.CNAME",
    "dns.rdtypes.ANY.MX",
    "dns.rdtypes.ANY.NS",
    "dns.rdtypes.ANY.OPT",
    "dns.rdtypes.ANY.SOA",
    "dns.rdtypes.IN.A",
    "dns.rdtypes.IN.AAAA",
)
"""What the DNS answers."""
_LETTERS = ("idna", "idna.uts46data", "encodings.punycode")
"""What names in other letters are read with."""
_ENCODINGS = ("encodings.ascii", "encodings.idna", "encodings.latin_1", "stringprep")

_MISTAKES = ("difflib", "restante.config.control", "restante.config.nexthop")
"""What control files need that are read again, and what is said of mistakes in them."""


def preload(settings: Settings, rights: AbstractContextManager[None]) -> None:
    """Import what workers with these settings may need; ``rights`` are theirs."""
    for name in (*_RELAYING, *_LETTERS, *_ENCODINGS, *_MISTAKES, "binascii", "ipaddress"):
        import_module(name)
    preload_driver(settings, rights)
    if settings.metrics.listen:
        # prometheus-client looks at its environment when it is imported.
        os.environ[DIRECTORY_VARIABLE] = figures_directory(settings.directory)
        import_module("prometheus_client.multiprocess")
        import_module("gzip")


def preload_driver(settings: Settings, rights: AbstractContextManager[None]) -> None:
    """What whoever asks the database with these ``rights`` may need."""
    location = parse_url(settings.database.url, settings.directory)
    is_mysql = isinstance(location, MySQLLocation)
    import_module(f"restante.directory.{'mysql' if is_mysql else 'sqlite'}")
    if is_mysql and not _is_in_reach("cryptography", rights):
        import_module("restante.directory.driver").learn_rsa()


def _is_in_reach(package: str, rights: AbstractContextManager[None]) -> bool:
    """Whether it can be imported with these rights as well."""
    found = find_spec(package)  # with this process's rights, as Python remembers what it finds
    with rights:
        return bool(found and found.origin and os.access(found.origin, os.R_OK, effective_ids=True))

"""What database.url says of TLS to a MySQL or MariaDB server: whether, and how it is checked.

The options have the names that they have in MySQL's own programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from restante.errors import OperatorError

Mode = Literal["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"]
"""Encrypted alone; with a certificate of an authority that is believed; that names the host."""
_MODES: tuple[Mode, ...] = get_args(Mode)
_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
OPTIONS = frozenset({"ssl_mode", *_FILES})


@dataclass(frozen=True, slots=True)
class Encryption:
    """TLS as database.url wants it; files by absolute paths."""

    mode: Mode
    authorities: str = ""
    """Who is believed; empty: whom the system believes."""
    certificate: str = ""
    """What the server is shown; empty: nothing."""
    key: str = ""

    @property
    def files(self) -> frozenset[str]:
        """All that are to be read."""
        return frozenset({self.authorities, self.certificate, self.key} - {""})


def read_encryption(options: Mapping[str, str], directory: str) -> Encryption | None:
    """What the options of a URL say, None where it is nothing; relative paths start at
    ``directory``. Raises OperatorError."""
    given = OPTIONS & options.keys()
    if not given:
        return None
    if "unix_socket" in options:
        raise OperatorError(
            f"database.url has {min(given)} and a unix_socket: nobody else hears what goes through "
            "a socket of this host; name one of the two"
        )
    mode = _mode(options)
    if ("ssl_cert" in options) != ("ssl_key" in options):
        raise OperatorError("database.url has only one of ssl_cert and ssl_key: name both")
    if mode == "REQUIRED" and "ssl_ca" in options:
        raise OperatorError(
            "database.url has ssl_ca, and ssl_mode=REQUIRED, which checks no certificate: "
            "write VERIFY_IDENTITY or VERIFY_CA"
        )
    return Encryption(mode, *(_path(name, options, directory) for name in _FILES))


def _mode(options: Mapping[str, str]) -> Mode:
    """Who names an authority wants the server checked, as far as it can be."""
    if "ssl_mode" not in options and "ssl_ca" not in options:
        raise OperatorError("database.url has ssl_cert without ssl_mode: add VERIFY_IDENTITY")
    named = options.get("ssl_mode", "VERIFY_IDENTITY")
    for mode in _MODES:
        if named.upper() == mode:
            return mode
    raise OperatorError(
        f"database.url has the ssl_mode {named!r}: it must be VERIFY_IDENTITY (certificate and "
        "host name are checked), VERIFY_CA (the certificate is) or REQUIRED (nothing is)"
    )


def _path(name: str, options: Mapping[str, str], directory: str) -> str:
    if name not in options:
        return ""
    path = options[name]
    if not path or "\0" in path:
        raise OperatorError(f"database.url: {name} names no file")
    return str(Path(directory) / path)

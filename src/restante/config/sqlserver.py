"""control/sqlserver: where qmail's MySQL patches find their database, as a database.url."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from restante.config.control_files import Files
from restante.config.tree import MAX_PORT

HERE = "localhost"
"""To libmysqlclient this is the server's socket, whatever the port; and so is no name at all."""
KEYS = ("server", "login", "password", "db", "port")
SOCKET_VARIABLE = "MYSQL_UNIX_PORT"
"""The environment variable with which libmysqlclient is told of another socket."""
SOCKETS = (
    "/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",  # noqa: S108 - where MySQL's own builds put it; nothing is written there
)
"""Where Debian, Red Hat and MySQL itself have the server's socket; the first is the default."""


def database_url(files: Files, name: str) -> str | None:
    """The URL that the file says; None where there is none, or none that can be used."""
    lines = files.lines(name)
    if lines is None:
        return None
    told: dict[str, str] = {}
    for line in lines:
        key, *value = line.text.split(None, 1)
        if key not in KEYS:
            # Not shown: it may well be the password, of a line that is written wrongly.
            files.warn(name, "begins with none of " + ", ".join(KEYS), line.number)
        elif not value:
            files.warn(name, f"{key} has no value", line.number)
        else:
            if key in told:
                files.warn(name, f"{key} is there twice; the last one counts", line.number)
            told[key] = value[0]
    for key in ("login", "db"):
        if key not in told:
            files.problem(name, f"names no {key}")
    port = _port(files, name, told.get("port", ""))
    if port and told.get("server", HERE) == HERE:
        files.warn(name, f"the port does not count: {HERE} is the socket, and 127.0.0.1 is TCP")
    return _url(told, port, files.environ) if {"login", "db"} <= told.keys() else None


def _port(files: Files, name: str, text: str) -> int:
    """The port, or 0 where the file leaves it open, as with 0 it does."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= MAX_PORT):
        files.problem(name, f"the port is no number from 1 to {MAX_PORT}")
        return 0
    return int(text)


def _url(told: Mapping[str, str], port: int, environ: Mapping[str, str]) -> str:
    login, password = _encoded(told["login"]), _encoded(told.get("password", ""))
    credentials = f"{login}:{password}" if password else login
    server = told.get("server", HERE)
    database = _encoded(told["db"])
    if server == HERE:
        socket = urlencode({"unix_socket": _socket(environ)})
        return f"mysql://{credentials}@{HERE}/{database}?{socket}"
    host = f"[{server}]" if ":" in server else _encoded(server)
    return f"mysql://{credentials}@{host}{f':{port}' if port else ''}/{database}"


def _encoded(text: str) -> str:
    return quote(text, safe="")


def _socket(environ: Mapping[str, str]) -> str:
    named = environ.get(SOCKET_VARIABLE, "")
    return named or next((path for path in SOCKETS if os.path.exists(path)), SOCKETS[0])

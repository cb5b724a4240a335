"""What the rows of the tables mean, and which of them cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterable

from restante.address import fold
from restante.directory import MAX_ID, Account, BadRow, Credentials
from restante.directory.engine import Row, Value

_DIGITS = re.compile(r"0*([0-9]{1,10})")
"""A column that is ZEROFILL has as many zeros in front as it is wide."""


def text_of(value: Value) -> str:
    """A column as text; NULL is empty, and a whole number has no point whatever its type."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def key_of(value: Value) -> str:
    """A column in the form in which names are compared; NULL is empty."""
    if isinstance(value, str) and value.isascii():
        return value.lower()  # as ``fold`` does it; there are four in each row
    return fold(text_of(value))


def chosen(rows: Iterable[Row]) -> Row | None:
    """The row that counts where a user name has several: always the same one."""
    found = list(rows)
    if len(found) > 1:
        return min(found, key=_order)
    return found[0] if found else None


def _order(row: Row) -> tuple[str, ...]:
    return tuple(text_of(value) for value in row)


def account_of(row: Row) -> Account:
    """The account of a row that begins with username, uid, gid, home; raises BadRow."""
    name = row[0] if isinstance(row[0], str) else text_of(row[0])
    return Account(name, _id(name, "uid", row[1]), _id(name, "gid", row[2]), _home(name, row[3]))


def credentials_of(row: Row) -> Credentials:
    """The credentials of a row that goes on with password, password_type; raises BadRow."""
    return Credentials(account_of(row), _optional(row[4]), _optional(row[5]))


def line_of(username: Value, host: Value) -> str:
    """The instruction line of a row of ``alias`` (decision 4)."""
    target, domain = text_of(username), text_of(host)
    return f"&{target}@{domain}" if domain else target


def checked_owners(owners: Iterable[str], local: str, domain: str) -> tuple[str, ...]:
    """The owners of an address, sorted, each once; raises BadRow where a row names none."""
    result = distinct(owners)
    if "" in result:
        raise BadRow(f"table virtual, row {local}@{domain}: username is empty")
    return result


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """``texts`` sorted, each once."""
    return tuple(sorted(set(texts)))


def each_once(texts: Iterable[str]) -> tuple[str, ...]:
    """``texts`` in their order, each once."""
    return tuple(dict.fromkeys(texts))


def _optional(value: Value) -> str | None:
    return None if value is None else text_of(value)


def _id(name: str, column: str, value: Value) -> int:
    if isinstance(value, int) and 0 <= value <= MAX_ID:
        return value
    digits = _DIGITS.fullmatch(text_of(value))
    if digits is None or int(digits[1]) > MAX_ID:
        raise _bad(name, column, "is no user or group number")
    return int(digits[1])


def _home(name: str, value: Value) -> str:
    home = value if isinstance(value, str) else text_of(value)
    if not home.startswith("/") or "\0" in home:
        raise _bad(name, "home", "is no absolute path")
    return home


def _bad(name: str, column: str, what: str) -> BadRow:
    return BadRow(f"table mailbox, row {name!r}: {column} {what}")

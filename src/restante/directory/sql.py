"""The statements of the look-ups, for the qmail/MySQL tables.

Every statement is plain text with ``?`` for parameters; backticks quote names on
SQLite and MySQL alike (``virtual`` is reserved in MySQL 8). Values are compared
by the database's own rules, which may find too much (accents, trailing blanks):
what was found is compared again in Python. They must not find too little: names
are asked for in small letters, and ``check`` says where a collation would tell
these from capitals. A home is taken as it is, since a column of octets may hold
some that are no UTF-8.
"""

# ruff: noqa: S608 - the parts put together here are fixed texts; values are parameters

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from restante.directory.engine import Dialect

ALIAS_USER = "alias"
"""Whose instructions serve the addresses that have no account."""


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _select(dialect: Dialect, *columns: str) -> str:
    return ", ".join(dialect.text(column) for column in columns)


def _spelling(dialect: Dialect, *columns: str) -> str:
    """The columns, and their lengths: DISTINCT tells no trailing blanks apart without them."""
    lengths = [f"LENGTH({column})" for column in columns]
    return ", ".join((_select(dialect, *columns), *lengths))


@lru_cache
def accepts_domain(dialect: Dialect) -> str:
    """Parameters: host. Rows: host."""
    return f"SELECT {_select(dialect, '`host`')} FROM `rcpthosts` WHERE `host` = ?"


@lru_cache
def account(dialect: Dialect) -> str:
    """Parameters: username. Rows: username, uid, gid, home."""
    columns = _select(dialect, "`username`", "`uid`", "`gid`")
    return f"SELECT {columns}, `home` FROM `mailbox` WHERE `username` = ?"


@lru_cache
def owners(dialect: Dialect) -> str:
    """Parameters: host, local part. Rows: host, local part, owner."""
    columns = _select(dialect, "`virtual_host`", "`virtual_username`", "`username`")
    return f"SELECT {columns} FROM `virtual` WHERE `virtual_host` = ? AND `virtual_username` = ?"


@lru_cache
def knows_domain(dialect: Dialect) -> str:
    """Parameters: host. Rows: every spelling of the host that the database takes for equal."""
    columns = _spelling(dialect, "`virtual_host`")
    return f"SELECT DISTINCT {columns} FROM `virtual` WHERE `virtual_host` = ?"


@lru_cache
def owns_in(dialect: Dialect) -> str:
    """Parameters: user, host. Rows: every spelling of both that the database takes for equal."""
    columns = _spelling(dialect, "`username`", "`virtual_host`")
    return f"SELECT DISTINCT {columns} FROM `virtual` WHERE `username` = ? AND `virtual_host` = ?"


@lru_cache
def instructions(dialect: Dialect) -> str:
    """Parameters: user, extension. Rows: user, extension, target's local part and host."""
    columns = _select(dialect, "`username`", "`alias`", "`alias_username`", "`alias_host`")
    return f"SELECT {columns} FROM `alias` WHERE `username` = ? AND `alias` = ?"


def _credentials(dialect: Dialect) -> str:
    account = _select(dialect, "m.`username`", "m.`uid`", "m.`gid`")
    return f"{account}, m.`home`, {_select(dialect, 'm.`password`', 'm.`password_type`')}"


@lru_cache
def credentials(dialect: Dialect) -> str:
    """Parameters: username. Rows: username, uid, gid, home, password, password_type."""
    return f"SELECT {_credentials(dialect)} FROM `mailbox` m WHERE m.`username` = ?"


@lru_cache
def owners_credentials(dialect: Dialect) -> str:
    """Parameters: host, local part. Rows: as credentials, then host, local part, owner."""
    address = _select(dialect, "v.`virtual_host`", "v.`virtual_username`", "v.`username`")
    return (
        f"{dialect.select} {_credentials(dialect)}, {address} "
        f"FROM `virtual` v {dialect.join} `mailbox` m ON m.`username` = v.`username` "
        "WHERE v.`virtual_host` = ? AND v.`virtual_username` = ?"
    )


@lru_cache
def replace_password(dialect: Dialect) -> str:
    """Parameters: new hash, username twice, old hash twice."""
    return f"UPDATE `mailbox` SET `password` = ? WHERE {_exact_password(dialect)}"


@lru_cache
def touch_password(dialect: Dialect) -> str:
    """Parameters: username twice, hash twice. Changes nothing, and finds the row as it now is."""
    return f"UPDATE `mailbox` SET `password` = `password` WHERE {_exact_password(dialect)}"


def _exact_password(dialect: Dialect) -> str:
    return " AND ".join(
        f"`{column}` = ? AND {dialect.exactly(f'`{column}`')}"
        for column in ("username", "password")
    )


class OrdinaryShape(NamedTuple):
    """How many parameters the statement for some addresses has; statements are kept by shape."""

    pairs: int
    one_domain: bool
    """All addresses are in one domain: a shorter condition, and a cheaper plan."""


@lru_cache(maxsize=64)
def ordinary(dialect: Dialect, shape: OrdinaryShape) -> str:
    """Whose some addresses are, what these owners have, and which hosts ``rcpthosts`` has.

    All that routing asks about an address that ``virtual`` gives to a mailbox or to an alias,
    by one key after another. Parameters: with one domain the domain, then it and the local
    parts; else a domain and a local part for each address, then the domain of each. Rows:

    host, local part, owner; then username, uid, gid, home of the owner's mailbox, or
    NULL; then user, extension, target's local part and host of an instruction, or NULL: of
    the owner without extension where there is a mailbox, of the user ``alias`` with the owner
    as the extension where there is none; then a host in rcpthosts, or NULL.

    With one domain it is a plain join, which costs MariaDB a fifth less, and says nothing of
    rcpthosts where nobody owns anything. With several, the hosts have rows of their own, in which
    the rest is NULL; equal hosts of the two tables are not joined, as they may have collations
    that do not go together.
    """
    columns = ", ".join(_OWNED)
    if shape.one_domain:
        rcpthosts = "LEFT JOIN `rcpthosts` r ON r.`host` = ?"
        return f"{dialect.select} {columns}, r.`host` FROM {_owned(shape, rcpthosts)}"
    nothing = "NULL, " * len(_OWNED)
    hosts = f"`rcpthosts` WHERE `host` IN ({_marks(shape.pairs)})"
    return (
        f"{dialect.select} {columns}, NULL FROM {_owned(shape)} "
        f"UNION ALL SELECT {nothing}`host` FROM {hosts}"
    )


def _owned(shape: OrdinaryShape, beside: str = "") -> str:
    """Owners with what they have; ``beside``: another table that is joined."""
    return (
        f"`virtual` v {beside} LEFT JOIN `mailbox` m ON m.`username` = v.`username` "
        f"LEFT JOIN `alias` a ON a.`username` = {_without_mailbox(_ALIAS_NAME, 'v.`username`')} "
        f"AND a.`alias` = {_without_mailbox('v.`username`', _EMPTY)} "
        f"WHERE {_is_one_of(shape)}"
    )


@lru_cache(maxsize=64)
def unowned(dialect: Dialect, shape: OrdinaryShape, domains: int) -> str:
    """Whether ``virtual`` has some domains, and whose some addresses are, at the same moment.

    Parameters: with one domain it and the local parts, else a domain and a local part for each
    address; the domains; the domains. Rows: ``v`` host, local part, owner; ``r`` host in
    rcpthosts; ``k`` host in virtual, place of the domain among those asked.
    """
    columns = ("v.`virtual_host`", "v.`virtual_username`", "v.`username`")
    arms = [
        _arm(dialect, "v", columns, f"`virtual` v WHERE {_is_one_of(shape)}"),
        _arm(dialect, "r", ("`host`",), f"`rcpthosts` WHERE `host` IN ({_marks(domains)})"),
        *(_known_arm(dialect, number) for number in range(domains)),
    ]
    return " UNION ALL ".join(arms)


_ALIAS_NAME = f"'{ALIAS_USER}'"
_EMPTY = "''"


def _without_mailbox(then: str, otherwise: str) -> str:
    return f"CASE WHEN m.`username` IS NULL THEN {then} ELSE {otherwise} END"


def _is_one_of(shape: OrdinaryShape) -> str:
    if shape.one_domain:
        return f"v.`virtual_host` = ? AND v.`virtual_username` IN ({_marks(shape.pairs)})"
    each = "(v.`virtual_host` = ? AND v.`virtual_username` = ?)"
    return " OR ".join([each] * shape.pairs)


@lru_cache
def known(dialect: Dialect) -> str:
    """Parameters: the domain. Rows: ``k``, a spelling of it that virtual has, if there is one."""
    return _known_arm(dialect, 0)


@dataclass(frozen=True, slots=True)
class ThoroughShape:
    """As OrdinaryShape, for the statement that leaves nothing out."""

    locals_by_domain: tuple[int, ...]
    """For each domain, how many local parts are asked (the catch-all comes on top)."""
    names: int
    extensions: int
    pairs: int


@lru_cache(maxsize=256)
def thorough(dialect: Dialect, shape: ThoroughShape) -> str:
    """All that routing can ask about some addresses, in one statement of tagged rows.

    Parameters: for each domain the domain and its local parts; the user names; the user
    names; the extensions of the user ``alias``; the (user, extension) pairs; the domains;
    the domains. Rows, a tag, four texts and a home each:

    ``v`` host, local part, owner; ``m`` username, uid, gid, and the home; ``a`` user, extension,
    target's local part and host; ``r`` host in rcpthosts; ``k`` host in
    virtual, place of the domain among those asked.
    """
    domains = len(shape.locals_by_domain)
    arms = [
        *_owner_arms(dialect),
        *_name_arms(dialect, shape),
        _arm(dialect, "r", ("`host`",), f"`rcpthosts` WHERE `host` IN ({_marks(domains)})"),
        *(_known_arm(dialect, number) for number in range(domains)),
    ]
    return f"WITH o AS ({_owners_of(shape.locals_by_domain)}) " + " UNION ALL ".join(arms)


def _owners_of(locals_by_domain: Iterable[int]) -> str:
    conditions = " OR ".join(
        f"(`virtual_host` = ? AND `virtual_username` IN ({_marks(count)}, ''))"
        for count in locals_by_domain
    )
    return (
        "SELECT `virtual_host` AS host, `virtual_username` AS name, `username` AS owner "
        f"FROM `virtual` WHERE {conditions}"
    )


_USER = ("m.`username`", "m.`uid`", "m.`gid`")
_HOME = "m.`home`"
_ALIAS = ("a.`username`", "a.`alias`", "a.`alias_username`", "a.`alias_host`")
_OWNED = ("v.`virtual_host`", "v.`virtual_username`", "v.`username`", *_USER, _HOME, *_ALIAS)


_NOTHING = "SUBSTR(o.owner, 1, 0)"
"""An empty text. SQLite reads all of ``alias`` into a Bloom filter where it sees ``''``."""


def _owner_arms(dialect: Dialect) -> list[str]:
    """What ``virtual`` says, and what follows from it for the owners found."""
    return [
        _arm(dialect, "v", ("o.host", "o.name", "o.owner"), "o"),
        _arm(
            dialect,
            "m",
            _USER,
            f"o {dialect.join} `mailbox` m ON m.`username` = o.owner",
            _HOME,
        ),
        _arm(
            dialect,
            "a",
            _ALIAS,
            f"o {dialect.join} `alias` a ON a.`username` = '{ALIAS_USER}' AND a.`alias` = o.owner",
        ),
        _arm(
            dialect,
            "a",
            _ALIAS,
            f"o {dialect.join} `alias` a ON a.`username` = o.owner AND a.`alias` = {_NOTHING}",
        ),
    ]


def _name_arms(dialect: Dialect, shape: ThoroughShape) -> list[str]:
    """What is there for the names that the addresses themselves may mean."""
    names, extensions = _marks(shape.names), _marks(shape.extensions)
    arms = [
        _arm(dialect, "m", _USER, f"`mailbox` m WHERE m.`username` IN ({names})", _HOME),
        _arm(
            dialect,
            "a",
            _ALIAS,
            f"`alias` a WHERE a.`username` IN ({names}) AND a.`alias` = ''",
        ),
        _arm(
            dialect,
            "a",
            _ALIAS,
            f"`alias` a WHERE a.`username` = '{ALIAS_USER}' AND a.`alias` IN ({extensions})",
        ),
    ]
    if shape.pairs:
        pairs = " OR ".join(["(a.`username` = ? AND a.`alias` = ?)"] * shape.pairs)
        arms.append(_arm(dialect, "a", _ALIAS, f"`alias` a WHERE {pairs}"))
    return arms


def _known_arm(dialect: Dialect, number: int) -> str:
    # One row is enough; a domain may have a hundred thousand.
    host = "`virtual_host`"
    one = f"(SELECT {host} FROM `virtual` WHERE {host} = ? LIMIT 1) k{number}"
    return _arm(dialect, "k", (host, f"'{number}'"), one)


_WIDTH = 4
"""Texts behind the tag of a thorough answer."""


def _arm(
    dialect: Dialect, tag: str, columns: tuple[str, ...], source: str, home: str = "NULL"
) -> str:
    """Rows of a UNION. A home has a place of its own: as text it might lose octets."""
    padding = ", NULL" * (_WIDTH - len(columns))
    texts = _select(dialect, *columns)
    return f"{dialect.select} '{tag}', {texts}{padding}, {home} FROM {source}"

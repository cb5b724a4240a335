"""What errors of MySQL and MariaDB mean: for the connection, for the server, for whoever asked."""

from __future__ import annotations

import os
import re
import ssl

from restante.directory.driver import MySQLError
from restante.directory.engine import Overtaken, Rejected, Unfit
from restante.directory.handshake import NOT_OFFERED, objection
from restante.errors import CannotKnow, reason_of

# Errors of a statement by a server that is otherwise well (dev.mysql.com, Server Error Message
# Reference): bad syntax, columns, tables and values, missing rights on a table, duplicates, names
# that a column's character set cannot hold (1267 to 1271 on MariaDB, 3854 and 3988 on MySQL 8),
# views that cannot be changed (1288, 1348, 1369, 1393 to 1395, 1423, 1471), views and triggers
# whose definer is gone or may not read what they show (1356, 1449), or that call what is gone or
# may not be called (1305, 1370), constraints and triggers that object (1644, 3819, 4025), a table
# without the primary key that group replication wants (3098), changes where nothing may be changed
# (1290, 1792, 1836: read_only, as replicas have it; 1036: innodb_read_only, a table's own files),
# rows of a view that cannot be computed (1242, 1690, 3141), statements that are too much for
# max_join_size (1104) or that a trigger keeps from their own table (1442), and those that pass:
# tables or disks that are full (1114), statements that somebody killed (1317), or that have to be
# prepared again.
_TO_BE_PREPARED_AGAIN = 1615
_PASSING = frozenset({1114, 1317, _TO_BE_PREPARED_AGAIN})
_UNFIT = frozenset({1267, 1270, 1271, 3854, 3988})
_STATEMENT_ERRORS = _UNFIT | frozenset(
    {1048, 1054, 1062, 1064, 1136, 1142, 1143, 1146, 1241, 1264, 1265, 1292, 1300, 1364, 1365}
    | {1366, 1406, 1451, 1452, 1288, 1348, 1393, 1394, 1395, 1423, 1471, 1644, 3819, 4025}
    | {1369, 1356, 1449, 1305, 1370, 3098, 1290, 1792, 1836, 1036, 1242, 1690, 3141, 1104}
    | {1442}
    | _PASSING
)
# The server is well, and another transaction goes first: a lock was waited for too long, or a
# deadlock, which is also what Galera calls a commit that another node's commit has overtaken; to
# MySQL's group replication that is 3101; or a row has changed since the transaction first read
# (1020, innodb_snapshot_isolation, as MariaDB from 11.6.2 on has it).
_OVERTAKEN = frozenset({1020, 1205, 1213, 3101})
# The server is well, and takes no further connection, of this user or of anybody.
_NO_MORE_CONNECTIONS = frozenset({1040, 1203, 1226})
_NOT_CONNECTED = 2003
_REMEDIES = {
    _NOT_CONNECTED: "is the server running, and is database.url right?",
    1044: "is the database in database.url this user's?",
    1045: "are user and password in database.url right, and ssl_mode where TLS is demanded?",
    1049: "is the name at the end of database.url right?",
    3159: "set ssl_mode in database.url",
}
"""What to look at after errors that an operator has most often when something is set up."""
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_FIRST_CLIENT_ERROR = 2000
_LAST_CLIENT_ERROR = 2999
"""Numbers of errors found on this side: the connection is gone (2006, 2013) or out of step."""


class NotOffered(Exception):
    """The server speaks no TLS, and must."""

    def __init__(self) -> None:
        super().__init__(NOT_OFFERED)


class ChangeWaited(TimeoutError):
    """A change was not done in time: maybe for another's lock, for which no look-up waits."""


class AllTaken(Exception):
    """Nobody has given a connection back in time: the database answers, but not so much at once, or
    hangs, which those tell who have the connections.

    It is not Rejected: what was asked together is not to be asked once more, one by one.
    """

    def __init__(self, size: int) -> None:
        super().__init__(
            f"all {size} connections are taken, and none was free in time: the database is slow, "
            "or database.pool_size small"
        )


def _number(error: BaseException) -> int:
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) else 0


def is_full(error: Exception) -> bool:
    """Whether the server is well, and takes no further connection."""
    return _number(error) in _NO_MORE_CONNECTIONS


def is_lost(error: Exception) -> bool:
    """Whether a connection, or what was prepared on it, is good for nothing any more."""
    if not isinstance(error, MySQLError):
        return False
    number = _number(error)
    if number in (0, _TO_BE_PREPARED_AGAIN):
        return True
    return _FIRST_CLIENT_ERROR <= number <= _LAST_CLIENT_ERROR


def is_away(error: BaseException) -> bool:
    """Whether the error is about the server rather than about this one statement."""
    number = _number(error)
    is_well = number in _STATEMENT_ERRORS or number in _OVERTAKEN
    return not isinstance(error, UnicodeError | ChangeWaited | AllTaken) and not is_well


def is_overtaken(error: BaseException) -> bool:
    """Whether the server is well, and has let another transaction go first."""
    return _number(error) in _OVERTAKEN


def kind_of(error: BaseException) -> type[CannotKnow]:
    """What the question comes to that has failed so."""
    if is_away(error) or isinstance(error, AllTaken):
        return CannotKnow
    if _number(error) in _UNFIT:
        return Unfit
    may_succeed = isinstance(error, ChangeWaited) or _number(error) in _OVERTAKEN | _PASSING
    return Overtaken if may_succeed else Rejected


def explanation(error: Exception) -> str:
    """What an operator reads of it."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if not isinstance(error, MySQLError):
        return reason_of(error)
    if len(error.args) < 2:
        return f"what answers there is no MySQL server: {error}"
    if isinstance(error.__cause__, ssl.SSLError):
        return objection(error.__cause__)
    number, text = _number(error), str(error.args[1])
    if number == _NOT_CONNECTED and isinstance(error.__cause__, OSError):
        text = f"cannot connect: {_refusals(error.__cause__)}"
    else:
        text += f" ({number})"
    return f"{text}; {_REMEDIES[number]}" if number in _REMEDIES else text


def _refusals(error: OSError) -> str:
    """Of each address of the server, without addresses and numbers, which asyncio tells of."""
    numbers = dict.fromkeys(map(int, _ERRNO.findall(str(error))))
    return ", ".join(map(os.strerror, numbers)) or reason_of(error)

"""Command lines: the ABNF of RFC 5321 §4.1 and of the extensions offered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TypeVar

from restante.address import (
    DOUBLE_BOUNCE,
    MAX_DOMAIN,
    MAX_LOCAL_PART,
    MAX_PATH,
    NULL_REVERSE_PATH,
    PLAIN_MAILBOX,
    Address,
    AddressSyntaxError,
    ReversePath,
)
from restante.envelope import NO_DSN, RecipientDsn
from restante.protocol.smtp import dsn, replies
from restante.protocol.smtp.events import NO_PARAMETERS, MailParameters, Rcpt
from restante.status import Reply

T = TypeVar("T")

MAX_DIGITS = 20
"""Digits in a SIZE value (RFC 1870 §5) and in a chunk size (RFC 3030 §2)."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HELLO_NAME = re.compile(r"[!-~]+")
# The route is the source route A-d-l, to be accepted and ignored (RFC 5321 §4.1.1.3);
# a quoted local part may hold the angle brackets. The groups are the mailbox, its local part and
# its domain if it is a plain one, and the parameters.
_PATH = rf"""[ ]*<(?:@[^\s<>",:@]+(?:,@[^\s<>",:@]+)*:)?
    ({PLAIN_MAILBOX}|(?:"(?:[^"\\]|\\.)*"|[^<>"\\\s]++)*)
    >(?:\ +(.*))?"""
_FROM = re.compile(f"(?i:FROM:){_PATH}", re.VERBOSE)
_TO = re.compile(f"(?i:TO:){_PATH}", re.VERBOSE)
# esmtp-param = esmtp-keyword ["=" esmtp-value]; UTF-8 may be in a value (RFC 6531 §3.3).
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f]+))?")
# xtext (RFC 4954 §8): printable octets but for "+" and "=", which are written as hexchars
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_DIGITS = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}")
_CHUNK = re.compile(rf"([0-9]{{1,{MAX_DIGITS}}})(?: +(LAST))?", re.IGNORECASE)


class Refused(Exception):
    """The command cannot be obeyed, and this is the reply that says so."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Verb(Enum):
    """The commands that are understood."""

    __hash__ = object.__hash__  # there is one of each; Enum's own is a method in Python

    HELO = "HELO"
    EHLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    RSET = "RSET"
    NOOP = "NOOP"
    HELP = "HELP"
    VRFY = "VRFY"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    QUIT = "QUIT"
    WEB = "GET"
    """A web client; also POST and CONNECT, which a browser can be tricked into sending here."""


_VERBS: Mapping[str, Verb] = {verb.value: verb for verb in Verb} | {
    "POST": Verb.WEB,
    "CONNECT": Verb.WEB,
}
_NOT_IMPLEMENTED = frozenset({"EXPN", "TURN", "ETRN", "SEND", "SOML", "SAML"})
"""Commands of RFCs that this server does not follow, or not yet: 502 rather than 500."""


_ALONE: Mapping[bytes, tuple[Verb, str]] = {
    f"{verb.value}\r\n".encode(): (verb, "")
    for verb in (Verb.DATA, Verb.RSET, Verb.NOOP, Verb.STARTTLS, Verb.QUIT)
}
"""Commands without an argument, as nearly all clients write them."""


@dataclass(frozen=True, slots=True)
class BdatCommand:
    """The argument of BDAT (RFC 3030 §2)."""

    size: int
    last: bool


def parse_command(line: bytes) -> tuple[Verb, str]:
    """The verb and the argument in ``line``, which still has its line end; raises Refused."""
    if line in _ALONE:
        return _ALONE[line]
    if not line.endswith(b"\r\n"):
        raise Refused(replies.NOT_A_LINE)
    try:
        # White space before <CRLF> is to be tolerated (RFC 5321 §4.1.1).
        text = line[:-2].decode("utf-8").rstrip(" \t")
    except UnicodeDecodeError:
        raise Refused(replies.NOT_TEXT) from None
    if not text.isprintable() and _CONTROL.search(text):
        raise Refused(replies.NOT_TEXT)
    name, _, argument = text.partition(" ")
    verb = _VERBS.get(name.upper())
    if verb is None:
        raise Refused(_unknown(name.upper()))
    return verb, argument.lstrip(" ")


def is_rcpt(line: bytes) -> bool:
    """Whether ``line`` is a RCPT command, well-formed or not."""
    return line[:5].upper() == b"RCPT "


def is_auth(line: bytes) -> bool:
    """Whether ``line`` is an AUTH command, well-formed or not."""
    return line[:5].upper() == b"AUTH "


def _unknown(name: str) -> Reply:
    return replies.NOT_IMPLEMENTED if name in _NOT_IMPLEMENTED else replies.NOT_A_COMMAND


def parse_hello(argument: str) -> str:
    """The client's name: any token is taken, since too many clients give no domain.

    Raises Refused.
    """
    if len(argument) > MAX_DOMAIN or not _HELLO_NAME.fullmatch(argument):
        raise Refused(replies.HELLO_SYNTAX)
    return argument


def parse_mail(argument: str) -> tuple[ReversePath, MailParameters]:
    """The argument of MAIL (RFC 5321 §4.1.1.2); raises Refused.

    qmail-remote says its own sender of double bounces, as it stands, and would discard what is
    refused.
    """
    path = _parse_path(argument, _FROM, replies.MAIL_SYNTAX)
    parameters = _mail_parameters(path[4]) if path[4] else NO_PARAMETERS
    if path[1] in {"", DOUBLE_BOUNCE}:
        return NULL_REVERSE_PATH, parameters
    return _address(path, "1.7", smtputf8=parameters.smtputf8), parameters


def _mail_parameters(given: str) -> MailParameters:
    """RFC 1870, 6152, 6531, 3461 and 4954."""
    parameters = _parse_parameters(given)
    size = _size(parameters)
    eight_bit = _body(parameters.pop("BODY", "7BIT"))
    smtputf8 = _smtputf8(parameters)
    ret = _dsn(parameters, "RET", dsn.parse_ret) or ""
    envid = _dsn(parameters, "ENVID", dsn.parse_envid) or ""
    auth = _auth(parameters)
    if parameters:
        raise Refused(replies.PARAMETER_UNKNOWN)
    return MailParameters(size, eight_bit, smtputf8, ret, envid, auth)


def parse_rcpt(argument: str, *, smtputf8: bool) -> Rcpt:
    """The forward-path of RCPT, ``<postmaster>`` included, and its parameters; raises Refused.

    RFC 5321 §4.1.1.3, RFC 3461.
    """
    path = _parse_path(argument, _TO, replies.RCPT_SYNTAX)
    asked = _recipient_dsn(_parse_parameters(path[4]), smtputf8=smtputf8) if path[4] else NO_DSN
    return Rcpt(_address(path, "1.3", smtputf8=smtputf8), asked)


def _recipient_dsn(parameters: dict[str, str | None], *, smtputf8: bool) -> RecipientDsn:
    notify = _dsn(parameters, "NOTIFY", dsn.parse_notify)
    orcpt = _dsn(parameters, "ORCPT", partial(dsn.parse_orcpt, smtputf8=smtputf8)) or ""
    if parameters:
        raise Refused(replies.PARAMETER_UNKNOWN)
    return RecipientDsn(notify, orcpt)


def path_given(argument: str) -> str:
    """The path in the argument of MAIL or RCPT, whatever it is worth, for those who read of it.

    An address as its ``str``; anything else as it stands, but no longer than a path may be.
    """
    match = _FROM.fullmatch(argument) or _TO.fullmatch(argument)
    path = match[1] if match else argument
    try:
        return str(Address.parse(path))
    except AddressSyntaxError:
        return path[:MAX_PATH]


def parse_bdat(argument: str) -> BdatCommand:
    """The argument of BDAT; raises Refused."""
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise Refused(replies.BDAT_SYNTAX)
    return BdatCommand(int(match[1]), match[2] is not None)


def _parse_path(argument: str, path: re.Pattern[str], syntax: Reply) -> re.Match[str]:
    match = path.fullmatch(argument)
    if match is None:
        raise Refused(syntax)
    return match


def _address(path: re.Match[str], topic: str, *, smtputf8: bool) -> Address:
    mailbox, local, domain = path.group(1, 2, 3)
    if domain is not None and len(mailbox) <= MAX_LOCAL_PART:
        return Address(local, domain)
    if not smtputf8 and not mailbox.isascii():
        raise Refused(replies.NEEDS_SMTPUTF8)
    if len(mailbox.encode()) + len("<>") > MAX_PATH:
        raise Refused(Reply(501, topic, f"Path longer than {MAX_PATH} octets"))
    try:
        return Address.parse(mailbox)
    except AddressSyntaxError as error:
        raise Refused(Reply(501, topic, f"Bad address syntax: {error}")) from None


def _parse_parameters(text: str) -> dict[str, str | None]:
    parameters: dict[str, str | None] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise Refused(replies.PARAMETER_SYNTAX)
        keyword = match[1].upper()
        if keyword in parameters:
            raise Refused(replies.PARAMETER_TWICE)
        parameters[keyword] = match[2]
    return parameters


def _size(parameters: dict[str, str | None]) -> int | None:
    if "SIZE" not in parameters:
        return None
    value = parameters.pop("SIZE")
    if value is None or not _DIGITS.fullmatch(value):
        raise Refused(replies.PARAMETER_SYNTAX)
    return int(value)


def _body(value: str | None) -> bool:
    kind = (value or "").upper()
    if kind not in {"7BIT", "8BITMIME"}:
        raise Refused(replies.PARAMETER_SYNTAX)
    return kind == "8BITMIME"


def _smtputf8(parameters: dict[str, str | None]) -> bool:
    if "SMTPUTF8" not in parameters:
        return False
    if parameters.pop("SMTPUTF8") is not None:
        raise Refused(replies.PARAMETER_SYNTAX)
    return True


def _dsn(parameters: dict[str, str | None], keyword: str, parse: Callable[[str], T]) -> T | None:
    """The value of one of RFC 3461's parameters, all of which must have one; None: not there."""
    if keyword not in parameters:
        return None
    try:
        return parse(parameters.pop(keyword) or "")
    except dsn.DsnSyntaxError:
        raise Refused(replies.PARAMETER_SYNTAX) from None


def _auth(parameters: dict[str, str | None]) -> bool:
    """``AUTH=<>`` or an address in xtext (RFC 4954 §5)."""
    if "AUTH" not in parameters:
        return False
    value = parameters.pop("AUTH")
    if value is None or not _XTEXT.fullmatch(value):
        raise Refused(replies.PARAMETER_SYNTAX)
    return True

"""A mail address and its parts (RFC 5321 §4.1.2, RFC 6531 §3.3).

Addresses here hold *meaning*, not wire syntax: the local part is unquoted, so
``"iain"@example.com`` and ``iain@example.com`` are one address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from restante.address_syntax import DOUBLE_BOUNCE as DOUBLE_BOUNCE
from restante.address_syntax import MAX_DOMAIN as MAX_DOMAIN
from restante.address_syntax import MAX_LOCAL_PART as MAX_LOCAL_PART
from restante.address_syntax import VERP as VERP
from restante.address_syntax import AddressSyntaxError as AddressSyntaxError
from restante.address_syntax import check_domain_syntax, join_mailbox, split_mailbox
from restante.labels import in_a_labels
from restante.records import record

MAX_PATH = 256
"""Octets in a path with its angle brackets (RFC 5321 §4.5.3.1.3)."""

# Characters are matched possessively, as what follows them is another one. Groups are not: Python
# 3.11.2 then takes what it should not (3.11.7 does not).
_PLAIN_LABEL = "(?![a-z0-9-]{64})[a-z0-9]++(?:-++[a-z0-9]++)*"
_PLAIN_DOMAIN = re.compile(rf"{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*")
"""What nearly all domains are, and in order but for its length."""
_PLAIN_ATOM = "[A-Za-z0-9_!#$%&'*+/=?^`{|}~-]++"
PLAIN_MAILBOX = rf"({_PLAIN_ATOM}(?:\.{_PLAIN_ATOM})*)@({_PLAIN_DOMAIN.pattern})"
"""What nearly all mailboxes are: local part and domain are those of the address as they stand, if
together they are no longer than MAX_LOCAL_PART."""
_PLAIN_MAILBOX = re.compile(PLAIN_MAILBOX)
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")


def fold(text: str) -> str:
    """``text`` with ASCII upper case made lower, and nothing else changed.

    Host names and local parts are compared in this form: letters outside ASCII
    are different letters, whatever a database collation holds of them.
    """
    return text.lower() if text.isascii() else _fold_ascii(text)


_ASCII_UPPER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _fold_ascii(text: str) -> str:
    return text.translate(_ASCII_UPPER)


@dataclass(frozen=True, slots=True)
class NullReversePath:
    """The empty reverse-path ``<>`` of a notification (RFC 5321 §4.5.5)."""

    def __str__(self) -> str:
        return ""

    def to_path(self) -> str:
        """The path as SMTP writes it."""
        return "<>"


NULL_REVERSE_PATH = NullReversePath()


@record
class Address:
    """A mailbox address; ``domain`` is empty for ``<postmaster>`` and bare user names.

    The local part keeps the case and is unquoted; the domain is folded to lower case.
    """

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that ``text`` (a ``Mailbox`` of RFC 5321 §4.1.2, or a bare local part) says.

        Raises AddressSyntaxError.
        """
        if len(text) <= MAX_LOCAL_PART and (plain := _PLAIN_MAILBOX.fullmatch(text)):
            return cls(plain[1], plain[2])
        local, domain = split_mailbox(text)
        return cls(local, fold(domain))

    @classmethod
    def from_stored(cls, text: str) -> Address:
        """The address that ``str`` wrote: the last ``@`` parts local part and domain."""
        local, at, domain = text.rpartition("@")
        return cls(local, domain) if at else cls(domain, "")

    @property
    def folded(self) -> str:
        """The form in which addresses are compared and looked up."""
        return fold(str(self))

    def __str__(self) -> str:
        """The address without quoting, as database rows hold it."""
        return f"{self.local}@{self.domain}" if self.domain else self.local

    def to_mailbox(self) -> str:
        """The address as SMTP and header fields write it, the local part quoted if it must be."""
        return join_mailbox(self.local, self.domain)

    def to_path(self) -> str:
        """The address in angle brackets (RFC 5321 §4.1.2, ``Path``)."""
        return f"<{join_mailbox(self.local, self.domain)}>"

    @property
    def is_ascii(self) -> bool:
        """Whether the address needs no SMTPUTF8 (RFC 6531)."""
        return self.local.isascii() and self.domain.isascii()


ReversePath = Address | NullReversePath


def sender_for(sender: str, recipient: Address) -> str:
    """The sender of the copy for one recipient of a list (qmail-send(8)).

    ``list-owner-@example.com-@[]`` is for ann@example.net
    ``list-owner-ann=example.net@example.com``; a sender that does not end in VERP is for all.
    The recipient's domain is in A-labels: a local part has no other form that is ASCII.
    """
    if not sender.endswith(VERP):
        return sender
    local, at, domain = sender.removesuffix(VERP).rpartition("@")
    return f"{local}{recipient.local}={in_a_labels(recipient.domain)}{at}{domain}"


def shown(stored: str) -> str:
    """A stored address (``str`` of it) as people and commands write it: quoted if it must be.

    So are the empty reverse-path and a sender that ends in VERP as they stand.
    """
    if _PLAIN_MAILBOX.fullmatch(stored) or not stored or stored.endswith(VERP):
        return stored
    local, at, domain = stored.rpartition("@")
    return join_mailbox(local, domain) if at else join_mailbox(domain, "")


def check_domain(text: str) -> str:
    """``text`` folded, if it can be a mail domain; raises AddressSyntaxError."""
    if len(text) <= MAX_DOMAIN and _PLAIN_DOMAIN.fullmatch(text):
        return text  # lists of a hundred thousand domains are checked at once
    check_domain_syntax(text)
    return fold(text)


def domain_keys(domain: str) -> Iterator[str]:
    """The keys under which a control file may name ``domain``, the most exact first.

    ``a.example.com`` gives itself, ``.example.com``, ``.com`` (qmail-control(5)).
    """
    yield domain
    start = domain.find(".", 1)
    while start > 0:
        yield domain[start:]
        start = domain.find(".", start + 1)


def embed_unicode(text: str) -> str:
    """``text`` in the form that an address of type utf-8 has in ASCII (RFC 6533 §3)."""
    return _NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found.group()):02X}}}", text)


def dash_prefixes(local: str) -> Iterator[tuple[str, str]]:
    """The users that ``local`` may mean and the extension each leaves, longest user first.

    ``a-b-c`` gives ``("a-b-c", "")``, ``("a-b", "c")``, ``("a", "b-c")`` (qmail-getpw(8)).
    """
    yield local, ""
    end = local.rfind("-")
    while end > 0:
        yield local[:end], local[end + 1 :]
        end = local.rfind("-", 0, end)


def split_subaddress(local: str, delimiter: str) -> tuple[str, str] | None:
    """``name`` and ``tag`` of ``name+tag``, split at the first delimiter, or None (RFC 5233)."""
    if not delimiter:
        return None
    name, mark, tag = local.partition(delimiter)
    return (name, tag) if name and mark else None

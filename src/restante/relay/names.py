"""Domain names as the DNS has them (RFC 5890): U-labels become A-labels, and nothing else does."""

from __future__ import annotations

from restante.address import MAX_DOMAIN, fold
from restante.errors import PermanentError
from restante.labels import in_a_labels


class NoDomainName(PermanentError):
    """The DNS can have no such name."""


def to_ascii(domain: str) -> str:
    """``domain`` folded, in A-labels; raises NoDomainName.

    Labels that are ASCII already are left alone: host names with underscores exist, and
    whether they do is for the DNS to say.
    """
    name = in_a_labels(fold(domain))
    if not name.isascii() or len(name) > MAX_DOMAIN:
        raise NoDomainName("no name of the DNS can be made of it")
    return name

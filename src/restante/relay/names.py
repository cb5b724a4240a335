"""Domain names as the DNS has them (RFC 5890): U-labels become A-labels, and nothing else does."""

from __future__ import annotations

from restante.address import fold
from restante.errors import PermanentError


class NoDomainName(PermanentError):
    """The DNS can have no such name."""


def to_ascii(domain: str) -> str:
    """``domain`` folded, in A-labels; raises NoDomainName.

    What is ASCII already is left alone: host names with underscores exist, and
    whether they do is for the DNS to say.
    """
    if domain.isascii():
        return fold(domain)
    import idna  # its tables are large, and most mail needs none of them

    try:
        name = idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise NoDomainName(str(error)) from None
    if name.endswith("."):  # UTS 46 has other dots (U+3002), and leaves one at the end
        raise NoDomainName("Empty Label")
    return name

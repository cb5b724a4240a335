"""Next hops as smtproutes writes them: HOST, HOST:PORT, [ADDRESS], [ADDRESS]:PORT."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from restante.address import check_domain
from restante.config.tree import MAX_PORT
from restante.labels import in_a_labels

SMTP_PORT = 25
"""RFC 5321 §4.5.4.2."""

_NEXT_HOP = re.compile(
    r"(?:\[(?:IPv6:)?(?P<address>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/]+))(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class NextHop:
    """A host that mail is handed to whatever the MX records of its domain say."""

    host: str
    """A name, folded and in A-labels as far as it has them, or an IP address."""
    port: int
    is_address: bool
    """``host`` is an IP address: there is nothing to look up."""

    @classmethod
    def parse(cls, text: str) -> NextHop:
        """The next hop that ``text`` says; raises ValueError, whose text begins with a verb."""
        match = _NEXT_HOP.fullmatch(text)
        port = int(match["port"] or SMTP_PORT) if match else 0
        if match is None or not 0 < port <= MAX_PORT:
            raise ValueError(
                "is no next hop; write HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT, with a port "
                f"from 1 to {MAX_PORT}"
            )
        written = match["address"] or match["host"]
        if match["address"] or _DIGITS_AND_DOTS.fullmatch(written):
            return cls(_address(written), port, is_address=True)
        try:
            return cls(in_a_labels(check_domain(written)), port, is_address=False)
        except ValueError as error:
            raise ValueError(f"is no next hop: {error}") from None

    def __str__(self) -> str:
        """The one form in which a next hop is written, always with its port."""
        return f"[{self.host}]:{self.port}" if self.is_address else f"{self.host}:{self.port}"


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("names no IP address that exists") from None

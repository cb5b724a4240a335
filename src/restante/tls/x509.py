"""What a certificate says of itself (RFC 5280 §4.1): the few fields that a server has to know.

OpenSSL reads certificates for those who serve them, but ssl tells nothing of one that came with no
handshake. A library for all of X.509, with an OpenSSL of its own, would take eight MiB of
a server's memory and three more of each worker's; it makes certificates, where that is asked for
(restante.tls.selfsigned).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_SEQUENCE, _OCTET_STRING = 0x30, 0x04
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_DNS_NAME = 0x82
_LONG_TAG = 0x1F
_LONG_LENGTH = 0x80
_MAX_LENGTH_OCTETS = 4
_SUBJECT_ALT_NAME = b"\x55\x1d\x11"
"""2.5.29.17."""
_TIME = re.compile(rb"(\d\d|\d{4})" + rb"(\d\d)" * 5 + rb"Z")
_PIVOT = 50
"""Years of two digits from here on are of the last century (RFC 5280 §4.1.2.5.1)."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The fields of one."""

    names: tuple[str, ...]
    """The hosts of subjectAltName, as they stand there."""
    not_before: datetime
    not_after: datetime
    issuer: bytes
    subject: bytes
    """Distinguished names in DER; authorities write their own name always alike."""


def read_certificate(der: bytes) -> Certificate:
    """The certificate in these octets; raises ValueError if they are none."""
    try:
        ((tag, whole),) = _elements(der)
        (signed_tag, signed), _, _ = _elements(whole)
        if (tag, signed_tag) != (_SEQUENCE, _SEQUENCE):
            raise ValueError("no certificate")
        fields = list(_elements(signed))
        if fields[0][0] == _VERSION:
            del fields[0]
        _, _, (_, issuer), (_, validity), (_, subject), _, *more = fields
        not_before, not_after = (_moment(*each) for each in _elements(validity))
        return Certificate(tuple(_hosts(more)), not_before, not_after, issuer, subject)
    except IndexError as error:
        raise ValueError("cut off") from error


def _elements(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of DER that stand there in a row, each a tag and its contents.

    Raises ValueError and IndexError.
    """
    at = 0
    while at < len(octets):
        tag, length = octets[at], octets[at + 1]
        at += 2
        if tag & _LONG_TAG == _LONG_TAG:
            raise ValueError("a tag of several octets")
        if length & _LONG_LENGTH:
            count = length - _LONG_LENGTH
            if not 0 < count <= _MAX_LENGTH_OCTETS:
                raise ValueError("a length that DER does not have")
            length = int.from_bytes(octets[at : at + count])
            at += count
        if at + length > len(octets):
            raise ValueError("cut off")
        yield tag, octets[at : at + length]
        at += length


def _moment(tag: int, contents: bytes) -> datetime:
    digits = _TIME.fullmatch(contents)
    if digits is None or tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("no time")
    year, month, day, hour, minute, second = map(int, digits.groups())
    if tag == _UTC_TIME:
        year += 1900 if year >= _PIVOT else 2000
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def _hosts(more: list[tuple[int, bytes]]) -> Iterator[str]:
    """Of the fields behind the public key, the hosts that an extension names."""
    for contents in (contents for tag, contents in more if tag == _EXTENSIONS):
        ((_, extensions),) = _elements(contents)
        for _, extension in _elements(extensions):
            (_, name), *_, (tag, value) = _elements(extension)
            if name == _SUBJECT_ALT_NAME and tag == _OCTET_STRING:
                ((_, alternatives),) = _elements(value)
                for kind, alternative in _elements(alternatives):
                    if kind == _DNS_NAME:
                        yield alternative.decode("ascii", "backslashreplace")

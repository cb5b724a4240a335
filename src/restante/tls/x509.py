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

_SEQUENCE = 0x30
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_DNS_NAME, _KEY_IDENTIFIER = 0x82, 0x80
_LONG_TAG = 0x1F
_LONG_LENGTH = 0x80
_MAX_LENGTH_OCTETS = 4
_SUBJECT_KEY, _SUBJECT_ALT_NAME, _AUTHORITY_KEY = b"\x55\x1d\x0e", b"\x55\x1d\x11", b"\x55\x1d\x23"
"""2.5.29.14, 2.5.29.17 and 2.5.29.35."""
_TIMES = {
    _UTC_TIME: re.compile(rb"(\d\d)" * 6 + rb"Z"),
    _GENERALIZED_TIME: re.compile(rb"(\d{4})" + rb"(\d\d)" * 5 + rb"Z"),
}
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
    key: bytes
    issuer_key: bytes
    """What the two keys are called (RFC 5280 §§ 4.2.1.1, 4.2.1.2); empty: it does not say."""

    def may_be_issued_by(self, other: Certificate) -> bool:
        """Whether names and keys agree, as far as they are told: so OpenSSL seeks an issuer.

        Who wants the signature checked has clients that do.
        """
        are_told = self.issuer_key and other.key
        return self.issuer == other.subject and (not are_told or self.issuer_key == other.key)


def read_certificate(der: bytes) -> Certificate:
    """The certificate in these octets; raises ValueError if they are none."""
    ((tag, whole),) = _elements(der)
    (signed_tag, signed), _, _ = _elements(whole)
    if (tag, signed_tag) != (_SEQUENCE, _SEQUENCE):
        raise ValueError("no certificate")
    fields = list(_elements(signed))
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    _, _, (_, issuer), (_, validity), (_, subject), _, *more = fields
    not_before, not_after = (_moment(*each) for each in _elements(validity))
    values = dict(_extensions(more))
    alternatives = _elements_in(values.get(_SUBJECT_ALT_NAME, b""))
    return Certificate(
        tuple(_text(each) for kind, each in alternatives if kind == _DNS_NAME),
        not_before,
        not_after,
        issuer,
        subject,
        _contents(values.get(_SUBJECT_KEY, b"")),
        dict(_elements_in(values.get(_AUTHORITY_KEY, b""))).get(_KEY_IDENTIFIER, b""),
    )


def _elements(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of DER that stand there in a row, each a tag and its contents.

    Raises ValueError.
    """
    at = 0
    while at < len(octets):
        tag, length = octets[at : at + 2]
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
    form = _TIMES.get(tag)
    digits = form and form.fullmatch(contents)
    if not digits:
        raise ValueError("no time")
    year, month, day, hour, minute, second = map(int, digits.groups())
    if tag == _UTC_TIME:
        year += 1900 if year >= _PIVOT else 2000
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def _extensions(more: list[tuple[int, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Of the fields behind the public key, the names of extensions and their values."""
    for contents in (contents for tag, contents in more if tag == _EXTENSIONS):
        ((_, extensions),) = _elements(contents)
        for _, extension in _elements(extensions):
            (_, name), *_, (_, value) = _elements(extension)
            yield name, value


def _contents(value: bytes) -> bytes:
    """Of an extension; nothing if they are malformed, with which OpenSSL serves it all the same."""
    try:
        ((_, contents),) = _elements(value)
    except ValueError:
        return b""
    return contents


def _elements_in(value: bytes) -> list[tuple[int, bytes]]:
    """The same, where its contents are elements."""
    try:
        return list(_elements(_contents(value)))
    except ValueError:
        return []


def _text(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")

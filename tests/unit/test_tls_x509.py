"""What is read of a certificate is what a library for all of X.509 reads; nothing else is one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from restante.tls.x509 import Certificate, read_certificate
from tests.support.certificates import DAY, NOW, Issued, issue

HOSTS = ("mx.example.com", "*.Example.NET", *(f"host{number}.example" for number in range(200)))


def der(issued: Issued) -> bytes:
    """As it is signed."""
    return issued.certificate.public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "issued",
    [
        issue("mx.example.com"),
        issue(*HOSTS, by=issue()),
        issue(by=issue(), subject="names no host"),
        issue("a.example", key=rsa.generate_private_key(65537, 2048)),
        issue("a.example", subject="e" * 60, by=issue(subject="f" * 60)),
    ],
    ids=["self-signed", "many names", "no names", "rsa", "long"],
)
def test_the_same_is_read(issued: Issued) -> None:
    told, known = read_certificate(der(issued)), issued.certificate
    assert told.names == (HOSTS if len(told.names) > 1 else told.names)
    assert (told.not_before, told.not_after) == (
        known.not_valid_before_utc,
        known.not_valid_after_utc,
    )
    assert told.issuer in known.issuer.public_bytes()
    assert told.subject in known.subject.public_bytes()
    assert (told.issuer == told.subject) == (known.issuer == known.subject)


@pytest.mark.parametrize(("names", "expected"), [((), ()), (HOSTS, HOSTS), (("a.b",), ("a.b",))])
def test_names(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert read_certificate(der(issue(*names))).names == expected


@pytest.mark.parametrize("year", [1951, 1999, 2000, 2049, 2050, 2105])
def test_years_of_two_and_of_four_digits(year: int) -> None:
    """RFC 5280 §4.1.2.5: two until 2049."""
    begins = datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
    told = read_certificate(der(issue("a.example", begins=begins, ends=begins + DAY)))
    assert (told.not_before, told.not_after) == (begins, begins + DAY)


def is_read(octets: bytes) -> bool:
    """Whether they are a certificate; no other error than ValueError comes of them."""
    try:
        return isinstance(read_certificate(octets), Certificate)
    except ValueError:
        return False


def test_what_is_cut_off_is_none() -> None:
    whole = der(issue("mx.example.com", by=issue()))
    assert is_read(whole)
    assert not any(is_read(whole[:length]) for length in range(len(whole)))
    assert not is_read(whole + b"\0")


def test_whatever_octets_stand_there_there_is_no_other_error() -> None:
    whole = der(issue("mx.example.com", by=issue(), begins=NOW - DAY))
    read = [
        is_read(whole[:place] + bytes([octet]) + whole[place + 1 :])
        for place in range(len(whole))
        for octet in (0x00, 0x1F, 0x30, 0x7F, 0x80, 0x84, 0x85, 0xFF)
    ]
    assert set(read) == {True, False}

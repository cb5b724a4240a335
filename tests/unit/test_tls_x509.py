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


def test_times_have_the_digits_of_their_kind() -> None:
    """RFC 5280 §4.1.2.5: UTCTime two for the year, GeneralizedTime four."""
    for year, tag, other in ((2049, 0x17, 0x18), (2051, 0x18, 0x17)):
        begins = datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
        whole = der(issue("a.example", begins=begins, ends=begins + DAY))
        time = f"{begins:%Y%m%d%H%M%SZ}"[2 if year < 2050 else 0 :].encode()
        head = bytes([len(time)]) + time
        assert bytes([tag]) + head in whole
        assert not is_read(whole.replace(bytes([tag]) + head, bytes([other]) + head))


def test_an_extension_that_nobody_can_read_says_nothing() -> None:
    """OpenSSL serves such a certificate, and so does this host, with a warning."""
    whole = der(issue("mx.example.com"))
    for octets in (b"\x82\x7fmx.example.com", b"\x9f\x0emx.example.com"):
        assert read_certificate(whole.replace(b"\x82\x0emx.example.com", octets)).names == ()


def test_an_issuer_by_its_name_and_its_key() -> None:
    middle = issue(subject="between", by=issue())
    again = issue(subject="between", by=issue())
    for leaf, issuers in ((issue("a", by=middle), (middle,)), (issue("a", by=again), (again,))):
        found = [each for each in (middle, again) if may_be_issued(leaf, each)]
        assert found == list(issuers)
    assert not may_be_issued(issue("a", by=middle), issue(subject="another", key=middle.key))


def test_keys_that_are_not_named_are_not_compared() -> None:
    middle, again = (issue(subject="between", by=issue(), names_keys=False) for _ in range(2))
    assert may_be_issued(issue("a", by=middle), again)
    assert may_be_issued(issue("a", by=middle, names_keys=False), issue(subject="between"))


def may_be_issued(leaf: Issued, issuer: Issued) -> bool:
    """Whether one may be the other's issuer, by what they say."""
    return read_certificate(der(leaf)).may_be_issued_by(read_certificate(der(issuer)))


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

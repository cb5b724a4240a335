"""A certificate, its chain and its key: taken from two files, and checked."""

from __future__ import annotations

import binascii
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

from restante.tls import CertificateRefused
from restante.tls.files import DiskFiles, PemFiles
from restante.tls.x509 import Certificate, read_certificate

EXPIRY_WARNING = timedelta(days=14)
"""How long before its end a certificate is worth a warning."""
_CERTIFICATE = re.compile(
    rb"^(?:\xef\xbb\xbf)?-----BEGIN (?:X509 )?CERTIFICATE-----([^-]*)"
    rb"(-----END (?:X509 )?CERTIFICATE-----)?",
    re.MULTILINE,
)
"""In PEM (RFC 7468 §5), at the beginning of a line, which editors of another system put their mark
before; without its end, something is missing."""
_OTHERS_KEY = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""What OpenSSL calls it; the last, where the certificate is for a key of another kind."""


@dataclass(frozen=True, slots=True)
class PairFiles:
    """Where a certificate (its chain behind it) and its key lie, as absolute paths."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate that is served with its key."""

    files: PairFiles
    context: ssl.SSLContext
    names: tuple[str, ...]
    """The hosts it is for, in lower case, ``*.example.com`` among them (RFC 6125 §6.4)."""
    not_before: datetime
    not_after: datetime
    self_signed: bool
    chain_break: int
    """The place in the file of the certificate whose successor did not issue it; 0: none."""
    key_exposed: bool
    """Everybody on this host can read the key."""

    def faults(self, now: datetime) -> list[str]:
        """Why clients will refuse it, or should; it can be served all the same."""
        path, found = self.files.certificate, []
        if now >= self.not_after:
            found.append(f"{path} expired on {_day(self.not_after)}; renew it")
        if now < self.not_before:
            found.append(f"{path} is not valid before {_day(self.not_before)}; check the clock")
        if not self.names:
            found.append(f"{path} names no host (subjectAltName); get one that does")
        if self.chain_break:
            found.append(
                f"{path}: certificate {self.chain_break + 1} in it is not the issuer of "
                f"certificate {self.chain_break}; put the host's own first, then each one's issuer"
            )
        if self.key_exposed:
            key = self.files.key
            found.append(f"{key} is a private key that everybody can read; run: chmod 600 {key}")
        return found

    def advice(self, now: datetime) -> list[str]:
        """What else an operator should know."""
        path, found = self.files.certificate, []
        if self.not_before <= now < self.not_after <= now + EXPIRY_WARNING:
            found.append(f"{path} expires on {_day(self.not_after)}; renew it")
        if self.self_signed:
            found.append(
                f"{path} is self-signed, good for trying out: clients cannot tell whose it is"
            )
        return found


def load_pair(files: PairFiles, source: PemFiles | None = None) -> Pair:
    """Read and check both files, by default from disk; raises CertificateRefused."""
    source = source or DiskFiles()
    certificate, secret = source.read(files.certificate), source.read(files.key)
    octets = _certificates(files.certificate, certificate.octets)
    chain = _read(files.certificate, octets)
    own = chain[0]
    return Pair(
        files,
        _context(files, octets, secret.octets),
        tuple(name.lower() for name in own.names),
        own.not_before,
        own.not_after,
        own.issuer == own.subject,
        _chain_break(chain),
        secret.exposed,
    )


def present(context: ssl.SSLContext, files: PairFiles, source: PemFiles) -> None:
    """Have a client's context show the certificate in ``files``; raises CertificateRefused."""
    certificate, secret = source.read(files.certificate), source.read(files.key)
    chain = _certificates(files.certificate, certificate.octets)
    _read(files.certificate, chain)
    _load(context, files, chain, secret.octets)


def trust(context: ssl.SSLContext, path: str, source: PemFiles) -> None:
    """Have a client's context believe the authorities in a file; raises CertificateRefused."""
    authorities = _certificates(path, source.read(path).octets)
    try:
        context.load_verify_locations(cadata=b"".join(authorities))
    except ssl.SSLError:
        raise _unreadable(path) from None


def utc_now() -> datetime:
    """The time that validity is measured with."""
    return datetime.now(UTC)


def _certificates(path: str, data: bytes) -> list[bytes]:
    """All in a file, in DER, at least one; raises CertificateRefused."""
    found = _CERTIFICATE.findall(data)
    if not found or not all(end for _, end in found):
        raise _unreadable(path)
    try:
        return [binascii.a2b_base64(b"".join(text.split()), strict_mode=True) for text, _ in found]
    except ValueError:
        raise _unreadable(path) from None


def _read(path: str, chain: list[bytes]) -> list[Certificate]:
    """What certificates say, all of which OpenSSL can read too; raises CertificateRefused."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(chain))
        return [read_certificate(each) for each in chain]
    except (ValueError, ssl.SSLError):
        raise _unreadable(path) from None


def _unreadable(path: str) -> CertificateRefused:
    return CertificateRefused(
        f"{path} holds no certificate that can be read; write it in PEM, its chain behind it"
    )


def _context(files: PairFiles, chain: list[bytes], key: bytes) -> ssl.SSLContext:
    """A context that handshakes change to; what else they need, see ``restante.tls.tickets``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, files, chain, key)
    return context


def _load(context: ssl.SSLContext, files: PairFiles, chain: list[bytes], key: bytes) -> None:
    """Let a context have what was read of ``files``; raises CertificateRefused.

    OpenSSL wants paths: what was checked goes by way of memory that has one, and is written
    anew, so that what is served is what was read.
    """
    # Without a password of its own, OpenSSL would ask for one on the terminal.
    refuse = partial(_refuse_password, files.key)
    try:
        certificates = "".join(map(ssl.DER_cert_to_PEM_cert, chain)).encode()
        with _in_memory(certificates) as chain_path, _in_memory(key) as key_path:
            context.load_cert_chain(chain_path, key_path, password=refuse)
    except ssl.SSLError as error:
        raise CertificateRefused(_objection(files, error.reason)) from None
    except OSError as error:
        raise CertificateRefused(
            f"{files.certificate} cannot be served: {error.strerror}"
        ) from None


def _objection(files: PairFiles, reason: str | None) -> str:
    """What is wrong with a key, or certificates that can be read; OpenSSL names no reason where it
    finds no key."""
    if not reason:
        return f"{files.key} holds no private key that can be read; write it in PEM"
    if reason in _OTHERS_KEY:
        return (
            f"{files.key} is not the key of {files.certificate}; name the two that belong together"
        )
    why = reason.replace("_", " ").lower()  # EE_KEY_TOO_SMALL
    return f"{files.certificate} cannot be served: {why}"


@contextmanager
def _in_memory(octets: bytes) -> Iterator[str]:
    """A path for octets that lie on no disk."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


def _refuse_password(path: str) -> str:
    raise CertificateRefused(f"{path} is encrypted; a server needs a key without a passphrase")


def _chain_break(chain: list[Certificate]) -> int:
    for place, (certificate, issuer) in enumerate(pairwise(chain), 1):
        if not certificate.may_be_issued_by(issuer):
            return place
    return 0


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"

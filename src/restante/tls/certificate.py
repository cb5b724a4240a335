"""A certificate, its chain and its key: taken from two files, and checked."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from restante.tls import CertificateRefused
from restante.tls.files import DiskFiles, PemFiles

EXPIRY_WARNING = timedelta(days=14)
"""How long before its end a certificate is worth a warning."""


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
    chain_break: str
    """The subject of the certificate in the file whose successor did not issue it; or empty."""
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
                f"{path}: the certificate after {self.chain_break} did not issue it; "
                "put the host's own first, then each one's issuer"
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
    chain = _certificates(files.certificate, certificate.octets)
    own = chain[0]
    key = _private_key(files.key, secret.octets)
    if own.public_key() != key.public_key():
        raise CertificateRefused(
            f"{files.key} is not the key of {files.certificate}; name the two that belong together"
        )
    return Pair(
        files,
        _context(files, certificate.octets, secret.octets),
        _names(own),
        own.not_valid_before_utc,
        own.not_valid_after_utc,
        own.issuer == own.subject,
        _chain_break(chain),
        secret.exposed,
    )


def utc_now() -> datetime:
    """The time that validity is measured with."""
    return datetime.now(UTC)


def _certificates(path: str, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateRefused(
            f"{path} holds no certificate that can be read; write it in PEM, its chain behind it"
        ) from None


def _private_key(path: str, data: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(data, None)
    except TypeError:
        raise CertificateRefused(
            f"{path} is encrypted; a server needs a key without a passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateRefused(
            f"{path} holds no private key that can be read; write it in PEM"
        ) from None


def _context(files: PairFiles, certificate: bytes, key: bytes) -> ssl.SSLContext:
    """TLS 1.2 and up, without compression or renegotiation (RFC 8996, RFC 9325 §§ 3.3, 3.5).

    OpenSSL wants paths: what was checked goes by way of memory that has one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Without a password of its own, OpenSSL would ask for one on the terminal.
    refuse = partial(_refuse_password, files.key)
    try:
        with _in_memory(certificate) as chain_path, _in_memory(key) as key_path:
            context.load_cert_chain(chain_path, key_path, password=refuse)
    except OSError as error:  # ssl.SSLError is one
        why = getattr(error, "reason", None) or error.strerror or str(error)
        why = why.replace("_", " ").lower()  # EE_KEY_TOO_SMALL
        raise CertificateRefused(f"{files.certificate} cannot be served: {why}") from None
    return context


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


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))


def _chain_break(chain: list[x509.Certificate]) -> str:
    for certificate, issuer in pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return certificate.subject.rfc4514_string() or "the first"
    return ""


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"

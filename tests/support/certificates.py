"""Certificates made for a test: who they are for, how long, and by whom they were issued."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from restante.tls.certificate import PairFiles

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, in memory."""

    certificate: x509.Certificate
    key: Key

    @property
    def certificate_pem(self) -> bytes:
        """As a file has it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, passphrase: bytes = b"") -> bytes:
        """As a file has it, encrypted if there is a passphrase."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase)
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )


def issue(
    *names: str,
    by: Issued | None = None,
    begins: datetime = NOW - DAY,
    ends: datetime = NOW + 90 * DAY,
    subject: str = "",
    key: Key | None = None,
    names_keys: bool = True,
) -> Issued:
    """A certificate for hosts or addresses, of an issuer or self-signed; no names make a CA.

    ``names_keys``: it says what its key is called, and its issuer's, as authorities' ones do.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = _name(subject or (names[0] if names else "a test's authority"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by.certificate.subject if by else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        alternatives = [_alternative(each) for each in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    if names_keys:
        signer = (by.key if by else key).public_key()
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    return Issued(builder.sign(by.key if by else key, hashes.SHA256()), key)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def write(directory: Path, name: str, issued: Issued, *chain: Issued) -> PairFiles:
    """NAME.pem with the certificate and its chain, NAME.key for its owner alone."""
    files = PairFiles(str(directory / f"{name}.pem"), str(directory / f"{name}.key"))
    replace(files.certificate, b"".join(each.certificate_pem for each in (issued, *chain)))
    replace(files.key, issued.key_pem())
    return files


def replace(path: str, data: bytes) -> None:
    """Put a new file in the place of an old one, at once, as careful programs do."""
    fresh = f"{path}.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    os.rename(fresh, path)


def trusting(*authorities: Issued) -> ssl.SSLContext:
    """What a client needs that believes these authorities and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for each in authorities:
        context.load_verify_locations(cadata=each.certificate_pem.decode())
    return context

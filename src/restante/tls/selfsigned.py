"""A certificate that nobody vouches for, to try TLS out with."""

from __future__ import annotations

import contextlib
import errno
import os
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from restante.errors import OperatorError

VALIDITY = timedelta(days=3650)
CLOCK_SKEW = timedelta(hours=1)
"""By how much a client's clock may be behind this one's."""
KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644
UNFINISHED = ".new"
"""What the files' names end in until both of them are written."""
_COMMON_NAME = "self-signed by restante init"


def write_self_signed(host: str, certificate: str, key: str, now: datetime) -> None:
    """Make a pair for ``host`` and write it into two files, neither of which may be there yet.

    EC P-256, valid for ten years; they get their names when both are on the disk. Raises OSError,
    and OperatorError for a host's name that no certificate can bear.
    """
    if _lacks_a_name(certificate, key) or _lacks_a_name(key, certificate):
        return
    for path in (key, certificate):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    private = ec.generate_private_key(ec.SECP256R1())
    _write(
        f"{key}{UNFINISHED}",
        KEY_MODE,
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _COMMON_NAME)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_ascii(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    written = made.public_bytes(serialization.Encoding.PEM)
    _write(f"{certificate}{UNFINISHED}", CERTIFICATE_MODE, written)
    for path in (key, certificate):
        os.rename(f"{path}{UNFINISHED}", path)


def _lacks_a_name(path: str, other: str) -> bool:
    """Give a file its name where a process was killed between this and the other one's."""
    unfinished = f"{path}{UNFINISHED}"
    if os.path.lexists(path) or not os.path.lexists(unfinished):
        return False
    if not os.path.lexists(other) or os.path.lexists(f"{other}{UNFINISHED}"):
        return False
    os.rename(unfinished, path)
    return True


def _ascii(host: str) -> str:
    """The name as certificates write it (RFC 5280 §7.2)."""
    if host.isascii():
        return host
    import idna  # few hosts need it

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as error:
        raise OperatorError(f"{host!r} can stand in no certificate: {error}") from None


def _write(path: str, mode: int, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):  # of a process that was killed
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)

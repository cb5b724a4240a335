"""The TLS of a connection to the database: its context, and what is said of one that fails."""

from __future__ import annotations

import ssl

from restante.directory.encryption import Encryption
from restante.errors import OperatorError
from restante.tls import CertificateRefused
from restante.tls.certificate import PairFiles, present, trust
from restante.tls.files import PemFiles

NOT_OFFERED = "the server offers no TLS, and ssl_mode in database.url demands it; set up its own"
_CHAIN = "ssl_ca in database.url must name the authority that has issued it"
_NAME = "call the host in database.url as its certificate does, or set ssl_mode=VERIFY_CA"
# X509_V_ERR_*, see X509_STORE_CTX_get_error(3).
_REMEDIES = {
    9: "check the clocks",
    10: "renew it on the server",
    18: _CHAIN,
    19: _CHAIN,
    20: _CHAIN,
    21: _CHAIN,
    62: _NAME,
    64: _NAME,
}
"""What to do about what OpenSSL finds wrong with a certificate."""


def client_context(encryption: Encryption, source: PemFiles) -> ssl.SSLContext:
    """What all handshakes with the database need, TLS 1.2 and up; raises OperatorError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = encryption.mode == "VERIFY_IDENTITY"
    # A named authority need not be a root, whatever the default of this Python is.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        if encryption.mode == "REQUIRED":
            context.verify_mode = ssl.CERT_NONE
        elif encryption.authorities:
            trust(context, encryption.authorities, source)
        else:
            context.load_default_certs()
        if encryption.certificate:
            present(context, PairFiles(encryption.certificate, encryption.key), source)
    except CertificateRefused as error:
        raise OperatorError(f"database.url: {error}") from None
    return context


def objection(error: ssl.SSLError) -> str:
    """Why there is no TLS: for the log, with what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        remedy = _REMEDIES.get(error.verify_code)
        return f"its certificate is refused: {why}" + (f"; {remedy}" if remedy else "")
    return f"TLS fails: {(error.reason or str(error)).replace('_', ' ').lower()}"

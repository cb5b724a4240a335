"""What SCRAM-SHA-256 needs of an account (RFC 5802, RFC 7677): a salt, and keys.

An account whose hash holds neither keys nor the clear text, and one that does not exist, get
a salt all the same. It is made of the login and a secret of this instance, so that it is the
same at every attempt, in every worker and after every restart; nothing tells it from a true one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass

from restante.address import fold
from restante.auth.saslprep import NotPrepared, saslprep
from restante.auth.schemes import ScramKeys, scram_source
from restante.auth.schemes.derived import make_scram
from restante.directory import Credentials
from restante.errors import OperatorError
from restante.keyfile import read_or_make
from restante.labels import name_in_a_labels

HASH = "sha256"
ITERATIONS = 4096
"""Of keys that are not stored: RFC 7677 §4 asks for as many, and Dovecot writes as many."""
SALT_SIZE = 16
"""Octets of a salt that is not stored, as of those that Dovecot writes."""
SECRET_FILE = "scram.secret"  # noqa: S105 - its name
SECRET_SIZE = 32
"""Octets of the secret."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client is told of an account, and what its proof is checked against."""

    salt: bytes
    iterations: int
    keys: ScramKeys | None
    """As they are stored."""
    clear: str | None
    """The password, where that is stored."""

    def __repr__(self) -> str:
        """Without the password."""
        return f"Offer({self.iterations})"

    @property
    def is_possible(self) -> bool:
        """Whether any proof could be right; that of an empty password never is."""
        return self.keys is not None or bool(_octets(self.clear or ""))

    def check(self, message: bytes, proof: bytes) -> bytes | None:
        """The server's signature if ``proof`` is right; some milliseconds, whatever is stored."""
        derived = make_scram(HASH, _octets(self.clear or "nobody"), self.salt, ITERATIONS)
        keys = self.keys or derived
        mask = hmac.digest(keys.stored_key, message, HASH)
        client_key = bytes(one ^ other for one, other in zip(proof, mask, strict=True))
        is_right = hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key)
        if not (is_right and self.is_possible):
            return None
        return hmac.digest(keys.server_key, message, HASH)


def prepared(login: str) -> str:
    """The name to look up: prepared, or as it is where it cannot be (and is nobody's)."""
    try:
        return saslprep(login)
    except NotPrepared:
        return login


def offer(credentials: Credentials | None, login: str, secret: bytes) -> Offer:
    """What the login is offered; raises UnknownScheme for a hash that cannot be judged."""
    source = None
    if credentials is not None:
        source = scram_source(credentials.password, credentials.password_type)
    if isinstance(source, ScramKeys):
        return Offer(source.salt, source.iterations, source, None)
    name = name_in_a_labels(fold(login)).encode("utf-8", "surrogateescape")
    salt = hmac.digest(secret, name, HASH)[:SALT_SIZE]
    return Offer(salt, ITERATIONS, None, source)


def _octets(password: str) -> bytes:
    """Prepared, or as it is where it cannot be: then a client cannot send it either."""
    try:
        return saslprep(password).encode()
    except NotPrepared:
        return password.encode("utf-8", "surrogateescape")


def load_secret(directory: str) -> bytes:
    """The secret of this instance, which whoever comes first makes; raises OperatorError."""
    path = os.path.join(directory, SECRET_FILE)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        secret = read_or_make(path, SECRET_SIZE, may_be_link=True)
    except OSError as error:
        why = f"{path} cannot be used: {error.strerror}"
        if isinstance(error, PermissionError) and os.path.exists(path):  # root's copy of another's
            why += f"; give it to the server's user: chown {os.geteuid()}: {path}"
        raise OperatorError(why) from None
    if len(secret) != SECRET_SIZE:
        raise OperatorError(f"{path} is not the {SECRET_SIZE} octets that were written; remove it")
    return secret

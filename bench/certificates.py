"""The certificate that all systems show: RSA, whose signatures cost most and which many still have.

Nobody vouches for it, and the generators do not mind.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from bench.systems.system import HOST
from restante.tls.certificate import PairFiles
from tests.support.certificates import issue, write

BITS = 2048
"""As authorities' tools make them when they are not told otherwise."""


def rsa_pair(directory: Path) -> PairFiles:
    """A certificate for HOST and its key, in files of their own in ``directory``."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    return write(directory, "rsa", issue(HOST, key=key))

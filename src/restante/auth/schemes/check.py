"""What the module of a scheme makes of a stored hash: a check, or the news that there is none."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from restante.errors import RestanteError


class UnknownScheme(RestanteError):
    """The stored hash is of no scheme known here, malformed, or too costly to be tried."""


@dataclass(frozen=True, slots=True)
class Check:
    """A stored hash that has been read and found usable."""

    matches: Callable[[bytes], bool]
    """Whether the password's octets are right, compared in constant time."""
    cheap: bool
    """It takes microseconds: not worth a thread."""


NEVER = Check(lambda _password: False, cheap=True)
"""The check of an account that nobody can log in to."""


def is_locked(text: str) -> bool:
    """``!`` and ``*`` in place of a hash lock an account, as in shadow(5)."""
    return not text or text[0] in "!*"


def fixed(digest: Callable[[bytes], bytes], expected: bytes, *, cheap: bool = True) -> Check:
    """The check that ``digest`` of the password is ``expected``."""
    return Check(lambda password: hmac.compare_digest(digest(password), expected), cheap=cheap)

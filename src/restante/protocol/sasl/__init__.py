"""The server side of SASL, as POP3 and SMTP embed it: PLAIN, LOGIN and SCRAM-SHA-256.

An exchange is given the client's lines, base64 and all, and answers each with a step:
a challenge, credentials that are to be checked, a question to whoever has the keys, or
a failure. It checks no password.
"""

from __future__ import annotations

from collections.abc import Sequence

from restante.protocol.sasl.passwords import PASSWORD_MECHANISMS, PasswordExchange
from restante.protocol.sasl.scram import Circumstances, ScramExchange
from restante.protocol.sasl.steps import (
    MAX_LINE,
    NO_BINDINGS,
    Bindings,
    Challenge,
    Exchange,
    SaslCredentials,
    SaslFailure,
    ScramBegun,
    ScramDone,
    ScramProof,
    Step,
)

__all__ = [
    "DEFAULT_MECHANISMS",
    "MAX_LINE",
    "MECHANISMS",
    "NO_BINDINGS",
    "SCRAM",
    "SCRAM_PLUS",
    "Bindings",
    "Challenge",
    "Exchange",
    "SaslCredentials",
    "SaslFailure",
    "ScramBegun",
    "ScramDone",
    "ScramExchange",
    "ScramProof",
    "Step",
    "exchange",
    "offered",
]

SCRAM = "SCRAM-SHA-256"
SCRAM_PLUS = "SCRAM-SHA-256-PLUS"
DEFAULT_MECHANISMS = PASSWORD_MECHANISMS
"""Those that work whatever an account's hash is."""
MECHANISMS = (*PASSWORD_MECHANISMS, SCRAM, SCRAM_PLUS)
"""All that are known."""


def offered(mechanisms: Sequence[str], bindings: Bindings) -> tuple[str, ...]:
    """Those of ``mechanisms`` that can be done on a connection with these bindings."""
    return tuple(each for each in mechanisms if each != SCRAM_PLUS or bindings)


def exchange(mechanism: str, mechanisms: Sequence[str], bindings: Bindings) -> Exchange | None:
    """A new exchange by this mechanism, whose name ignores case; None if it is not offered."""
    name, possible = mechanism.upper(), offered(mechanisms, bindings)
    if name not in possible:
        return None
    if name in PASSWORD_MECHANISMS:
        return PasswordExchange(name)
    return ScramExchange(name, Circumstances(bindings, SCRAM_PLUS in possible))

"""Guesses at passwords: how many lately, at what, from where, and what follows from them.

This module is the contract. What counts is *distinct* wrong passwords, so that a phone with an
old one, which tries it every minute, counts once. A wrong password counts for ``Limits.window``
seconds from when it was first tried; who is at a limit is heard again when the oldest of the
guesses that count is that old, and not by waiting from the last one. What is refused is not
checked, and so is no guess.

An account may be tried from networks that it has lately logged in from ("known") for as long as
those networks themselves behave: strangers cannot lock its owner out there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from restante.errors import TemporaryError
from restante.network import Network

EVERYWHERE = 3
"""From all networks together, an account takes so many times the guesses that it takes from one;
so nobody can keep its owner from other networks with guesses from one or two."""
NEIGHBOURS = 4
"""A wide network is refused at so many times the guesses of a narrow one."""
KNOWN_FOR = 30 * 86400
"""Seconds for which a login makes its network one that the account is known from."""
MAX_DELAY = 20.0
"""Seconds that a refusal may be delayed: clients give up at about 30 (RFC 1939 asks for 600)."""


class GuessesUnusable(TemporaryError):
    """What was guessed cannot be counted: the disk or a file fails."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many distinct wrong passwords are taken; 0 is no limit."""

    account: int
    """For one account, from one network."""
    network: int
    """From one network, for all accounts together."""
    window: float
    """Seconds for which one counts."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Distinct wrong passwords that count now."""

    here: int = 0
    """For the account, from the narrow network."""
    account: int = 0
    """For the account, from everywhere."""
    network: int = 0
    """From the narrow network, for whatever account."""
    wide: int = 0
    """From the wide network, for whatever account."""
    known: bool = False
    """The account has lately logged in from the narrow network."""


CLEAR = Standing()


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a password is not even checked."""

    scope: str
    """``network`` where the client's network has tried too much, ``account`` where the account has
    been tried too much."""
    name: str
    """The network or account."""
    guesses: int
    limit: int

    def __str__(self) -> str:
        return f"{self.scope} {self.name}: {self.guesses} wrong passwords of {self.limit}"


def objection(
    limits: Limits, standing: Standing, account: str, network: Network
) -> Objection | None:
    """What speaks against checking a password of ``account`` from ``network``, if anything."""
    here, everywhere = limits.account, limits.account * EVERYWHERE
    if here and standing.here >= here:
        return Objection("account", account, standing.here, here)
    if standing.known:
        return None
    if everywhere and standing.account >= everywhere:
        return Objection("account", account, standing.account, everywhere)
    if not limits.network:
        return None
    if standing.network >= limits.network:
        return Objection("network", network.narrow, standing.network, limits.network)
    if standing.wide >= limits.network * NEIGHBOURS:
        return Objection("network", network.wide, standing.wide, limits.network * NEIGHBOURS)
    return None


def delay(base: float, standing: Standing) -> float:
    """Seconds until a refusal is told: twice as many for each guess beyond the second.

    ``base`` is what the first two wait. What one phone repeats is one guess, and waits no longer.
    """
    guesses = max(standing.here, standing.network)
    return max(base, min(base * 2.0 ** min(guesses - 2, 16), MAX_DELAY))


@dataclass(frozen=True, slots=True)
class Look:
    """How things stand for an account and a client."""

    standing: Standing = CLEAR
    objection: Objection | None = None
    """Why a password is not to be checked; None if it is."""


UNSUSPECTED = Look()


class Guard(Protocol):
    """Counts guesses for all processes of an instance together, and over restarts.

    No method raises: where nothing can be counted, logins go on, and the log says so.
    ``account`` is the account's name, or the login where there is no such account; ``peer`` the
    client's address, empty if it has none.
    """

    async def look(self, account: str, peer: str) -> Look:
        """How things stand; costs microseconds."""
        ...

    async def wrong(self, account: str, peer: str, password: str | None) -> Standing:
        """Count a wrong password, before its answer is told; what counts then.

        None is a password that is not to be seen (SCRAM): each is a guess of its own.
        """
        ...

    async def right(self, account: str, peer: str, before: Look) -> None:
        """The password was right; ``before`` is how things stood."""
        ...

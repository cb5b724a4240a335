"""Which names a prefetch asks for, so that routing has its answers at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from restante.address import dash_prefixes, fold
from restante.directory.sql import Shape

MAX_ADDRESSES = 20
"""Addresses in one statement."""
MAX_PREFIXES = 5
"""Users that one local part with dashes may mean and that are asked for in advance."""

Pair = tuple[str, str]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """All names are folded; ``parameters`` are for the statement of this ``shape``."""

    addresses: tuple[Pair, ...]
    domains: tuple[str, ...]
    names: tuple[str, ...]
    """User names whose mailbox and whose instructions without extension are asked."""
    extensions: tuple[str, ...]
    """Extensions of the user ``alias``."""
    pairs: tuple[Pair, ...]
    """Users and extensions whose instructions are asked."""
    shape: Shape
    parameters: tuple[str, ...]


def questions(addresses: Sequence[Pair]) -> Iterator[Question]:
    """The questions about (local part, domain) pairs, each of bounded size."""
    folded = list(dict.fromkeys((fold(local), fold(domain)) for local, domain in addresses))
    for start in range(0, len(folded), MAX_ADDRESSES):
        yield _question(folded[start : start + MAX_ADDRESSES])


def _question(addresses: list[Pair]) -> Question:
    locals_of: dict[str, list[str]] = {}
    for local, domain in addresses:
        locals_of.setdefault(domain, []).append(local)
    names = _unique(name for address in addresses for name, _ in _users(address))
    pairs = _unique(pair for address in addresses for pair in _users(address) if pair[1])
    extensions = _unique(("", *(text for address in addresses for text in _whole(address))))
    groups = {domain: _padded(found) for domain, found in locals_of.items()}
    padded_names, padded_extensions = _padded(names), _padded(extensions)
    padded_pairs = _padded(pairs)
    domains = tuple(groups)
    return Question(
        addresses=tuple(addresses),
        domains=domains,
        names=tuple(names),
        extensions=tuple(extensions),
        pairs=tuple(pairs),
        shape=Shape(
            tuple(len(group) for group in groups.values()),
            len(padded_names),
            len(padded_extensions),
            len(padded_pairs),
        ),
        parameters=(
            *(text for domain, group in groups.items() for text in (domain, *group)),
            *padded_names,
            *padded_names,
            *padded_extensions,
            *(text for pair in padded_pairs for text in pair),
            *domains,
            *domains,
        ),
    )


def _users(address: Pair) -> Iterator[Pair]:
    """The users, with extensions, that the local part may mean, alone and with its domain."""
    local, domain = address
    for user, extension in islice(dash_prefixes(local), MAX_PREFIXES):
        yield user, extension
        if domain:
            yield f"{user}@{domain}", extension


def _whole(address: Pair) -> Iterator[str]:
    """The local part and whoever gets reports about what it forwards, with and without domain."""
    local, domain = address
    for name in (local, f"{local}-owner"):
        yield name
        if domain:
            yield f"{name}@{domain}"


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))


def _padded(items: list[T]) -> list[T]:
    """``items`` with the last repeated up to a power of two: few shapes, few statements."""
    size = 1
    while size < len(items):
        size *= 2
    return items + items[-1:] * (size - len(items)) if items else []

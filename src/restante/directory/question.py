"""Which names are asked for together, so that routing has its answers at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

from restante.address import dash_prefixes, fold
from restante.directory.sql import OrdinaryShape, ThoroughShape
from restante.labels import forms, is_international

MAX_ORDINARY = 50
"""Addresses in one ordinary statement: what each of them costs hardly falls any further."""
MAX_THOROUGH = 20
"""Addresses in one thorough statement, which asks for a dozen names for each."""
MAX_PREFIXES = 5
"""Users that one local part with dashes may mean and that are asked for in advance."""

Pair = tuple[str, str]

T = TypeVar("T")


class OrdinaryQuestion(NamedTuple):
    """All names are folded; the parameters are for statements of this ``shape``.

    One is made for each look-up: a tuple, which is made three times faster than other values.
    """

    pairs: tuple[Pair, ...]
    """The addresses, and the catch-alls of their domains."""
    domains: tuple[str, ...]
    shape: OrdinaryShape
    places: tuple[str, ...]
    """Parameters that say which addresses are asked for."""
    parameters: tuple[str, ...]
    """Those of ``sql.ordinary``."""


def folded_pairs(addresses: Iterable[Pair]) -> tuple[Pair, ...]:
    """The (local part, domain) pairs folded, each once."""
    return tuple(dict.fromkeys([(fold(local), fold(domain)) for local, domain in addresses]))


def in_all_forms(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Folded pairs, each in all forms of its domain: the very same if none has another."""
    for _, domain in pairs:
        if is_international(domain):
            every = [(local, form) for local, domain in pairs for form in forms(domain)]
            return tuple(dict.fromkeys(every))
    return pairs


def ordinary_question(addresses: Sequence[Pair]) -> OrdinaryQuestion:
    """The question about folded addresses."""
    if len(addresses) == 1:
        return _about_one(*addresses[0])
    domains = tuple(dict.fromkeys([domain for _, domain in addresses]))
    pairs = tuple(dict.fromkeys([*addresses, *[("", domain) for domain in domains]]))
    filled = padded(pairs)
    shape = OrdinaryShape(len(filled), len(domains) == 1)
    if shape.one_domain:
        places = (*domains, *[local for local, _ in filled])
        return OrdinaryQuestion(pairs, domains, shape, places, (*domains, *places))
    places = tuple([name for local, domain in filled for name in (domain, local)])
    hosts = [domain for _, domain in filled]
    return OrdinaryQuestion(pairs, domains, shape, places, (*places, *hosts))


def _about_one(local: str, domain: str) -> OrdinaryQuestion:
    """As about several, in a few steps: a session that is alone asks nothing else."""
    locals_ = (local, "") if local else ("",)
    pairs = tuple([(each, domain) for each in locals_])
    places = (domain, *locals_)
    return OrdinaryQuestion(pairs, (domain,), _SHAPES[len(pairs)], places, (domain, *places))


_SHAPES = {pairs: OrdinaryShape(pairs, one_domain=True) for pairs in (1, 2)}
"""Those of a single address, by how many it is with its catch-all."""


@dataclass(frozen=True, slots=True)
class ThoroughQuestion:
    """All names are folded; ``parameters`` are for the statement of this ``shape``."""

    addresses: tuple[Pair, ...]
    domains: tuple[str, ...]
    names: tuple[str, ...]
    """User names whose mailbox and whose instructions without extension are asked."""
    extensions: tuple[str, ...]
    """Extensions of the user ``alias``."""
    pairs: tuple[Pair, ...]
    """Users and extensions whose instructions are asked."""
    shape: ThoroughShape
    parameters: tuple[str, ...]


def thorough_questions(addresses: Sequence[Pair]) -> Iterator[ThoroughQuestion]:
    """The questions about folded addresses, each of bounded size."""
    for start in range(0, len(addresses), MAX_THOROUGH):
        yield _thorough_question(addresses[start : start + MAX_THOROUGH])


def _thorough_question(addresses: Sequence[Pair]) -> ThoroughQuestion:
    locals_of: dict[str, list[str]] = {}
    for local, domain in addresses:
        locals_of.setdefault(domain, []).append(local)
    names = _unique(name for address in addresses for name, _ in _users(address))
    pairs = _unique(pair for address in addresses for pair in _users(address) if pair[1])
    extensions = _unique(("", *(text for address in addresses for text in _whole(address))))
    groups = {domain: padded(found) for domain, found in locals_of.items()}
    padded_names, padded_extensions = padded(names), padded(extensions)
    padded_pairs = padded(pairs)
    domains = tuple(groups)
    return ThoroughQuestion(
        addresses=tuple(addresses),
        domains=domains,
        names=tuple(names),
        extensions=tuple(extensions),
        pairs=tuple(pairs),
        shape=ThoroughShape(
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


def padded(items: Sequence[T]) -> list[T]:
    """``items`` with the last repeated up to a power of two: few shapes, few statements."""
    size = 1
    while size < len(items):
        size *= 2
    return [*items, *[items[-1]] * (size - len(items))] if items else []

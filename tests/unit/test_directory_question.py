"""What is asked about addresses fits the statement that it is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from restante.directory import sql
from restante.directory.engine import MYSQL, SQLITE, Dialect
from restante.directory.question import OrdinaryQuestion, Pair, ordinary_question

ADDRESSES: list[list[Pair]] = [
    [("iain", "x.org")],
    [("", "x.org")],
    [("iain", "")],
    [("iain", "x.org"), ("", "x.org")],
    [("iain", "x.org"), ("ann", "x.org")],
    [("iain", "x.org"), ("ann", "y.org"), ("", "y.org")],
]
STATEMENTS: list[tuple[Callable[[Dialect, OrdinaryQuestion], str], str]] = [
    (lambda dialect, asked: sql.ordinary(dialect, asked.shape), "parameters"),
    (lambda dialect, asked: sql.unowned(dialect, asked.shape, 0), "places"),
]


@pytest.mark.parametrize("dialect", [SQLITE, MYSQL], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("addresses", ADDRESSES)
def test_a_statement_gets_as_many_parameters_as_it_has_places(
    addresses: list[Pair], dialect: Dialect
) -> None:
    asked = ordinary_question(addresses)
    for text_of, parameters in STATEMENTS:
        assert text_of(dialect, asked).count("?") == len(getattr(asked, parameters))


@pytest.mark.parametrize("addresses", ADDRESSES)
def test_the_addresses_are_asked_for_and_the_catch_alls_of_their_domains(
    addresses: list[Pair],
) -> None:
    asked = ordinary_question(addresses)
    wanted = {*addresses, *[("", domain) for _, domain in addresses]}
    assert set(asked.pairs) == wanted
    assert len(asked.pairs) == len(wanted)
    assert list(asked.domains) == list(dict.fromkeys(domain for _, domain in addresses))
    if len(asked.domains) == 1:
        assert asked.parameters[:2] == asked.domains * 2
        assert set(asked.parameters[2:]) == {local for local, _ in wanted}


@pytest.mark.parametrize("local", ["iain", ""])
def test_one_address_asks_as_if_it_came_several_times(local: str) -> None:
    """It is put together in fewer steps, and comes to the same."""
    pair = (local, "x.org")
    assert ordinary_question([pair]) == ordinary_question([pair, pair])

"""What single columns are taken for, whatever type the driver gives them."""

from __future__ import annotations

from decimal import Decimal
from typing import cast

import pytest

from restante.directory import MAX_ID, Account, BadRow
from restante.directory.engine import Row, Value
from restante.directory.rows import account_of, chosen, key_of


@pytest.mark.parametrize(
    "number",
    [0, 1000, MAX_ID, "1000", b"1000", 1000.0, cast(Value, Decimal(1000)), "000", "0" * 99 + "7"],
)
def test_a_number_of_any_type_is_a_uid(number: Value) -> None:
    assert account_of(("iain", number, number, "/h")) == Account(
        "iain", int(cast(int, number)), int(cast(int, number)), "/h"
    )


@pytest.mark.parametrize("number", [-1, MAX_ID + 1, 2**64, 1.5, None, "", "x", "²"])
def test_what_is_no_uid_is_a_bad_row(number: Value) -> None:
    with pytest.raises(BadRow, match="uid"):
        account_of(("iain", number, 1, "/h"))
    with pytest.raises(BadRow, match="gid"):
        account_of(("iain", 1, number, "/h"))


@pytest.mark.parametrize(
    ("value", "key"),
    [("IAIN", "iain"), (b"IAIN", "iain"), ("ÄB", "Äb"), (None, ""), (7, "7"), (b"\xff", "\udcff")],
)
def test_a_name_is_compared_without_ascii_case(value: Value, key: str) -> None:
    assert key_of(value) == key


def test_of_several_rows_always_the_same_one_is_chosen() -> None:
    one: Row = ("iain", 2, 1, "/h")
    other: Row = ("Iain", 1, 1, "/h")
    assert chosen([one, other]) == chosen([other, one]) == other
    assert chosen([one]) == one
    assert chosen([]) is None

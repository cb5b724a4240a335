"""Records: values, as frozen dataclasses are, which the type checker guards."""

from __future__ import annotations

from dataclasses import field

import pytest

from restante.records import record


@record
class Point:
    """Two numbers and a note that does not count."""

    x: int
    y: int = 0
    note: str = field(default="", compare=False)


def test_equal_records_are_one_key() -> None:
    assert Point(1, 2, "here") == Point(1, 2, "there")
    assert {Point(1, 2, "here"): "found"}[Point(1, 2)] == "found"
    assert Point(1, 2) != Point(2, 1)
    assert repr(Point(1)) == "Point(x=1, y=0, note='')"


def test_records_have_the_fields_they_name_and_no_others() -> None:
    with pytest.raises(AttributeError, match="z"):
        Point(1, 2).z = 3  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="x"):
        Point()  # type: ignore[call-arg]


def test_the_type_checker_knows_that_they_are_frozen() -> None:
    """mypy fails where an ignored error is none: that it is one is what is tested."""
    point = Point(1)
    point.x = 2  # type: ignore[misc]
    assert point == Point(2)

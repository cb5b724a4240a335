"""What counts as growth of a server that is watched for hours (tests/endurance)."""

from __future__ import annotations

import pytest

from tests.endurance.flat import Sample, grown

STILL = Sample(descriptors=120, threads=20, processes=4, kib=80_000, stored_kib=9_000)


def test_what_stays_as_it_is() -> None:
    assert grown([STILL] * 40) == []


def test_what_grows_before_it_is_warm() -> None:
    assert grown([Sample(60, 10, 3, 40_000, 100)] * 10 + [STILL] * 30) == []


def test_what_differs_from_sample_to_sample() -> None:
    more = Sample(descriptors=140, threads=24, processes=5, kib=84_000, stored_kib=20_000)
    assert grown([STILL, more] * 20) == []


@pytest.mark.parametrize(
    ("figure", "by"), [("descriptors", 1), ("threads", 1), ("kib", 300), ("stored_kib", 900)]
)
def test_what_grows_all_the_time(figure: str, by: int) -> None:
    samples = [
        Sample(**(vars(STILL) | {figure: getattr(STILL, figure) + by * number}))
        for number in range(40)
    ]
    (fault,) = grown(samples)
    assert fault.startswith(f"{figure} grew from ")

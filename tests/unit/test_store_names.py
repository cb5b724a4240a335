"""What names say is the same whether they are looked at one by one or a thousand together."""

from __future__ import annotations

import itertools

import pytest

from restante.store.names import (
    TOGETHER,
    are_of_our_time,
    are_uids,
    order_of_arrival,
    wire_size,
    wire_sizes,
)

PLAIN = [f"{1_790_000_000 + n}.M{n}P1.host,S={n},W={n + n // 40}" for n in range(1, 50)]
ODD = [
    "1790000000.a",
    "1790000000",
    "12.a,S=3,W=4",
    "x1790000000.a,S=3,W=4",
    "1790000000.a,S=3,W=7",
    "1790000000.a,S=4,W=3",
    "1790000000.a,S=3",
    "1790000000.a,W=3",
    "1790000000.a,S=3,W=4,W=5",
    "1790000000.a,S=3,S=4,W=5",
    "1790000000.a,S=3,W=4,X=5",
    "1790000000.a,W=4,S=3",
    "1790000000.a,S=,W=",
    "1790000000.a,S=1_0,W=11",
    "1790000000.a,S=\xb2,W=\xb3",
    "1790000000.a,S= 3,W=+4",
    f"1790000000.a,S={2**41},W={2**41}",
    "1790000000.a,S=00000000000003,W=4",
    "1790000000.a,S=3,W=00000000000004",
    "1790000000." + "a" * 256 + ",S=3,W=4",
]


@pytest.mark.parametrize("odd", ODD)
def test_one_odd_name_hides_nothing(odd: str) -> None:
    for bases in ([odd], [*PLAIN, odd], [odd, *PLAIN], [*PLAIN[:9], odd, odd, *PLAIN[9:]]):
        assert wire_sizes(bases) == ([wire_size(base) for base in bases], False)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(ODD, 2)))
def test_two_odd_names_do_not_make_up_for_one_another(first: str, second: str) -> None:
    bases = [PLAIN[0], first, second, PLAIN[1]]
    assert wire_sizes(bases)[0] == [wire_size(base) for base in bases]


def test_names_as_they_should_be_are_known_to_be() -> None:
    many = [f"{1_790_000_000 + n}.a,S=9,W=10" for n in range(2 * TOGETHER + 1)]
    assert wire_sizes(many) == ([10] * len(many), True)
    assert are_of_our_time(many)
    assert are_uids(many)
    assert wire_sizes([]) == ([], True)


@pytest.mark.parametrize("odd", ["", "a b", "a\n", "\xe9", "\x7f", "a" * 71])
def test_one_that_is_no_uid_is_found(odd: str) -> None:
    assert not are_uids([*PLAIN * 50, odd])


def test_arrival_counts_where_the_order_of_names_is_another() -> None:
    bases = ["1000000000.a", "999999999.b", "nobody-knows"]
    assert not are_of_our_time(bases)
    assert order_of_arrival(bases) == [2, 1, 0]

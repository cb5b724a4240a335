"""Answers are good for their time, by a clock that jumps, and there are never too many."""

from __future__ import annotations

from dataclasses import dataclass

from restante.relay.cache import ExpiringCache


@dataclass
class Ticks:
    """A clock that tests set."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_value_is_there_until_its_time_has_passed() -> None:
    ticks = Ticks()
    cache: ExpiringCache[str, int] = ExpiringCache(10, ticks)
    cache.put("a", 1, 60)
    ticks.now += 59.9
    assert cache.get("a") == 1
    ticks.now += 0.1
    assert cache.get("a") is None
    assert len(cache) == 0


def test_what_is_good_for_no_time_is_not_kept() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(10, Ticks())
    cache.put("a", 1, 60)
    cache.put("a", 2, 0)
    assert cache.get("a") is None


def test_a_new_value_has_a_new_time() -> None:
    ticks = Ticks()
    cache: ExpiringCache[str, int] = ExpiringCache(10, ticks)
    cache.put("a", 1, 60)
    ticks.now += 50
    cache.put("a", 2, 60)
    ticks.now += 50
    assert cache.get("a") == 2


def test_what_was_not_asked_for_the_longest_time_makes_room() -> None:
    cache: ExpiringCache[int, int] = ExpiringCache(3, Ticks())
    for number in (1, 2, 3):
        cache.put(number, number, 60)
    cache.get(1)
    cache.put(4, 4, 60)
    assert [cache.get(number) for number in (1, 2, 3, 4)] == [1, None, 3, 4]


def test_all_is_forgotten() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(10, Ticks())
    cache.put("a", 1, 60)
    cache.clear()
    assert cache.get("a") is None

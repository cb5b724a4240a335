"""Hosts that do not answer are left alone, by a clock that jumps."""

from __future__ import annotations

from restante.relay.health import FIRST_REST, LONGEST_REST, MAX_HOSTS, PROBE_TIME, Health
from restante.relay.resolver import Endpoint
from tests.unit.test_relay_cache import Ticks

HOST = Endpoint("mx.example", "192.0.2.1", 25)
OTHER = Endpoint("mx.example", "192.0.2.2", 25)


def test_a_host_nobody_knows_is_tried() -> None:
    assert Health(Ticks()).rest(HOST) == 0


def test_a_host_that_failed_rests_longer_each_time() -> None:
    ticks = Ticks()
    health = Health(ticks)
    rests = []
    for _ in range(10):
        health.failed(HOST)
        rests.append(health.rest(HOST))
        ticks.now += rests[-1]
        assert health.rest(HOST) == 0
    assert rests[:3] == [FIRST_REST, FIRST_REST * 2, FIRST_REST * 4]
    assert max(rests) == rests[-1] == LONGEST_REST


def test_attempts_that_fail_together_count_once() -> None:
    ticks = Ticks()
    health = Health(ticks)
    for _ in range(20):
        health.failed(HOST)
    assert health.rest(HOST) == FIRST_REST
    ticks.now += FIRST_REST
    assert health.rest(HOST) == 0
    for _ in range(20):
        health.failed(HOST)
    assert health.rest(HOST) == FIRST_REST * 2


def test_others_are_not_meant() -> None:
    health = Health(Ticks())
    health.failed(HOST)
    assert health.rest(OTHER) == 0
    assert health.rest(Endpoint("mx.example", "192.0.2.1", 26)) == 0
    assert health.rest(Endpoint("another.name", "192.0.2.1", 25)) > 0


def test_one_finds_out_whether_it_is_back() -> None:
    ticks = Ticks()
    health = Health(ticks)
    health.failed(HOST)
    ticks.now += FIRST_REST
    assert health.rest(HOST) == 0
    assert health.rest(HOST) == PROBE_TIME
    health.answered(HOST)
    assert health.rest(HOST) == 0


def test_an_answer_ends_it() -> None:
    ticks = Ticks()
    health = Health(ticks)
    health.failed(HOST)
    health.answered(HOST)
    health.failed(HOST)
    assert health.rest(HOST) == FIRST_REST


def test_who_failed_longest_ago_makes_room() -> None:
    health = Health(Ticks())
    health.failed(HOST)
    for port in range(1, MAX_HOSTS + 1):
        health.failed(Endpoint("x", "192.0.2.3", port))
    assert health.rest(HOST) == 0


def test_those_that_were_silent_come_last_but_for_one() -> None:
    """Whether their rest is over or not; or else they take the time of all who come behind."""
    ticks = Ticks()
    health = Health(ticks)
    hosts = [Endpoint("mx.example", f"192.0.2.{number}", 25) for number in range(1, 5)]
    first, second, third, fourth = hosts
    assert health.in_turn(hosts) == (first, second, third, fourth)
    health.failed(first)
    assert health.in_turn(hosts) == (first, second, third, fourth)
    ticks.now += 1
    health.failed(second)
    ticks.now += LONGEST_REST
    assert health.in_turn(hosts) == (first, third, fourth, second)
    assert health.rest(first) == 0
    health.failed(first)
    assert health.in_turn(hosts) == (second, third, fourth, first)
    health.answered(second)
    assert health.in_turn(hosts) == (first, second, third, fourth)


def test_a_worse_host_that_was_silent_takes_no_better_ones_turn() -> None:
    health = Health(Ticks())
    hosts = [Endpoint("mx.example", f"192.0.2.{number}", 25) for number in range(1, 5)]
    first, second, third, fourth = hosts
    health.failed(fourth)
    health.failed(second)
    health.failed(first)
    assert health.in_turn(hosts) == (first, third, second, fourth)


def test_who_falls_silent_during_a_message_has_its_turn_but_no_rest() -> None:
    ticks = Ticks()
    health = Health(ticks)
    last = Endpoint("mx2.example", "192.0.2.3", 25)
    health.stalled(HOST)
    health.stalled(OTHER)
    assert health.in_turn([HOST, OTHER, last]) == (HOST, last, OTHER)
    assert health.rest(OTHER) == 0
    health.failed(OTHER)
    assert health.rest(OTHER) == FIRST_REST


def test_an_operator_may_know_better() -> None:
    health = Health(Ticks())
    health.failed(HOST)
    health.forget()
    assert health.rest(HOST) == 0
    health.failed(HOST)
    assert health.rest(HOST) == FIRST_REST

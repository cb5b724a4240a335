"""The schedule of retries."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.queue.retry import (
    JITTER,
    LOCAL_STEP,
    REMOTE_STEP,
    Absence,
    RetryPolicy,
    furthest_attempt,
)

DAY = 86400.0
WEEK = 7 * DAY


def steady(lifetime: float = WEEK) -> RetryPolicy:
    return RetryPolicy(lifetime, lambda: 0.0)


def schedule(policy: RetryPolicy, step: float) -> list[float]:
    """The ages at which a message is tried until it is given up."""
    ages, age = [], 0.0
    while not policy.is_last(0.0, age):
        age = policy.next_attempt(0.0, age, step)
        ages.append(age)
    return ages


@pytest.mark.parametrize("step", [LOCAL_STEP, REMOTE_STEP])
def test_the_nth_attempt_comes_at_the_square_of_n_steps(step: float) -> None:
    expected = [(n * step) ** 2 for n in range(1, math.ceil(math.sqrt(WEEK) / step) + 1)]
    assert schedule(steady(), step) == pytest.approx(expected)


def test_a_week_is_so_many_attempts() -> None:
    assert len(schedule(steady(), LOCAL_STEP)) == 78
    assert len(schedule(steady(), REMOTE_STEP)) == 39


def test_one_last_attempt_comes_after_the_lifetime() -> None:
    policy = steady(1000.0)
    *earlier, last = schedule(policy, LOCAL_STEP)
    assert max(earlier) < 1000.0 <= last
    assert steady(0.0).is_last(0.0, 0.0)


@given(
    age=st.floats(-1e6, WEEK - 1),
    step=st.sampled_from([LOCAL_STEP, REMOTE_STEP]),
    luck=st.floats(0, 1, exclude_max=True),
)
def test_no_attempt_lies_further_ahead_than_any_may(age: float, step: float, luck: float) -> None:
    """Nor when it is looked at later than it was set, by a clock that goes on."""
    born = 1_800_000_000.0
    now = born + age
    following = RetryPolicy(WEEK, lambda: luck, DAY).next_attempt(born, now, step)
    for later in (0.0, 1.0, 1e6):
        assert following <= furthest_attempt(born, now + later) + 0.001


@given(
    age=st.floats(-1e6, WEEK - 1),
    step=st.sampled_from([LOCAL_STEP, REMOTE_STEP]),
    luck=st.floats(0, 1, exclude_max=True),
)
def test_jitter_only_delays_and_only_so_much(age: float, step: float, luck: float) -> None:
    born = 1_800_000_000.0
    now = born + age
    exact = steady().next_attempt(born, now, step)
    actual = RetryPolicy(WEEK, lambda: luck).next_attempt(born, now, step)
    assert exact >= now + step**2 - 0.001
    assert exact <= actual <= now + (exact - now) * (1 + JITTER) + 0.001


@pytest.mark.parametrize("away", [2 * DAY, 2 * WEEK])
def test_whose_time_was_up_while_nobody_was_there_is_tried_for_as_long_again(away: float) -> None:
    policy = RetryPolicy(WEEK, lambda: 0.0, absences=(Absence(WEEK - DAY, WEEK - DAY + away),))
    awake = WEEK - DAY + away
    over = awake + min(away, WEEK)
    for now in (awake, over - 1):
        assert not policy.is_last(0.0, now)
        assert policy.next_attempt(0.0, now, LOCAL_STEP) == pytest.approx(
            awake + (math.sqrt(now - awake) + LOCAL_STEP) ** 2
        )
    assert policy.is_last(0.0, over)
    assert policy.is_last(0.0, awake - 1), "by a clock that is behind the absence again"
    assert policy.spared(awake) == [(-DAY, away - DAY)]
    assert policy.spared(awake - 1) == policy.spared(over) == []


def test_others_are_given_up_as_ever() -> None:
    policy = RetryPolicy(WEEK, lambda: 0.0, absences=(Absence(WEEK, WEEK + DAY),))
    for born, is_last in ((0.0, True), (1.0, False), (DAY, False), (DAY + 1.0, True)):
        assert policy.is_last(born, WEEK + 2 * DAY - 1) == is_last


@given(since=st.floats(0, 2 * WEEK), away=st.floats(3601, 2 * WEEK), later=st.floats(0, WEEK))
def test_no_absence_puts_an_attempt_further_ahead(since: float, away: float, later: float) -> None:
    policy = RetryPolicy(WEEK, lambda: 0.0, absences=(Absence(since, since + away),))
    now = since + away + later
    assert policy.next_attempt(0.0, now, REMOTE_STEP) <= furthest_attempt(0.0, now) + 0.001

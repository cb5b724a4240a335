"""A list of 1,000 recipients at 50 domains, and kill -9 while it is sent: none lost, none twice."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.far_hosts import Sink, smtp_sink
from tests.support.instance import until
from tests.support.serving import start
from tests.support.world import LIST_DOMAINS, LISTS, World, new_world

pytestmark = pytest.mark.peer

RECIPIENTS = [f"u{number}@{LIST_DOMAINS[number % 50]}" for number in range(1000)]
SINGLES = [f"single{number}@{LIST_DOMAINS[number]}" for number in range(20)]
KILLS = 3


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An instance and its DNS."""
    with new_world(tmp_path) as running:
        yield running


@contextlib.contextmanager
def sinks(world: World, *options: str) -> Iterator[list[Sink]]:
    """All hosts of the list's domains."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(smtp_sink(each, world.port, *options)) for each in LISTS]


def arrived(hosts: list[Sink]) -> Counter[str]:
    """How often each recipient's mail has arrived."""
    taken = [each for host in hosts for each in host.taken()]
    return Counter(recipient for each in taken for recipient in each.recipients)


def recorded(world: World) -> set[str]:
    """The recipients whose delivery the log knows of."""
    return {each.recipient for each in world.fates() if each.event == "sent"}


def is_empty(world: World) -> bool:
    """Whether nothing is left in the queue."""
    return not world.instance.queued()


def test_a_list(world: World) -> None:
    with sinks(world) as hosts:
        world.send(*RECIPIENTS)
        until(lambda: len(recorded(world)) == len(RECIPIENTS), "all recipients are served")
        assert arrived(hosts) == Counter(RECIPIENTS)
        # One transaction a domain.
        assert sum(len(host.taken()) for host in hosts) == len(LIST_DOMAINS)
    assert {each.event for each in world.fates()} == {"sent"}
    assert is_empty(world)


def kill_after_more_than(world: World, count: int) -> None:
    """Kill the server once so many recipients are served, and some."""
    until(lambda: len(recorded(world)) > count, "something is sent")
    world.instance.kill()


def test_a_list_and_kill_9(world: World) -> None:
    safe: dict[str, int] = {}
    """Recipients that the log knew of at a kill, and how often their mail had arrived by then."""
    # Every content is acknowledged a second late: some are under way at any time.
    with sinks(world, "-W", ".:1") as hosts:
        for single in SINGLES:
            world.send(single)
        world.send(*RECIPIENTS)
        for _ in range(KILLS):
            kill_after_more_than(world, len(safe))
            count = arrived(hosts)
            safe = {recipient: count[recipient] for recipient in recorded(world)} | safe
            assert len(safe) < len(RECIPIENTS) + len(SINGLES)
            start(world.instance)
        until(lambda: is_empty(world), "all is sent")
        count = arrived(hosts)
    assert set(count) == {*RECIPIENTS, *SINGLES}
    assert {recipient: count[recipient] for recipient in safe} == safe
    assert {each.event for each in world.fates()} == {"sent"}

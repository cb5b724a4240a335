"""What is in motion, lane by lane, and how much more may be: in memory, gone with the process."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from restante.queue import LOCAL_LANE, is_account_lane

WIDEST = 1024
"""Attempts at once in a lane that works again, from which on its past is forgotten."""
MOST_WINDOWS = 10_000
"""Lanes whose past is remembered; beyond, all of them are trusted again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be in motion at the same time: attempts, each for one message in one lane."""

    local: int
    """In the local lane."""
    remote: int
    """In all other lanes together."""
    per_lane: int
    """In one of the others (a destination)."""
    per_message: int
    """Of one message, in lanes of other hosts and in the local one."""
    programs: int
    """In all lanes of accounts together."""

    @property
    def per_account(self) -> int:
        """In the lane of one account: whoever's programs hang leaves room for those of others."""
        return max(1, self.programs // 4)

    @property
    def kept_elsewhere(self) -> int:
        """Of ``remote``, what lanes get in which nothing moves, one each: however many others are
        slow. One that is alone has all of ``per_lane``."""
        return max(0, min(self.remote // 4, self.remote - self.per_lane))

    @property
    def kept_for_accounts(self) -> int:
        """The same of ``programs``."""
        return self.programs // 4


@dataclass(slots=True)
class Traffic:
    """What is in motion in a queue."""

    _lanes: dict[str, set[str]] = field(default_factory=dict)
    """By lane, the ids of the messages."""
    _former: dict[str, set[str]] = field(default_factory=dict)
    """By lane, those of them that moved already when it failed: what they do, and for how long,
    says nothing of the lane as it is now."""
    _spread: Counter[str] = field(default_factory=Counter[str])
    """By message, in how many lanes it moves that are no account's."""
    _accounts: int = 0
    """Attempts in lanes of accounts ..."""
    _elsewhere: int = 0
    """... and in those of other hosts."""
    _windows: dict[str, int] = field(default_factory=dict)
    """What lanes may have in motion that were left alone not long ago."""
    _quiet: dict[str, float] = field(default_factory=dict)
    """Lanes that have no more to hand out, and until when, though the table has them due."""

    def copy(self) -> Traffic:
        """As it is now, for another thread."""
        lanes, former = (
            {lane: set(ids) for lane, ids in each.items()} for each in (self._lanes, self._former)
        )
        return Traffic(
            lanes,
            former,
            self._spread.copy(),
            self._accounts,
            self._elsewhere,
            self._windows.copy(),
            self._quiet.copy(),
        )

    def take(self, queue_id: str, lane: str) -> None:
        """A message begins to move in a lane."""
        self._lanes.setdefault(lane, set()).add(queue_id)
        if is_account_lane(lane):
            self._accounts += 1
            return
        self._spread[queue_id] += 1
        if lane != LOCAL_LANE:
            self._elsewhere += 1

    def release(self, queue_id: str, lane: str) -> None:
        """It does no more."""
        moving = self._lanes[lane]
        moving.remove(queue_id)
        if lane in self._former:
            self._former[lane].discard(queue_id)
        if not moving:
            del self._lanes[lane]
            self._former.pop(lane, None)
        if is_account_lane(lane):
            self._accounts -= 1
            return
        self._spread[queue_id] -= 1
        if not self._spread[queue_id]:
            del self._spread[queue_id]
        if lane != LOCAL_LANE:
            self._elsewhere -= 1

    def moves(self, queue_id: str, lane: str) -> bool:
        """Whether the message moves in the lane."""
        return queue_id in self._lanes.get(lane, ())

    def moving_in(self, lane: str) -> int:
        """How many messages move in the lane."""
        return len(self._lanes.get(lane, ()))

    def may_spread(self, queue_id: str, lane: str, limits: Limits) -> bool:
        """Whether the message may move in the lane too, as many as it moves in already."""
        return is_account_lane(lane) or self._spread[queue_id] < limits.per_message

    def room(self, lane: str, limits: Limits, *, suspect: bool) -> int:
        """How many more messages may move in the lane; one alone if it is ``suspect``."""
        if lane == LOCAL_LANE:
            return limits.local - self.moving_in(lane)
        moving = self.moving_in(lane)
        if is_account_lane(lane):
            free, kept = limits.programs - self._accounts, limits.kept_for_accounts
            return min(limits.per_account - moving, _share(free, kept, moving))
        current = moving - len(self._former.get(lane, ()))
        window = 1 if suspect else self._windows.get(lane, limits.per_lane)
        share = _share(limits.remote - self._elsewhere, limits.kept_elsewhere, current)
        return min(window - current, limits.per_lane - moving, share)

    def has_room_for_accounts(self, limits: Limits) -> bool:
        """Whether more may move in some lane of an account."""
        return self._accounts < limits.programs

    def has_room_elsewhere(self, limits: Limits) -> bool:
        """Whether more may move in some lane of another host."""
        return self._elsewhere < limits.remote

    def is_left_alone(self, lane: str) -> None:
        """The lane failed: one attempt alone, later, does not wait for what moves in it now."""
        if self.moving_in(lane):
            self._former[lane] = self._lanes[lane].copy()

    def start_slowly(self, lane: str) -> None:
        """The lane works again, after one attempt alone: two, then four may move in it."""
        if len(self._windows) >= MOST_WINDOWS:
            self._windows.clear()
        self._windows[lane] = 2

    def widen(self, lane: str) -> None:
        """The lane goes on working: twice as many may move in it as before."""
        if lane in self._windows:
            self._windows[lane] *= 2
            if self._windows[lane] >= WIDEST:
                del self._windows[lane]

    def rest(self, lane: str, until: float) -> None:
        """Nothing of the lane is to be handed out until then, except what comes new."""
        self._quiet[lane] = until

    def disturb(self, lane: str) -> None:
        """Something of the lane has changed."""
        self._quiet.pop(lane, None)

    def disturb_all(self) -> None:
        """Anything may have changed."""
        self._quiet.clear()

    def rests(self, lane: str, now: float) -> bool:
        """Whether there is nothing to be looked for in the lane."""
        return now < self._quiet.get(lane, now)

    def end_of_rest(self, now: float) -> float:
        """When the first of the resting lanes is to be looked at; infinity: none."""
        return min((until for until in self._quiet.values() if until > now), default=math.inf)


def _share(free: int, kept: int, moving: int) -> int:
    """What a lane may have of the places that are ``free``.

    Those that are ``kept`` are for lanes in which nothing moves: slow ones leave them to others.
    """
    return free - kept if moving else max(free - kept, min(free, 1))

"""Kill a server at any moment under load, often; then account for every message.

A period is some kills, after which the server may come to rest: everything that it answered for
has to be there, once, whole, and nothing again that a former period has seen or that a reader has
deleted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.endurance.clients import Load, Promises
from tests.endurance.ledger import Ledger
from tests.endurance.site import Site, site
from tests.support.instance import PATIENCE, until

SENDERS = 12
READERS = 3
START = 0.5
"""Seconds in which a server that is killed as it starts, stops or reloads may get somewhere."""


@dataclass(frozen=True)
class Outcome:
    """What a campaign came to."""

    kills: Counter[str]
    acknowledged: int
    faults: list[str]
    repeated: int
    """Copies that came again after their reader had deleted them."""
    borne: Counter[str]


@dataclass
class Campaign:
    """Kills so far, by what was killed."""

    site: Site
    promises: Promises
    chance: random.Random
    life: float
    """Seconds from the first message that is taken to the end, at most."""
    pace: float
    """Seconds that each client rests between two pieces of work."""
    kills: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def period(self, kills: int) -> list[str]:
        """So many kills under load; then whatever was broken."""
        instance, promises = self.site.instance, self.promises
        promises.begin(Ledger(next(promises.tokens)))
        before = self.kills.total()
        instance.start()
        with Load(
            instance,
            promises,
            self.site.targets,
            self.site.readable,
            seed=promises.ledger.first,
            senders=SENDERS,
            readers=READERS,
            pace=self.pace,
        ):
            while self.kills.total() - before < kills:
                seen = promises.total
                until(lambda seen=seen: promises.total > seen, "a message is taken")
                time.sleep(self.chance.uniform(0, self.life))
                self._end()
        try:
            self.site.settle(promises)
        except TimeoutError as error:
            return [str(error)]
        instance.stop()
        self.site.harvest(promises)
        verdict = promises.ledger.judge(instance.log())
        self.repeated += verdict.repeated
        faults = [*verdict.faults, *(f"said: {each}" for each in promises.complaints)]
        promises.complaints.clear()
        return faults

    def _end(self) -> None:
        ways: dict[str, Callable[[], None]] = {
            "all": self._kill_all,
            "one of its processes": self._kill_one,
            "the supervisor": self._kill_supervisor,
            "all, as it started": self._kill_at_start,
            "all, as it stopped": partial(self._kill_after, signal.SIGTERM),
            "all, as it reloaded": partial(self._kill_after, signal.SIGHUP),
        }
        (way,) = self.chance.choices(list(ways), weights=(5, 2, 1, 2, 1, 1))
        ways[way]()
        self.kills[way] += 1

    def _kill_all(self) -> None:
        self.site.instance.kill()
        self.site.instance.start()

    def _kill_one(self) -> None:
        """Not the supervisor, which has to replace it."""
        supervisor = self._supervisor()
        others = [pid for pid in processes_of(supervisor) if pid != supervisor]
        if others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(others), signal.SIGKILL)

    def _kill_supervisor(self) -> None:
        """All others have to end by themselves."""
        supervisor = self._supervisor()
        process = self.site.instance.process
        assert process is not None
        process.kill()
        process.wait(PATIENCE)
        until(lambda: not processes_of(supervisor), "the processes of a lost supervisor end")
        self.site.instance.start()

    def _kill_at_start(self) -> None:
        self.site.instance.kill()
        self.site.instance.spawn()
        time.sleep(self.chance.uniform(0, START))
        self._kill_all()

    def _kill_after(self, number: int) -> None:
        os.kill(self._supervisor(), number)
        time.sleep(self.chance.uniform(0, START))
        self._kill_all()

    def _supervisor(self) -> int:
        assert self.site.instance.process is not None
        return self.site.instance.process.pid


def processes_of(group: int) -> list[int]:
    """The processes of a process group that live."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append(pid)
    return found


def campaign(
    directory: Path,
    *,
    kills: int,
    period: int,
    life: float,
    pace: float = 0.0,
    seed: int,
    tell: Callable[[str], None],
) -> Outcome:
    """``kills`` in periods of ``period``; ends with the first one in which a promise was broken.

    The instance stays in ``directory``.
    """
    promises = Promises(Ledger(0), itertools.count(1))
    began = time.monotonic()
    faults: list[str] = []
    with site(directory, promises, each=40, workers=2) as here:
        work = Campaign(here, promises, random.Random(seed), life, pace)
        while work.kills.total() < kills and not faults:
            faults = work.period(min(period, kills - work.kills.total()))
            if not faults:
                here.instance.log_file.unlink()
            tell(
                f"{time.monotonic() - began:6.0f} s: {work.kills.total()} kills,"
                f" {promises.total} messages acknowledged,"
                f" {len(faults)} faults, {work.repeated} again to readers"
            )
    return Outcome(work.kills, promises.total, faults, work.repeated, promises.borne)

"""Everything that a mail host meets, for hours: its memory, its descriptors, its files do not grow.

One life of a server without a reload, which would replace its workers. Mail comes and is fetched at
a pace that leaves the machine time, so that what the processes hold between two messages is what is
seen.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tests.endurance.clients import Load, Promises
from tests.endurance.kills import processes_of
from tests.endurance.ledger import Ledger
from tests.endurance.site import Site, site
from tests.endurance.strangers import Strangers

LOOKS = 15
"""How often one sample looks: of each figure the median counts, as sessions come and go."""
WARM = 0.25
"""The part of all samples that is not compared: caches fill meanwhile."""
GROWTH = 1.05
"""How many times a figure may be at the end what it was when the server was warm."""
SLACK = {"descriptors": 6, "threads": 4, "processes": 2, "kib": 4096, "stored_kib": 16_384}
"""And so much is nothing: what one session more has, a page of a cache, journals of 4 MiB that
SQLite keeps for each queue."""
MOST_LOG = 200_000_000
"""Octets of the log after which it is emptied."""


@dataclass(frozen=True)
class Sample:
    """What all processes of the server have together, and what lies in its directory."""

    descriptors: int
    threads: int
    processes: int
    kib: int
    """Of memory; what processes share counts once (Pss)."""
    stored_kib: int
    """On disk: queue, databases, what it keeps for itself. Neither mail nor log."""


@dataclass(frozen=True)
class Course:
    """What a run came to."""

    samples: list[Sample]
    acknowledged: int
    complaints: list[str]

    def faults(self) -> list[str]:
        """What grew, and what clients heard."""
        return [*grown(self.samples), *self.complaints]


def grown(samples: Sequence[Sample]) -> list[str]:
    """The figures that are higher in the last third of the samples than in the first warm ones."""
    warm = samples[int(len(samples) * WARM) :]
    third = max(1, len(warm) // 3)
    found = []
    for each in fields(Sample):
        values = [getattr(sample, each.name) for sample in warm]
        before, after = statistics.median(values[:third]), statistics.median(values[-third:])
        if after > before * GROWTH and after > before + SLACK[each.name]:
            found.append(f"{each.name} grew from {before:.0f} to {after:.0f}")
    return found


def measure(supervisor: int, directory: Path, looks: int) -> Sample:
    """Median of so many looks at a server that works."""
    seen = []
    for _ in range(looks):
        seen.append(astuple(_look(supervisor, directory)))
        time.sleep(0.2)
    return Sample(*(int(statistics.median(column)) for column in zip(*seen, strict=True)))


def _look(supervisor: int, directory: Path) -> Sample:
    descriptors = threads = processes = kib = 0
    for pid in processes_of(supervisor):
        with contextlib.suppress(OSError):  # it may end in the midst
            own = Path(f"/proc/{pid}")
            descriptors += len(os.listdir(own / "fd"))
            threads += len(os.listdir(own / "task"))
            kib += _pss(own)
            processes += 1
    return Sample(descriptors, threads, processes, kib, _stored(directory))


def _pss(process: Path) -> int:
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise OSError("no Pss")


def _stored(directory: Path) -> int:
    octets = 0
    for place, names, files in os.walk(directory):
        names[:] = [name for name in names if not name.startswith("homes-")]
        for name in files:
            if not name.endswith(".log"):
                with contextlib.suppress(FileNotFoundError):
                    octets += os.lstat(os.path.join(place, name)).st_size
    return octets // 1024


def run(
    directory: Path,
    *,
    seconds: float,
    interval: float,
    pace: float,
    looks: int = LOOKS,
    seed: int,
    tell: Callable[[str], None],
) -> Course:
    """Work for ``seconds``, with a sample each ``interval``."""
    promises = Promises(Ledger(0), itertools.count(1))
    samples: list[Sample] = []
    with site(directory, promises, each=40, workers=2) as here:
        here.instance.start()
        process = here.instance.process
        assert process is not None
        began = time.monotonic()
        with _load(here, promises, pace, seed), _visits(here, promises, pace, seed):
            while (passed := time.monotonic() - began) < seconds:
                time.sleep(interval)
                samples.append(measure(process.pid, directory, looks))
                tell(f"{passed:6.0f} s: {promises.total} messages, {samples[-1]}")
                _forget(here, promises)
        here.instance.stop()
    return Course(samples, promises.total, promises.complaints)


def _load(here: Site, promises: Promises, pace: float, seed: int) -> Load:
    """Readers of all mailboxes, or these would grow."""
    return Load(
        here.instance,
        promises,
        here.targets,
        list(here.homes),
        seed=seed,
        senders=4,
        readers=4,
        pace=pace,
    )


@contextlib.contextmanager
def _visits(here: Site, promises: Promises, pace: float, seed: int) -> Iterator[None]:
    strangers, stop, chance = Strangers(here), threading.Event(), random.Random(seed)

    def go_on() -> None:
        while not stop.wait(pace):
            try:
                strangers.come(chance)
            except Exception as error:  # noqa: BLE001 - whatever it was, it is told of
                promises.complaints.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _forget(here: Site, promises: Promises) -> None:
    """What the clients remember; here nobody reckons up."""
    with promises.lock:
        promises.begin(Ledger(0))
    if here.instance.log_file.stat().st_size > MOST_LOG:
        os.truncate(here.instance.log_file, 0)

"""What it costs that mail is written and read by helpers, and not by the workers themselves.

Two instances of root's, alike but for whose the accounts are: the workers' own user's, or
another's. They take turns, so that whatever else the machine does happens to both.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from bench.instance import DOMAIN, MAILDROP, populate, read_all
from bench.rounds import ROUNDS, show
from tests.support.instance import Instance, new_instance

MESSAGES = 1000
"""In each round, each to a mailbox of its own."""
SESSIONS = 200
STRANGER = 12345
"""A uid that is not the workers'."""


def run(workers: int) -> None:
    """Measure both, in turns."""
    smtp_source = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin")
    if smtp_source is None or os.geteuid() != 0:
        sys.exit("bench: this needs root, and smtp-source of Debian's postfix")
    with _instance(workers, 0) as own, _instance(workers, STRANGER) as helped:
        both = {"by the workers": own, "by helpers": helped}
        source = [smtp_source, "-N", "-f", "sender@example.net", "-t", f"user@{DOMAIN}"]
        for instance in both.values():
            _send(source, ["-s", "20", "-m", str(MESSAGES), "-l", "100"], instance)
            _fill(instance)
        for sessions in (1, 10, 50):
            count = MESSAGES if sessions > 1 else MESSAGES // 4
            options = ["-s", str(sessions), "-m", str(count), "-l", "4096"]
            label = f"4 KiB into mailboxes, {sessions} sessions"
            _take_turns(label, "messages", count, both, partial(_send, source, options))
        for parallel in (1, 10):
            label = f"POP3 login, STAT, LIST, UIDL, QUIT, {parallel} in parallel"
            _take_turns(label, "sessions", SESSIONS, both, partial(_read, parallel))


@contextlib.contextmanager
def _instance(workers: int, uid: int) -> Iterator[Instance]:
    environ = {"RESTANTE_SERVER__WORKERS": str(workers)}
    with tempfile.TemporaryDirectory(prefix="restante-bench-") as scratch:
        os.chmod(scratch, 0o755)
        directory = Path(scratch) / "instance"
        with new_instance(directory, environ=environ, domains=(DOMAIN,)) as instance:
            populate(directory, uid, uid)
            if uid:
                os.chown(directory / "mail", uid, uid)
            instance.start()
            yield instance


def _send(source: list[str], options: list[str], instance: Instance) -> None:
    subprocess.run([*source, *options, f"127.0.0.1:{instance.smtp_port}"], check=True)


def _fill(instance: Instance) -> None:
    for number in range(1, 11):
        with instance.smtp() as client:
            for _ in range(MAILDROP):
                to = f"{number}user@{DOMAIN}"
                client.sendmail("sender@example.net", to, "Subject: x\r\n\r\nx\r\n")


def _read(parallel: int, instance: Instance) -> None:
    with ProcessPoolExecutor(parallel) as pool:
        read_all(pool, parallel, instance.pop3_port, SESSIONS)


def _take_turns(
    label: str,
    unit: str,
    count: int,
    both: dict[str, Instance],
    work: Callable[[Instance], None],
) -> None:
    rates: dict[str, list[float]] = {who: [] for who in both}
    costs: dict[str, list[float]] = {who: [] for who in both}
    for _ in range(ROUNDS):
        for who, instance in both.items():
            began, used = time.monotonic(), _processor_time(instance)
            work(instance)
            rates[who].append(count / (time.monotonic() - began))
            costs[who].append((_processor_time(instance) - used) / count)
    for who in both:
        show(f"{label}, {who}", unit, rates[who])
        print(f"    {min(costs[who]) * 1e6:.0f} µs of processor time each", flush=True)


def _processor_time(instance: Instance) -> float:
    """Seconds that all processes of the instance have used."""
    assert instance.process is not None
    ticks, missing = 0, [instance.process.pid]
    while missing:
        pid = missing.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            missing += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")

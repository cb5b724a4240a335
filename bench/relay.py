"""Messages a second through a whole instance to another host: accepted, queued, sent, forgotten.

smtp-source sends, and smtp-sink takes (both of Debian's postfix). A round is over when the
queue is empty again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.rounds import measure
from tests.support.instance import Instance, new_instance, until
from tests.support.serving import LOOPBACK, free_port

MESSAGES = 2000
"""In each round, of 4 KiB."""
FINISHED = b"event=message_finished"


def run(workers: int) -> None:
    """Measure an instance with so many workers."""
    source, sink = _program("smtp-source"), _program("smtp-sink")
    with tempfile.TemporaryDirectory(prefix="restante-bench-") as scratch, _sink(sink) as port:
        os.chmod(scratch, 0o755)
        for connections in (1, 50):
            directory = Path(scratch) / str(connections)
            settings = _settings(workers, port, connections)
            with new_instance(directory, environ=settings) as instance:
                instance.start()
                instance.smtp().close()
                label = f"4 KiB to another host, {connections} connections"
                work = partial(_round, instance, source, connections)
                measure(label, "messages", MESSAGES, work)


def _settings(workers: int, port: int, connections: int) -> dict[str, str]:
    return {
        "RESTANTE_SERVER__WORKERS": str(workers),
        "RESTANTE_ROUTING__SMTPROUTES": json.dumps({"": f"[{LOOPBACK}]:{port}"}),
        "RESTANTE_RECEIVER__RELAY_NETWORKS": json.dumps(["127.0.0.0/8"]),
        "RESTANTE_RELAY__CONCURRENCY_PER_DESTINATION": str(max(1, connections // workers)),
    }


def _round(instance: Instance, source: str, sessions: int) -> None:
    """As many sessions bring messages as connections take them away."""
    finished = _Finished(instance.log_file)
    command = [source, "-d", "-s", str(sessions), "-m", str(MESSAGES), "-l", "4096"]
    command += ["-f", "sender@example.com", "-t", "user@example.net"]
    subprocess.run([*command, f"{LOOPBACK}:{instance.smtp_port}"], check=True)
    until(lambda: finished.count() >= MESSAGES, "all are sent")


class _Finished:
    """Counts what is gone from now on; each line of the log is read once."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._position = log.stat().st_size
        self._count = 0

    def count(self) -> int:
        """How many messages have left the queue so far."""
        with self._log.open("rb") as lines:
            lines.seek(self._position)
            whole, end, _ = lines.read().rpartition(b"\n")
        self._position += len(whole) + len(end)
        self._count += whole.count(FINISHED)
        return self._count


@contextmanager
def _sink(program: str) -> Iterator[int]:
    """A host that takes everything; its port."""
    port = free_port()
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    process = subprocess.Popen([program, *user, f"{LOOPBACK}:{port}", "1000"])
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        sys.exit(f"bench: {name} is missing; install Debian's postfix")
    return path

"""Messages and sessions a second through a whole instance.

smtp-source (Debian's postfix) sends; a process of our own reads by POP3.
"""

from __future__ import annotations

import os
import poplib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from bench.rounds import measure
from tests.support.instance import Instance, new_instance

MESSAGES = 2000
"""In each round, each to a mailbox of its own: smtp-source counts them up."""
SESSIONS = 400
MAILDROP = 100
"""Messages in the maildrop that the POP3 sessions open."""
DOMAIN = "bench.test"


def run(workers: int) -> None:
    """Measure an instance with so many workers."""
    smtp_source = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin")
    if smtp_source is None:
        sys.exit("bench: smtp-source is missing; install Debian's postfix")
    environ = {"RESTANTE_SERVER__WORKERS": str(workers)}
    with tempfile.TemporaryDirectory(prefix="restante-bench-") as scratch:
        os.chmod(scratch, 0o755)
        directory = Path(scratch) / "instance"
        with new_instance(directory, environ=environ, domains=(DOMAIN,)) as instance:
            populate(directory)
            began = time.monotonic()
            instance.start()
            instance.smtp().close()
            print(f"start-up to the first greeting: {time.monotonic() - began:.2f} s")
            bench_smtp(instance, smtp_source)
            bench_pop3(instance)


def populate(directory: Path, uid: int = 0, gid: int = 0) -> None:
    """Accounts by plain SQL; smtp-source prepends a number to its recipient.

    They belong to ``uid``, or else to whom new accounts belong.
    """
    owner = os.stat(directory / "mail")
    if not uid:
        uid, gid = (owner.st_uid, owner.st_gid) if owner.st_uid else (65534, 65534)
    names = [f"{number}user" for number in range(1, MESSAGES + 1)]
    with sqlite3.connect(directory / "restante.db") as rows:
        rows.executemany(
            "INSERT INTO mailbox (username, uid, gid, home, password, password_type)"
            " VALUES (?, ?, ?, ?, '{PLAIN}secret', 'Password')",
            [(f"{each}@{DOMAIN}", uid, gid, f"{directory}/mail/{DOMAIN}/{each}") for each in names],
        )
        rows.executemany(
            'INSERT INTO "virtual" (username, virtual_username, virtual_host) VALUES (?, ?, ?)',
            [(f"{each}@{DOMAIN}", each, DOMAIN) for each in names],
        )
    rows.close()


def bench_smtp(instance: Instance, smtp_source: str) -> None:
    host = f"127.0.0.1:{instance.smtp_port}"
    source = [smtp_source, "-N", "-f", "sender@example.net", "-t", f"user@{DOMAIN}"]
    source += ["-m", str(MESSAGES)]
    send = partial(subprocess.run, check=True)
    send([*source, "-s", "20", "-l", "100", host])  # makes the Maildirs
    for size in (4096, 65536):
        for sessions in (1, 10, 50):
            label = f"{size // 1024} KiB into mailboxes, {sessions} sessions"
            command = [*source, "-s", str(sessions), "-l", str(size), host]
            measure(label, "messages", MESSAGES, partial(send, command))
    command = [*source, "-d", "-s", "50", "-l", "4096", host]
    measure("4 KiB, 50 sessions, connections kept", "messages", MESSAGES, partial(send, command))


def bench_pop3(instance: Instance) -> None:
    for number in range(1, 11):
        with instance.smtp() as client:
            for _ in range(MAILDROP):
                to = f"{number}user@{DOMAIN}"
                client.sendmail("sender@example.net", to, "Subject: x\r\n\r\n" + "x\r\n" * 1000)
    for parallel in (1, 10):
        with ProcessPoolExecutor(parallel) as pool:
            label = f"POP3 login, STAT, LIST, UIDL, QUIT, {parallel} in parallel"
            work = partial(read_all, pool, parallel, instance.pop3_port)
            measure(label, "sessions", SESSIONS, work)


def read_all(pool: ProcessPoolExecutor, parallel: int, port: int, sessions: int = SESSIONS) -> None:
    """All sessions of a round, every process with a user of its own."""
    jobs = [
        pool.submit(read, port, f"{number}user@{DOMAIN}", sessions // parallel)
        for number in range(1, parallel + 1)
    ]
    for job in jobs:
        job.result()


def read(port: int, user: str, sessions: int) -> None:
    """Sessions one after another, as a client that looks for new mail."""
    for _ in range(sessions):
        session = poplib.POP3("127.0.0.1", port)
        session.user(user)
        session.pass_("secret")
        session.stat()
        session.list()
        session.uidl()
        session.quit()

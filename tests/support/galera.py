"""A MariaDB Galera cluster: one node a machine, to be killed, cut off and brought back."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.support.instance import PATIENCE, until
from tests.support.machines import Machine
from tests.support.mariadb import PASSWORD, SMALL, USER, MariaDB, install

PROVIDER = "/usr/lib/galera/libgalera_smm.so"
PORT = 3306
DATABASE = "mail"
_POSITION = re.compile(r"Recovered position:\s*(\S+)")
_PROVIDER_OPTIONS = (
    # A machine that says nothing is given up after some seconds rather than fifteen.
    "evs.keepalive_period=PT0.5S",
    "evs.suspect_timeout=PT3S",
    "evs.inactive_timeout=PT6S",
    "evs.install_timeout=PT6S",
    "gcache.size=16M",
)


class GaleraMissingError(RuntimeError):
    """Galera is not installed."""


@dataclass
class GaleraNode(MariaDB):
    """One mariadbd and its machine."""

    machine: Machine = field(default_factory=lambda: Machine("", 0))

    @property
    def mail_url(self) -> str:
        """The URL of its database, for the machine itself and for all others."""
        return mail_url(self.machine.back)

    def found(self) -> None:
        """Start as the first node of a new cluster."""
        self._launch("--wsrep-new-cluster")
        until(self.is_synced, f"{self.machine.back} is a cluster")

    def join(self) -> None:
        """Start, and be one of the cluster's again; after a crash it gets what it has missed."""
        self._launch(*self._position())
        until(self.is_synced, f"{self.machine.back} is one of the cluster")

    def kill(self) -> None:
        """SIGKILL for the server and what it has started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)
            self.process = None

    def is_synced(self) -> bool:
        """Whether it answers questions and has all that the others have."""
        assert self.process is not None
        assert self.process.poll() is None, self._log_tail()
        return self.status("wsrep_local_state_comment") == "Synced" and self.is_primary()

    def is_primary(self) -> bool:
        """Whether it is where most nodes are."""
        return self.status("wsrep_cluster_status") == "Primary"

    def status(self, name: str) -> str:
        """A status variable; empty while it does not answer."""
        try:
            return self.sql(f"SHOW GLOBAL STATUS LIKE '{name}'").strip().partition("\t")[2]
        except subprocess.CalledProcessError:
            return ""

    def set_provider_option(self, name: str, value: int, *, seconds: bool = False) -> None:
        """One of Galera's own, which may be a time; MariaDB 11.8 has variables for them."""
        variable = f"wsrep_provider_{name.replace('.', '_')}"
        if self.sql(f"SHOW GLOBAL VARIABLES LIKE '{variable}'"):
            self.sql(f"SET GLOBAL {variable} = {value}")
        else:
            written = f"PT{value}S" if seconds else str(value)
            self.sql(f"SET GLOBAL wsrep_provider_options = '{name}={written}'")

    def _launch(self, *option: str) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command(), *option],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._wait_until_up(self.process)

    def _position(self) -> list[str]:
        """How far it had come if it was one of the cluster before, as galera_recovery finds it."""
        if not (self.directory / "data" / "ibdata1").exists():
            return []
        done = subprocess.run(
            [*self._command(), "--wsrep-recover"], capture_output=True, text=True, check=True
        )
        found = _POSITION.findall(done.stderr)
        assert found, done.stderr
        return [f"--wsrep-start-position={found[-1]}"]


def mail_url(*hosts: str) -> str:
    """The URL of the database on any of these hosts."""
    login = f"{USER}:{quote(PASSWORD, safe='')}"
    return f"mysql://{login}@{','.join(f'{host}:{PORT}' for host in hosts)}/{DATABASE}"


def _options(machine: Machine, members: Sequence[Machine]) -> tuple[str, ...]:
    return (
        *SMALL,
        "--bind-address=0.0.0.0",
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
        "--innodb-flush-log-at-trx-commit=0",
        "--wsrep-on=ON",
        f"--wsrep-provider={PROVIDER}",
        f"--wsrep-provider-options={';'.join(_PROVIDER_OPTIONS)}",
        "--wsrep-cluster-name=restante",
        f"--wsrep-cluster-address=gcomm://{','.join(member.back for member in members)}",
        f"--wsrep-node-address={machine.back}",
        f"--wsrep-node-name={machine.back}",
        "--wsrep-sst-method=rsync",
    )


@contextmanager
def galera(members: Sequence[Machine]) -> Iterator[list[GaleraNode]]:
    """A cluster with an empty database; raises GaleraMissingError."""
    if not os.path.exists(PROVIDER):
        raise GaleraMissingError("Galera is not installed: apt install mariadb-server galera-4")
    with contextlib.ExitStack() as stack:
        nodes = []
        for machine in members:
            node = GaleraNode(
                _directory(),
                PORT,
                options=_options(machine, members),
                within=machine.entrance,
                machine=machine,
            )
            stack.callback(node.remove)
            nodes.append(node)
        first, *others = nodes
        install(first)
        first.found()
        first.sql(
            f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';"
            f"GRANT ALL ON *.* TO '{USER}'@'%';"
            f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4;"
        )
        for node in others:
            node.join()
        yield nodes


def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="rgal-", dir="/tmp"))
    for path in (directory, directory / "tmp", directory / "data"):
        path.mkdir(exist_ok=True)
        shutil.chown(path, "mysql", "mysql")
    directory.chmod(0o711)
    return directory

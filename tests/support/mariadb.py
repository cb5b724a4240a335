"""A private MariaDB server on a unix socket and a loopback port, to be stopped and frozen.

Where the environment names the server of a MySQL (MYSQLD), that stands in MariaDB's place.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from restante.tls.certificate import PairFiles
from tests.support.ports import free_port

MYSQLD = "RESTANTE_TEST_MYSQLD"
"""The environment variable with the path of a ``mysqld`` (scripts/mysqld, make test-mysql)."""
START_SECONDS = 60.0
"""How long the server may take to answer after it was started."""
STOP_SECONDS = 30.0
"""How long it may take to end after SIGTERM."""
USER = "restante"
PASSWORD = "p@ss/w:örd %"
"""Has every character that a URL must encode, and one outside ASCII."""
SMALL = (
    "--performance-schema=off",
    "--innodb-buffer-pool-size=16M",
    "--loose-innodb-log-file-size=8M",
    "--loose-innodb-redo-log-capacity=8M",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-doublewrite=0",
    "--innodb-use-native-aio=0",
    "--key-buffer-size=1M",
    "--loose-aria-pagecache-buffer-size=1M",
    "--max-connections=60",
)
"""Options of a server that starts quickly and takes little, and would lose data in a power cut.

What only one of MariaDB and MySQL knows is "loose": the other passes over it.
"""

_SQL_PASSWORD = PASSWORD.replace("'", "''")


class MariaDBMissingError(RuntimeError):
    """The server is not installed."""


@dataclass
class MariaDB:
    """One server process; ``start`` after ``stop`` or ``kill`` uses the same data and port."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    options: Sequence[str] = SMALL
    within: Sequence[str] = ()
    """A command that runs the server, given the server's own."""
    _databases: int = field(default=0)

    @property
    def socket(self) -> Path:
        """The unix socket."""
        return self.directory / "s"

    def url(self, database: str, *, tcp: bool = False, password: str = PASSWORD) -> str:
        """The URL of one of its databases, by the unix socket or by TCP."""
        login = f"{USER}:{quote(password, safe='')}"
        if tcp:
            return f"mysql://{login}@127.0.0.1:{self.port}/{database}"
        return f"mysql://{login}@/{database}?unix_socket={quote(str(self.socket), safe='')}"

    def url_of(self, user: str, rights: str, database: str) -> str:
        """The URL of a database for a new user with some rights to it, by the unix socket."""
        self.sql(
            f"DROP USER IF EXISTS {user}@localhost; "
            f"CREATE USER {user}@localhost IDENTIFIED BY 'u'; "
            f"GRANT {rights} TO {user}@localhost"
        )
        return f"mysql://{user}:u@/{database}?unix_socket={quote(str(self.socket), safe='')}"

    def new_database(self) -> str:
        """The name of a fresh, empty database."""
        self._databases += 1
        name = f"restante_{self._databases}"
        self.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return name

    def sql(self, statements: str, database: str = "") -> str:
        """What the command-line client prints for ``statements``, as an administrator by hand."""
        command = [*self.client, *([database] if database else [])]
        return subprocess.run(
            command, input=statements.encode(), check=True, stdout=subprocess.PIPE
        ).stdout.decode()

    @property
    def client(self) -> list[str]:
        """The command-line client, as an administrator."""
        name = shutil.which("mariadb") or "mysql"
        options = ["--no-defaults", "-uroot", f"--socket={self.socket}", "-N", "-B"]
        if name != "mysql":
            options.append("--skip-ssl")  # from 11.4 on it would demand TLS, on a socket as well
        return [name, *options, "--default-character-set=utf8mb4"]

    def start(self) -> None:
        """Start the server and wait until it answers."""
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self._wait_until_up(self.process)

    def stop(self) -> None:
        """Shut the server down properly."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """The server dies, as in a crash."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """The server stops answering; connections to it stay open, new ones hang."""
        self._signal(signal.SIGSTOP)
        assert self.process is not None
        # A thread that runs when the signal comes may still answer; wait until all have stopped.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """The server goes on."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """End the server and delete all it had."""
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "the server is not running"
        self.process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None, "the server is not running"
        self.process.send_signal(number)
        self.process.wait(STOP_SECONDS)
        self.process = None

    def _command(self) -> list[str]:
        data = self.directory / "data"
        return [
            *self.within,
            _server(),
            "--no-defaults",
            *_run_as(),
            f"--datadir={data}",
            f"--tmpdir={self.directory / 'tmp'}",
            f"--secure-file-priv={self.directory / 'tmp'}",
            f"--socket={self.socket}",
            f"--pid-file={self.directory / 'pid'}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-log-bin",
            "--skip-name-resolve",
            "--loose-mysqlx=off",
            *self.options,
        ]

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended: {self._log_tail()}")
            if _answers(self.socket):
                return
            time.sleep(0.02)
        raise RuntimeError(f"the server did not answer in {START_SECONDS} s: {self._log_tail()}")

    def _log_tail(self) -> str:
        return (self.directory / "log").read_text("utf-8", "replace")[-2000:]


def start_mariadb(
    parent: str = "/tmp", options: Sequence[str] = SMALL, within: Sequence[str] = ()
) -> MariaDB:
    """A new server with an empty data directory below ``parent``; raises MariaDBMissingError."""
    _server()
    server = MariaDB(_directory(parent), free_port(), options=options, within=within)
    try:
        install(server)
        server.start()
        server.sql(
            f"CREATE USER '{USER}'@'localhost' IDENTIFIED BY '{_SQL_PASSWORD}';"
            f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{_SQL_PASSWORD}';"
            f"GRANT ALL ON *.* TO '{USER}'@'localhost';"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';"
        )
    except BaseException:
        server.remove()
        raise
    return server


def with_tls(files: PairFiles, authorities: str) -> tuple[str, ...]:
    """Options of a server that has a certificate, and asks clients for one by ``authorities``."""
    if os.geteuid() == 0:
        for path in (files.certificate, files.key, authorities):
            shutil.chown(path, "mysql")
    return (
        *SMALL,
        f"--ssl-ca={authorities}",
        f"--ssl-cert={files.certificate}",
        f"--ssl-key={files.key}",
    )


def without_tls() -> tuple[str, ...]:
    """Options of a server that has none, though MySQL makes a certificate by itself."""
    return (*SMALL, "--tls-version=" if _mysqld() else "--skip-ssl")


def install(server: MariaDB) -> None:
    """Fill its data directory with what every server has."""
    data = str(server.directory / "data")
    subprocess.run(["cp", "-aT", "--reflink=auto", _installed(), data], check=True)


@functools.cache
def _installed() -> Path:
    """A new data directory to copy, made once in this process, which takes seconds."""
    directory = _directory("/tmp")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    data = directory / "data"
    options = [*_run_as(), f"--datadir={data}", f"--tmpdir={directory / 'tmp'}", *SMALL]
    if mysqld := _mysqld():
        command = [mysqld, "--no-defaults", *options, "--initialize-insecure"]
    else:
        command = [_program("mariadb-install-db"), "--no-defaults", *options]
        command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        command += ["--skip-name-resolve"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr).decode()}")
    return data


def _directory(parent: str) -> Path:
    """Of a server's own, which may be another user's."""
    directory = Path(tempfile.mkdtemp(prefix="rdb-", dir=parent))
    # A folder for temporary tables of its own: a server removes those of others when it starts.
    (directory / "tmp").mkdir()
    if os.geteuid() == 0:
        for path in (directory, directory / "tmp"):
            shutil.chown(path, "mysql", "mysql")
        directory.chmod(0o711)  # the socket is for others as well, as in /run/mysqld
    return directory


def _mysqld() -> str | None:
    return os.environ.get(MYSQLD)


def _server() -> str:
    return _mysqld() or _program("mariadbd")


def _run_as() -> list[str]:
    return ["--user=mysql"] if os.geteuid() == 0 else []


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise MariaDBMissingError(
            f"{name} is not installed, and these tests need it: apt install mariadb-server"
        )
    return path


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            return bool(probe.recv(1))
        except OSError:
            return False

"""A running server seen from outside: its settings file, its processes, and raw connections."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from restante.config.load import FILE_NAME
from restante.config.template import to_toml
from restante.net.shares import COMPANY
from tests.support.instance import PATIENCE, Instance, new_instance, until

LOOPBACK = "127.0.0.1"
IAIN = "iain@example.com"
ANN = "ann@example.com"
NOBODY = 65534
_WORKER = re.compile(r"event=worker_started slot=\d+ pid=(\d+)")
_RELOADED = re.compile("event=(server_reloaded|reload_refused)")
HESITANT = """
import os, signal, sys, time
from restante.cli import main
from restante.service import supervisor

real = supervisor.run_worker

def run_worker(settings, place, sockets):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    wait, fail = (os.path.join(settings.directory, name) for name in ("wait", "fail"))
    if place.number and os.path.exists(fail):
        os.write(place.ready_fd, b"it fails")
        os._exit(78)
    while os.path.exists(wait):
        open(wait + "s", "w").close()
        time.sleep(0.01)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    return real(settings, place, sockets)

supervisor.run_worker = run_worker
del sys.argv[1:-3]
main()
"""
"""The command ``--dir DIR serve``, whose workers hang in their start while the instance's directory
has a file ``wait``; SIGTERM is not heard either, and ``waits`` tells of it. All but the first
cannot serve while it has a file ``fail``."""
SAMPLE = b"Subject: hello\r\n\r\nhello\r\n"

Sections = Mapping[str, Mapping[str, object]]


def configure(instance: Instance, sections: Sections) -> None:
    """Write restante.toml anew: what every instance of these tests needs, and ``sections``."""
    settings: dict[str, dict[str, object]] = {
        "server": {"me": "mx.example.com", "drain_timeout": 20},
        "smtp": {"listen": ["127.0.0.1:0"]},
        "pop3": {"listen": ["127.0.0.1:0"]},
    }
    for section, values in sections.items():
        settings.setdefault(section, {}).update(values)
    lines = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {to_toml(value)}" for key, value in values.items()]
    (instance.directory / FILE_NAME).write_text("\n".join(lines) + "\n")


def hang_up(instance: Instance) -> None:
    """SIGHUP."""
    assert instance.process is not None
    instance.process.send_signal(signal.SIGHUP)


def reload(instance: Instance) -> str:
    """SIGHUP, and wait for its outcome: the line of ``server_reloaded`` or ``reload_refused``."""
    seen = len(instance.log())

    def outcome() -> str:
        said = instance.log()[seen:].splitlines()
        return next((line for line in said if _RELOADED.search(line)), "")

    hang_up(instance)
    until(outcome, "reloaded or refused")
    return outcome()


def workers(instance: Instance, count: int) -> set[int]:
    """The process ids of the workers, when there are ``count`` of them."""
    until(lambda: len(_workers(instance)) == count, f"{count} workers")
    return _workers(instance)


def _workers(instance: Instance) -> set[int]:
    """Those of the server's children that the log calls workers."""
    return children(instance) & set(map(int, _WORKER.findall(instance.log())))


def children(instance: Instance) -> set[int]:
    """The processes that the supervisor has started, and that are not yet reaped."""
    assert instance.process is not None
    pid = instance.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def resident(pid: int) -> int:
    """Octets of memory that a process has."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not.

    Its first thread may have ended before the others, who have its files until they end too.
    """
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return is_alive(pid)  # a thread ended meanwhile, or all of them
    return any(stat.rpartition(")")[2].split()[0] != "Z" for stat in stats)


@contextmanager
def taken_port() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        yield int(other.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError:
            return False
    return True


class Wire:
    """A client's end of a connection."""

    def __init__(self, port: int, source: str = LOOPBACK) -> None:
        """``source``: the client's own address."""
        self.socket = socket.create_connection((LOOPBACK, port), PATIENCE, (source, 0))
        self._lines = self.socket.makefile("rb")

    def start_tls(
        self, trust: ssl.SSLContext, host: str, session: ssl.SSLSession | None = None
    ) -> ssl.SSLSocket:
        """Shake hands with ``host``; raises ssl.SSLError. What was not read by then is lost.

        ``session`` is resumed, if the server is willing.
        """
        self._lines.close()
        secured = trust.wrap_socket(self.socket, server_hostname=host, session=session)
        self.socket, self._lines = secured, secured.makefile("rb")
        return secured

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, octets: bytes) -> None:
        """Send all of ``octets``."""
        self.socket.sendall(octets)

    def line(self) -> str:
        """The next line without its CRLF; empty at the end of the stream."""
        return self._lines.readline().decode().removesuffix("\r\n")

    def reply(self) -> str:
        """The next SMTP reply, its lines joined."""
        lines = [self.line()]
        while lines[-1][3:4] == "-":
            lines.append(self.line())
        return "\n".join(lines)

    def ask(self, command: str) -> str:
        """Send a command; its reply."""
        self.send(command.encode() + b"\r\n")
        return self.reply()

    def rest(self) -> bytes:
        """All that comes until the server closes the stream."""
        octets = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := self._lines.read1(65536):
                octets += piece
        return octets

    def at_end(self) -> bool:
        """Whether the server has closed the stream; waits for it."""
        try:
            return self._lines.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Drop the connection."""
        self._lines.close()
        self.socket.close()


def smtp(port: int) -> Wire:
    """A session after EHLO."""
    wire = Wire(port)
    assert wire.reply().startswith("220 ")
    assert wire.ask("EHLO client.example").startswith("250")
    return wire


@contextmanager
def one_place_each(instance: Instance, workers: int) -> Iterator[None]:
    """SMTP sessions that come at a time meanwhile have a worker each; one alone has the first.

    All workers but the last have room for one more only. No sessions may be open before.
    """

    def closed() -> int:
        return instance.log().count("event=session_closed")

    opened = instance.log().count("event=session_opened")
    until(lambda: closed() == opened, "no session is open")
    with contextlib.ExitStack() as company:
        with contextlib.ExitStack() as places:
            for _ in range(workers - 1):
                places.enter_context(smtp(instance.smtp_port))
                for _ in range(COMPANY - 1):
                    company.enter_context(smtp(instance.smtp_port))
        until(lambda: closed() == opened + workers - 1, "the places are free")
        yield


def begin_data(wire: Wire, recipient: str) -> None:
    """A transaction up to the 354."""
    assert wire.ask("MAIL FROM:<me@example.net>").startswith("250 ")
    assert wire.ask(f"RCPT TO:<{recipient}>").startswith("250 ")
    assert wire.ask("DATA").startswith("354 ")


def deliver(port: int, recipient: str, content: bytes = SAMPLE) -> str:
    """Send a message; the reply to its end."""
    with smtp(port) as wire:
        begin_data(wire, recipient)
        wire.send(content + b".\r\n")
        return wire.reply()


@contextmanager
def new_server(directory: Path, sections: Sections | None = None) -> Iterator[Instance]:
    """A running instance with the mailboxes IAIN and ANN, settings as ``configure`` writes them."""
    environ = {"RESTANTE_AUTH__REFUSAL_DELAY": "0.05"}
    with new_instance(directory, environ=environ, domains=()) as instance:
        add_accounts(instance)
        configure(instance, sections or {})
        start(instance)
        yield instance


def start(instance: Instance) -> None:
    """Serve; returns when a worker does."""
    instance.start()
    with Wire(instance.smtp_port) as first:
        assert first.reply().startswith("220 ")


def add_accounts(instance: Instance) -> None:
    """The domain example.com and its mailboxes, as rows."""
    uid, gid = account_ids()
    with contextlib.closing(sqlite3.connect(instance.directory / "restante.db")) as database:
        database.execute("INSERT INTO rcpthosts (host) VALUES ('example.com')")
        for address in (IAIN, ANN):
            local, domain = address.split("@")
            home = str(instance.directory / "mail" / local)
            database.execute(
                "INSERT INTO mailbox VALUES (?, ?, ?, ?, 'secret', 'Password')",
                (address, uid, gid, home),
            )
            database.execute("INSERT INTO virtual VALUES (?, ?, ?)", (address, local, domain))
        database.commit()


def account_ids() -> tuple[int, int]:
    """The uid and gid of the accounts: this process's own, or of nobody where it is root."""
    return (os.getuid(), os.getgid()) if os.getuid() else (NOBODY, NOBODY)


def make_home(instance: Instance, address: str) -> Path:
    """The home of an account of ``add_accounts``, as its owner makes it; its Maildir is missing."""
    home = maildir(instance, address).parent
    home.mkdir(parents=True)
    os.chown(home, *account_ids())
    return home


def maildir(instance: Instance, address: str) -> Path:
    """Where the mail of an account of ``add_accounts`` lies."""
    return instance.directory / "mail" / address.partition("@")[0] / "Maildir"

"""What a service manager does with the server, and the units in packaging/systemd."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from restante.service.manager import ACTIVATED
from tests.support.household import OWNERS, PASSWORD, add_owner, address_of
from tests.support.instance import PATIENCE, Instance, new_instance, until
from tests.support.serving import (
    IAIN,
    Sections,
    Wire,
    add_accounts,
    configure,
    deliver,
    new_server,
    reload,
    workers,
)

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
WORST = 3.0
"""The exposure level that no service reaches (systemd-analyze(1))."""


def installed(directory: Path) -> Path:
    """The units with this Python's own program in them, as whoever installs them writes it."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/restante/bin/restante", f"{sys.prefix}/bin/restante")
        (directory / unit.name).write_text(text)
    return directory


def test_units_are_well_formed(tmp_path: Path) -> None:
    units = [str(path) for path in installed(tmp_path).iterdir()]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    # It reads the units of other packages too, and has something to say of some of them.
    said = [line for line in done.stderr.splitlines() if not line.startswith("/usr/lib/systemd/")]
    assert (done.returncode, done.stdout, said) == (0, "", [])


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_hardened(service: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / service)],
        capture_output=True,
        text=True,
        check=True,
    )
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert match is not None
    assert float(match[1]) < WORST


def test_fail2ban_reads_what_each_service_says() -> None:
    lines = (UNITS.parent / "fail2ban" / "filter.conf").read_text().splitlines()
    (matching,) = [line for line in lines if line.startswith("journalmatch = ")]
    named = matching.removeprefix("journalmatch = ").split(" + ")
    assert sorted(named) == [f"_SYSTEMD_UNIT={each}" for each in SERVICES]


def test_sockets_are_named_after_services() -> None:
    named = [
        re.findall(r"(?m)^FileDescriptorName=(.*)$", path.read_text())
        for path in UNITS.glob("*.socket")
    ]
    assert sorted(named) == sorted([[name] for name in ACTIVATED])


def test_only_sockets_that_somebody_has_enabled_come_with_the_server() -> None:
    unit = (UNITS / "restante-user.service").read_text().splitlines()
    naming = [line for line in unit if ".socket" in line and not line.startswith("#")]
    assert {line.partition("=")[0] for line in naming} == {"After"}


@pytest.mark.parametrize("service", SERVICES)
def test_workers_may_choose_their_processor(service: str) -> None:
    """The call is one of @resources, which the units take away; the last word counts."""
    unit = (UNITS / service).read_text().splitlines()
    words = [line.partition("=")[2].split() for line in unit if line.startswith("SystemCallFilter")]
    assert "sched_setaffinity" in words[-1]


@pytest.mark.parametrize("service", SERVICES)
def test_a_program_without_memory_does_not_end_the_server_and_no_line_is_dropped(
    service: str,
) -> None:
    unit = (UNITS / service).read_text().splitlines()
    assert {"OOMPolicy=continue", "LogRateLimitIntervalSec=0"} <= set(unit)


if os.geteuid() == 0:

    def test_the_capabilities_that_the_unit_leaves_are_enough(tmp_path: Path) -> None:
        """Started with them, and without memory that is both written and run."""
        unit = (UNITS / "restante.service").read_text()
        (left,) = re.findall(r"(?m)^CapabilityBoundingSet=(.+)$", unit)
        bounding = ",".join(["-all", *(f"+{each.lower()[4:]}" for each in left.split())])
        with new_instance(tmp_path / "instance", domains=("example.com",)) as instance:
            for uid in OWNERS:
                add_owner(instance, uid)
            missing = instance.directory / "mail" / "missing"
            move(instance, OWNERS[-1], missing)
            configure(instance, {"server": {"workers": 2}, "mail": {"user": "nobody"}})
            instance.within = [
                *(sys.executable, "-c", NO_EXECUTABLE_MEMORY),
                *(shutil.which("setpriv") or "setpriv", "--bounding-set", bounding),
                "--no-new-privs",
            ]
            instance.start()
            assert instance.process is not None
            status = Path(f"/proc/{instance.process.pid}/status").read_text()
            assert f"{sum(1 << number(each) for each in left.split()):016x}" in status
            for uid in OWNERS:
                assert deliver(instance.smtp_port, address_of(uid)).startswith("250 ")
            until(lambda: list(missing.glob("Maildir/new/*")), "its home was made")
            assert missing.parent.stat().st_uid == pwd.getpwnam("nobody").pw_uid
            assert "event=server_reloaded" in reload(instance)
            os.kill(min(workers(instance, 2)), signal.SIGKILL)
            for uid in OWNERS:
                assert len(instance.messages(address_of(uid), PASSWORD)) == 1
            assert instance.stop() == 0
            assert "event=unplanned" not in instance.log()
            assert "event=failed" not in instance.log()

    def move(instance: Instance, uid: int, home: Path) -> None:
        """The home of an account is to be another one, which nobody has made."""
        with closing(sqlite3.connect(instance.directory / "restante.db")) as database:
            values = (str(home), address_of(uid))
            database.execute("UPDATE mailbox SET home = ? WHERE username = ?", values)
            database.commit()

    def number(capability: str) -> int:
        return {
            "CAP_CHOWN": 0,
            "CAP_DAC_OVERRIDE": 1,
            "CAP_KILL": 5,
            "CAP_SETGID": 6,
            "CAP_SETUID": 7,
            "CAP_NET_BIND_SERVICE": 10,
        }[capability]

    NO_EXECUTABLE_MEMORY = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0) != 0:  # PR_SET_MDWE, since Linux 6.3
    assert ctypes.get_errno() == 22
os.execv(sys.argv[1], sys.argv[1:])
"""


# What the manager is told


@contextmanager
def manager(directory: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """A socket for what is told, and the environment that names it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(directory / "notify"))
        told.settimeout(PATIENCE)
        yield told, {"NOTIFY_SOCKET": str(directory / "notify")}


def next_told(told: socket.socket) -> dict[str, str]:
    lines = told.recv(4096).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_the_manager_is_told(tmp_path: Path) -> None:
    with manager(tmp_path) as (told, environ), new_server(tmp_path / "instance") as instance:
        instance.stop()
        instance.environ |= environ
        instance.start()
        assert next_told(told) == {"READY": "1", "STATUS": "workers: 1"}
        configure(instance, {"server": {"workers": 2}})
        assert "event=server_reloaded" in reload(instance)
        reloading = next_told(told)
        assert reloading["RELOADING"] == "1"
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert next_told(told) == {"READY": "1", "STATUS": "workers: 2"}
        configure(instance, {"server": {"workers": 0}})
        assert "event=reload_refused" in reload(instance)
        assert next_told(told)["RELOADING"] == "1"
        refused = next_told(told)
        assert refused["READY"] == "1"
        assert re.fullmatch(
            r"workers: 2; the reload of [-\dT:]+Z was refused: .* workers: 0 is too small; .*",
            refused["STATUS"],
        )
        configure(instance, {"server": {"workers": 1}})
        assert "event=server_reloaded" in reload(instance)
        assert next_told(told)["RELOADING"] == "1"
        assert next_told(told) == {"READY": "1", "STATUS": "workers: 1"}
        instance.stop()
        assert next_told(told)["STOPPING"] == "1"


def test_the_watchdog_is_fed(tmp_path: Path) -> None:
    """As often as it asks, and twice."""
    with manager(tmp_path) as (told, environ), new_server(tmp_path / "instance") as instance:
        instance.stop()
        instance.environ |= environ | {"WATCHDOG_USEC": "200000"}
        instance.start()
        until(lambda: "READY" in next_told(told), "it is ready")
        for _ in range(5):
            assert next_told(told) == {"WATCHDOG": "1"}
        instance.stop()


# Sockets that the manager passes

PASS = """
import os, socket, sys
names, command = sys.argv[1], sys.argv[2:]
bound = []
for name in names.split(":"):
    bound.append(socket.create_server(("127.0.0.1", 0)))
for number, each in enumerate(bound):
    os.dup2(os.dup(each.fileno()), 3 + number)
    os.set_inheritable(3 + number, True)
os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = str(len(bound)), str(os.getpid())
os.environ["LISTEN_FDNAMES"] = names
os.execv(command[0], command)
"""


@contextmanager
def activated(directory: Path, names: str, sections: Sections | None = None) -> Iterator[Instance]:
    """A server with a passed socket for each of the names."""
    with new_instance(directory, domains=()) as instance:
        add_accounts(instance)
        configure(instance, sections or {})
        instance.within = [sys.executable, "-c", PASS, names]
        instance.start()
        yield instance


def test_passed_sockets_are_shared_by_all_workers(tmp_path: Path) -> None:
    sections: Sections = {"server": {"workers": 2}}
    with activated(tmp_path / "instance", "smtp:pop3", sections) as instance:
        assert instance.log().count("event=listening") == 2, "in place of what the settings name"
        for count, workers_ in ((3, 3), (6, 1)):
            while len(instance.messages(IAIN)) < count:
                assert deliver(instance.smtp_port, IAIN).startswith("250 ")
            configure(instance, {"server": {"workers": workers_}})
            assert "event=server_reloaded" in reload(instance)
            workers(instance, workers_)
        assert instance.stop() == 0


def test_a_killed_worker_leaves_the_passed_socket_open(tmp_path: Path) -> None:
    with activated(tmp_path / "instance", "smtp:pop3") as instance:
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        (victim,) = workers(instance, 1)
        os.kill(victim, signal.SIGKILL)
        with Wire(instance.smtp_port) as wire:
            assert wire.reply().startswith("220 ")
        until(lambda: workers(instance, 1) != {victim}, "a successor")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("imap", "passes a socket called 'imap'; FileDescriptorName= must be one of smtp,"),
        ("submissions", "a socket is passed for submissions, which needs a certificate"),
    ],
)
def test_sockets_that_cannot_be_used(tmp_path: Path, name: str, said: str) -> None:
    with new_instance(tmp_path / "instance") as instance:
        configure(instance, {})
        command = [sys.executable, "-m", "restante", "--dir", str(instance.directory), "serve"]
        done = subprocess.run(
            [sys.executable, "-c", PASS, name, *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == os.EX_UNAVAILABLE
        assert said in done.stderr

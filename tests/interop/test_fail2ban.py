"""fail2ban reads the log: whom the filter in packaging/ bans, and whom it does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from restante import maillog
from restante.config.tree import Log
from restante.guessing import Objection
from restante.logsetup import setup_logging

pytestmark = pytest.mark.peer

FILTER = Path(__file__).parents[2] / "packaging" / "fail2ban" / "filter.conf"
JAIL = FILTER.with_name("jail.conf")
THIEF = "203.0.113.66"
VICTIM = "192.0.2.99"
AT_NETWORK = str(Objection("network", THIEF, 30, 30))
AT_ACCOUNT = str(Objection("account", "ann@example.com", 10, 10))
FORGED = (
    f"x level=warning event=login_refused session=1-0-1 service=pop3 peer={VICTIM} login=a",
    f'" level=warning event=login_refused peer={VICTIM} login=a reason="wrong password" detail=""',
    f'\\" peer={VICTIM} login=a reason="too many guesses" detail="network {VICTIM}"\\',
    f"x\nts=2026-01-31T22:53:42.783Z level=warning event=login_refused peer={VICTIM}",
)


def banned(log: Path, *, mode: str = "normal") -> list[str]:
    """The addresses that the filter finds, once for each line that matches."""
    command = ["fail2ban-regex", "--out", "ip", str(log), f"{FILTER}[mode={mode}]"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def refused(peer: str, login: str, reason: str, detail: str) -> None:
    maillog.login_refused("697e8f10-0-1d", "pop3", peer, login, reason, detail)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "restante.log"
    held = setup_logging(Log(target=str(path)), str(tmp_path))
    maillog.login("697e8f10-0-1d", "pop3", VICTIM, "ann", "ann@example.com")
    refused(VICTIM, "ann", "wrong password", "account ann@example.com")
    refused(VICTIM, "ann", "too many guesses", AT_ACCOUNT)
    refused(THIEF, "bob", "too many guesses", AT_NETWORK)
    refused("2001:db8::5", 'b"o b', "too many guesses", AT_NETWORK)
    for login in FORGED:
        refused(THIEF, login, "unknown user", "")
        maillog.guessing("account", login, THIEF, 30)
    held.close()
    return path


def test_networks_that_are_refused_are_banned_and_nobody_else(log: Path) -> None:
    assert banned(log) == [THIEF, "2001:db8::5"]


def test_every_refusal_counts_where_that_is_asked_for(log: Path) -> None:
    found = banned(log, mode="aggressive")
    assert found == [VICTIM, VICTIM, THIEF, "2001:db8::5"] + [THIEF] * len(FORGED)


def test_the_jail_is_one_that_fail2ban_reads(log: Path, tmp_path: Path) -> None:
    """As documented: both files copied to their places."""
    configuration = tmp_path / "fail2ban"
    subprocess.run(["cp", "-a", "/etc/fail2ban", str(configuration)], check=True)
    (configuration / "filter.d" / "restante.conf").write_text(FILTER.read_text())
    jail = JAIL.read_text().replace("/var/log/restante/restante.log", str(log))
    for other in (configuration / "jail.d").iterdir():
        other.unlink()
    (configuration / "jail.d" / "restante.conf").write_text(jail)
    command = ["fail2ban-client", "-c", str(configuration), "-t"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""Guessing at a running server: counted over workers, services, reloads and restarts."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance
from tests.support.serving import ANN, IAIN, Sections, Wire, new_server, reload, start

HOME, OFFICE = "127.0.0.2", "127.0.0.3"
"""Addresses of clients; those of loopback count for accounts alone."""
SECTIONS: Sections = {
    "server": {"workers": 2},
    "smtp": {"auth": True},
    "auth": {"refusal_delay": 0.01, "guess_account": 4, "max_attempts": 100},
}
WRONG = "-ERR [AUTH] wrong user name or password"
TOO_MANY = "-ERR [AUTH] too many wrong passwords, try again later"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Instance]:
    with new_server(tmp_path / "instance", SECTIONS) as instance:
        yield instance


def pop3(server: Instance, login: str, password: str, source: str = HOME) -> str:
    """What a POP3 login from an address is answered; which worker it reaches is chance."""
    with Wire(server.pop3_port, source) as wire:
        wire.line()
        wire.ask(f"USER {login}")
        return wire.ask(f"PASS {password}")


def smtp(server: Instance, login: str, password: str, source: str = HOME) -> str:
    with Wire(server.smtp_port, source) as wire:
        wire.reply()
        wire.ask("EHLO client.example")
        told = base64.b64encode(f"\0{login}\0{password}".encode()).decode()
        return wire.ask(f"AUTH PLAIN {told}")


def test_guesses_are_counted_over_workers_and_services(server: Instance) -> None:
    assert [pop3(server, IAIN, f"guess {number}")[:5] for number in range(2)] == ["-ERR "] * 2
    assert [smtp(server, IAIN, f"guess {number}")[:9] for number in range(2, 4)] == [
        "535 5.7.8"
    ] * 2
    for _ in range(6):  # both workers, sooner or later
        assert pop3(server, IAIN, "secret") == TOO_MANY
        assert smtp(server, IAIN, "secret") == (
            "535 5.7.8 Too many wrong passwords, try again later"
        )
    assert pop3(server, IAIN, "secret", OFFICE).startswith("+OK")
    assert smtp(server, ANN, "secret").startswith("235 ")
    assert server.log().count("event=guessing scope=account name=iain@example.com") == 1
    assert 'reason="too many guesses"' in server.log()


def test_a_phone_with_an_old_password_locks_nobody_out(server: Instance) -> None:
    assert {pop3(server, IAIN, "old") for _ in range(20)} == {WRONG}
    assert pop3(server, IAIN, "secret").startswith("+OK")


def test_restarts_forget_nothing_and_operators_may(server: Instance) -> None:
    for number in range(4):
        pop3(server, IAIN, f"guess {number}")
    reload(server)
    assert pop3(server, IAIN, "secret") == TOO_MANY
    server.stop()
    start(server)
    assert pop3(server, IAIN, "secret") == TOO_MANY
    assert server.run("guesses", "list").stdout.startswith(f"{IAIN}\t{HOME}\t4\t")
    server.run("guesses", "clear", IAIN)
    assert pop3(server, IAIN, "secret").startswith("+OK")


def test_where_an_owner_has_been_nobody_keeps_him_out(server: Instance) -> None:
    assert pop3(server, IAIN, "secret", HOME).startswith("+OK")
    server.stop()
    start(server)
    for thief in range(10, 14):
        for number in range(4):
            pop3(server, IAIN, f"guess {thief} {number}", f"127.0.0.{thief}")
    assert pop3(server, IAIN, "secret", OFFICE) == TOO_MANY
    assert pop3(server, IAIN, "secret", HOME).startswith("+OK")


def test_without_its_file_logins_go_on(server: Instance) -> None:
    server.stop()
    for path in (server.directory / "queue").glob("guesses.*"):
        path.unlink()
    (server.directory / "queue" / "guesses.db").mkdir()
    start(server)
    assert {pop3(server, IAIN, f"guess {number}") for number in range(8)} == {WRONG}
    assert pop3(server, IAIN, "secret").startswith("+OK")
    assert "event=guessing_failed" in server.log()

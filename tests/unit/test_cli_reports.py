"""What ``check`` says of bounces that cannot be delivered."""

from __future__ import annotations

import pytest

from tests.support.shell import Shell, advice


def advised(shell: Shell) -> list[str]:
    """What it says of them."""
    found = advice(shell.json("check"))
    return [line for line in found if line.startswith("bounces that cannot be delivered go to")]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", ""),
        ("iain@example.com", ""),
        ("somebody@elsewhere.example", ""),
        ("nobody@example.com", "nobody@example.com, whom nobody knows: "),
        ("postmaster@MX.example.com", "postmaster@mx.example.com, and this host takes no mail"),
    ],
)
def test_bounces_that_nobody_reads(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setenv("RESTANTE_QUEUE__DOUBLEBOUNCETO", address)
    told = advised(hosted)
    assert len(told) == bool(says)
    assert all(says in line for line in told)


def test_a_smarthost_may_know_who_reads_them(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_QUEUE__DOUBLEBOUNCETO", "postmaster@mx.example.com")
    monkeypatch.setenv("RESTANTE_ROUTING__SMTPROUTES", '{"": "smart.example.net"}')
    assert advised(hosted) == []


def test_a_database_that_cannot_be_asked_is_told_of_once(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_QUEUE__DOUBLEBOUNCETO", "nobody@example.com")
    monkeypatch.setenv("RESTANTE_DATABASE__URL", "sqlite:///none.db")
    done = hosted("check", "--json")
    assert done.code == 1
    assert "bounces that" not in done.out

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


@pytest.mark.parametrize("domain", ["mx.müller.example", "mx.xn--mller-kva.example"])
def test_this_host_is_known_in_either_form(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, domain: str
) -> None:
    monkeypatch.setenv("RESTANTE_SERVER__ME", "mx.müller.example")
    monkeypatch.setenv("RESTANTE_QUEUE__DOUBLEBOUNCETO", f"postmaster@{domain}")
    assert "and this host takes no mail for its own name" in advised(hosted)[0]
    monkeypatch.setenv("RESTANTE_ROUTING__SMTPROUTES", '{".müller.example": "smart.example.net"}')
    assert advised(hosted) == []


def test_a_smarthost_may_know_who_reads_them(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_QUEUE__DOUBLEBOUNCETO", "postmaster@mx.example.com")
    monkeypatch.setenv("RESTANTE_ROUTING__SMTPROUTES", '{"": "smart.example.net"}')
    assert advised(hosted) == []
    routes = '{"": "smart.example.net", ".example.com": ""}'
    monkeypatch.setenv("RESTANTE_ROUTING__SMTPROUTES", routes)
    assert len(advised(hosted)) == 1, "an empty route is no route"


def test_a_database_that_cannot_be_asked_is_told_of_once(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_QUEUE__DOUBLEBOUNCETO", "nobody@example.com")
    monkeypatch.setenv("RESTANTE_DATABASE__URL", "sqlite:///none.db")
    done = hosted("check", "--json")
    assert done.code == 1
    assert "bounces that" not in done.out

"""What the operator sees of what users send, and what may be done about it."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import closing

import pytest

from restante.cli.status import ExitCode
from restante.config.tree import system_hostname
from restante.directory import Account
from restante.directory.system import HostFiles
from restante.tally.owner import as_owner
from restante.usage import Counts, Limits
from restante.usage.file import FILE_NAME, UsageFile
from tests.support.shell import Shell
from tests.support.terminal import at_terminal


def sent(hosted: Shell, account: str, recipients: int, *, hours_ago: float = 0) -> None:
    """As a worker counts it."""
    queue = hosted.directory / "queue"
    with as_owner(str(queue)):
        file = UsageFile.open(str(queue / FILE_NAME), create=True)
        with closing(file), file.transaction():
            file.take(account, recipients, Limits(Counts()), time.time() - hours_ago * 3600)


def test_who_has_sent_how_much(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTANTE_SUBMISSION__RECIPIENTS_PER_DAY", "50")
    assert hosted("submission", "list").out == ""
    sent(hosted, "iain@example.com", 5)
    sent(hosted, "iain@example.com", 2, hours_ago=2)
    sent(hosted, "spammer@example.com", 50)
    sent(hosted, "quiet@example.com", 1, hours_ago=25)
    assert hosted("submission", "list").out.splitlines() == [
        "spammer@example.com\t1\t1\t50\t50\trecipients_per_day",
        "iain@example.com\t1\t2\t5\t7\t",
    ]
    assert hosted.json("submission", "list")[1]["recipients_per_day"] == 7


def test_the_list_fits_a_terminal(hosted: Shell) -> None:
    nobody = at_terminal(hosted.directory, "submission", "list")
    assert nobody.screen.splitlines() == [
        "restante: no limit is set in [submission], so nothing is counted"
    ]
    sent(hosted, "iain@example.com", 5)
    screen = at_terminal(hosted.directory, "submission", "list").screen
    _, *shown = re.sub(r"\x1b\[[0-9]*m", "", screen).splitlines()
    assert [line.split() for line in shown] == [
        ["messages", "recipients", "limit"],
        ["account", "an", "hour", "a", "day", "an", "hour", "a", "day", "reached"],
        ["iain@example.com", "1", "1", "5", "5"],
    ]


def test_without_limits_nothing_is_counted_and_the_list_says_so(hosted: Shell) -> None:
    listed = hosted("submission", "list")
    assert (listed.code, listed.out) == (0, "")
    assert "no limit is set in [submission]" in listed.err


def test_reset(hosted: Shell) -> None:
    nobody = hosted("submission", "reset", "iain@example.com")
    assert nobody.code == ExitCode.REFUSED
    assert "has sent nothing" in nobody.err
    sent(hosted, "iain@example.com", 5)
    sent(hosted, "ann@example.com", 5)
    assert hosted("submission", "reset", "Iain@Example.com").code == 0
    assert hosted("submission", "list").out == "ann@example.com\t1\t1\t5\t5\t\n"


@pytest.mark.parametrize("written", ["ann@müller.example", "ann@xn--mller-kva.example"])
def test_reset_in_either_form_of_the_domain(hosted: Shell, written: str) -> None:
    sent(hosted, "ann@müller.example", 5)
    assert hosted("submission", "reset", written).code == 0
    assert hosted("submission", "list").out == ""


def test_who_may_send_as_whom(hosted: Shell) -> None:
    hosted("alias", "add", "sales@example.com", "iain@example.com")
    for address in ("iain@example.com", "sales@example.com", "Iain+x@example.com"):
        assert hosted("submission", "may", "iain@example.com", address).out == "yes\n"
    refused = hosted("submission", "may", "iain@example.com", "boss@example.com")
    told = "553 5.7.1 this account may not send as this address"
    assert (refused.code, refused.out) == (0, f"no: {told} (submission.senders = own)\n")
    answer = hosted.json("submission", "may", "iain@example.com", "boss@example.com")
    assert (answer["may"], answer["reply"]) == (False, told)
    unknown = hosted("submission", "may", "nobody@example.com", "iain@example.com")
    assert (unknown.code, unknown.out) == (ExitCode.REFUSED, "")
    assert "nobody logs in as nobody@example.com" in unknown.err


def test_nobody_may_send_as_a_bad_sender(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTANTE_RECEIVER__BADMAILFROM", '["@old.example", "iain@mx.example.com"]')
    hosted("alias", "add", "iain@old.example", "iain@example.com")

    for address in ("iain@old.example", "iain"):
        refused = hosted("submission", "may", "iain@example.com", address)
        told = "no: 553 5.1.8 this sender is not welcome here (receiver.badmailfrom)\n"
        assert (refused.code, refused.out) == (0, told)
    assert hosted("submission", "may", "iain@example.com", "iain@example.com").out == "yes\n"


def test_users_of_the_system_may_send_too(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def user(_files: HostFiles, name: str) -> Account | None:
        return Account("tess", 1001, 1001, "/home/tess") if name == "tess" else None

    monkeypatch.setattr(HostFiles, "user", user)
    asked = hosted("submission", "may", "tess", "tess@mx.example.com")
    assert (asked.code, asked.out) == (ExitCode.REFUSED, "")

    monkeypatch.setenv("RESTANTE_ROUTING__SYSTEM_FILES", "true")
    assert hosted("submission", "may", "tess", "tess@mx.example.com").out == "yes\n"
    assert hosted("submission", "may", "tess", "iain@example.com").out.startswith("no: 553 5.7.1 ")
    assert "nobody logs in as tom" in hosted("submission", "may", "tom", "tom@example.com").err


def test_a_database_that_is_away_is_no_answer(hosted: Shell) -> None:
    (hosted.directory / "restante.db").unlink()
    asked = hosted("submission", "may", "iain@example.com", "boss@example.com")
    assert (asked.code, asked.out) == (ExitCode.TEMPORARY, "")


@pytest.mark.parametrize(
    ("networks", "problems"), [('["192.0.2.0/24", "::1/128"]', 0), ('["0.0.0.0/0", "::/0"]', 2)]
)
def test_check_names_an_open_relay(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, networks: str, problems: int
) -> None:
    monkeypatch.setenv("RESTANTE_RECEIVER__RELAY_NETWORKS", networks)
    found = json.loads(hosted("check", "--json").out)
    told = [line for line in found["problems"] if "everybody in the world" in line]
    assert (len(told), found["ok"]) == (problems, not problems)


@pytest.mark.parametrize(
    ("login", "advised"), [("smart.example:587", 0), ("SMART.example", 1), ("other.example:587", 1)]
)
def test_check_names_a_login_that_is_never_used(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, login: str, advised: int
) -> None:
    routes = '{"": "Smart.example:587", "near.example": ""}'
    monkeypatch.setenv("RESTANTE_ROUTING__SMTPROUTES", routes)
    monkeypatch.setenv("RESTANTE_RELAY__CREDENTIALS", json.dumps({login: "iain:secret"}))
    told = [line for line in hosted.json("check")["advice"] if "it is never used" in line]
    assert len(told) == advised
    assert "secret" not in "".join(told)


@pytest.mark.parametrize(
    ("listen", "limit", "advised"),
    [("0.0.0.0:0", "0", True), ("0.0.0.0:0", "200", False), ("127.0.0.1:0", "0", False)],
)
def test_check_advises_limits_where_users_come_from_afar(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, listen: str, limit: str, advised: bool
) -> None:
    monkeypatch.setenv("RESTANTE_SUBMISSION__LISTEN", f'["{listen}"]')
    monkeypatch.setenv("RESTANTE_SUBMISSION__RECIPIENTS_PER_HOUR", limit)
    found = hosted.json("check")
    assert any("[submission]" in line for line in found["advice"]) is advised


@pytest.mark.parametrize(
    ("bare", "full", "advised"),
    [
        ("mx", "mx.example.org", ['me = "mx.example.org"']),
        ("mx", "mx", ['me = "mx.example.com"']),
        ("mx.example.org", "", []),
    ],
)
def test_check_names_a_host_whose_name_is_the_resolvers(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, bare: str, full: str, advised: list[str]
) -> None:
    monkeypatch.setenv("RESTANTE_SERVER__ME", "")
    monkeypatch.setattr(socket, "gethostname", lambda: bare)
    monkeypatch.setattr(socket, "getfqdn", lambda _name: full)
    system_hostname.cache_clear()
    told = [line for line in hosted.json("check")["advice"] if "server.me is empty" in line]
    system_hostname.cache_clear()
    assert [line.partition("as in: ")[2] for line in told] == advised

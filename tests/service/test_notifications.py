"""What a sender asked for by SMTP comes back to its mailbox (RFC 3461), on a running server."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator

import pytest

from tests.support.instance import Instance
from tests.support.report import ReadReport, take_reports
from tests.support.serving import ANN, IAIN, new_server, smtp

HEADER = "From: ann@example.com\r\nSubject: hello\r\nMessage-ID: <m1@example.com>\r\n"
MESSAGE = f"{HEADER}\r\nHello.\r\n"
ALIASES = [
    ("alias", "dead@example.com", "gone", "example.com"),
    ("alias", "both@example.com", "iain", "example.com"),
    ("alias", "both@example.com", "lost", "example.com"),
    ("alias", "one@example.com", "iain", "example.com"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with new_server(tmp_path_factory.mktemp("notifications") / "instance") as instance:
        with contextlib.closing(sqlite3.connect(instance.directory / "restante.db")) as database:
            database.executemany("INSERT INTO alias VALUES (?, ?, ?, ?)", ALIASES)
            database.executemany(
                "INSERT INTO virtual VALUES (?, ?, 'example.com')",
                [(name, name.partition("@")[0]) for name in {row[1] for row in ALIASES}],
            )
            database.commit()
        yield instance


def send(
    server: Instance, *recipients: str, parameters: str = "", sender: str = ANN, body: str = MESSAGE
) -> str:
    """Send a message; ``recipients`` with their parameters. Its queue id."""
    with smtp(server.smtp_port) as wire:
        assert wire.ask(f"MAIL FROM:<{sender}>{parameters}").startswith("250 ")
        for recipient in recipients:
            assert wire.ask(f"RCPT TO:{recipient}").startswith("250 ")
        assert wire.ask("DATA").startswith("354 ")
        wire.send(body.encode() + b".\r\n")
        said = wire.reply()
    accepted = re.fullmatch(r"250 2\.0\.0 ok (\w+)", said)
    assert accepted, said
    return accepted[1]


def reports(server: Instance) -> list[ReadReport]:
    """What the sender got."""
    return take_reports(server, ANN)


def report(server: Instance) -> ReadReport:
    """The only one."""
    (only,) = reports(server)
    return only


def test_success_is_reported_from_a_mailbox_here(server: Instance) -> None:
    to = f"<{IAIN}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Iain+2Bbox@Example.COM"
    queue_id = send(server, to, parameters=" RET=FULL ENVID=QQ+20314")
    made = report(server)
    assert re.search(rf"event=reported id={queue_id} .* actions=delivered\n", server.log())
    assert made.header["Subject"] == "Your message was delivered"
    assert made.header["In-Reply-To"] == "<m1@example.com>"
    assert made.message["Original-Envelope-Id"] == "QQ 314"
    assert made.message["Received-From-MTA"] == "dns; client.example (127.0.0.1)"
    assert made.recipient["Original-Recipient"] == "rfc822; Iain+box@Example.COM"
    assert made.recipient["Final-Recipient"] == f"rfc822; {IAIN}"
    assert made.recipient["Action"] == "delivered"
    assert made.recipient["Status"] == "2.1.5"
    assert made.recipient["Final-Log-Id"] == queue_id
    assert made.returned_type == "text/rfc822-headers"
    assert b"Hello." not in made.returned
    assert any(b"\nHello." in message for message in server.messages(IAIN))


@pytest.mark.parametrize("notify", ["", " NOTIFY=NEVER", " NOTIFY=FAILURE,DELAY"])
def test_success_is_not_reported_unasked(server: Instance, notify: str) -> None:
    send(server, f"<{IAIN}>{notify}", f"<one@example.com>{notify}")
    assert reports(server) == []


@pytest.mark.parametrize("notify", ["", " NOTIFY=FAILURE", " NOTIFY=SUCCESS,FAILURE,DELAY"])
def test_failure_is_reported(server: Instance, notify: str) -> None:
    send(server, f"<dead@example.com>{notify}", parameters=" RET=HDRS")
    made = report(server)
    assert made.recipient["Action"] == "failed"
    assert made.recipient["Status"] == "5.1.1"
    assert made.returned_type == "text/rfc822-headers"


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "DELAY", "SUCCESS,DELAY"])
def test_failure_is_not_reported_where_it_is_not_asked_for(server: Instance, notify: str) -> None:
    queue_id = send(server, f"<dead@example.com> NOTIFY={notify}")
    assert reports(server) == []
    assert f"event=failed id={queue_id} " in server.log()


def test_ret_says_how_much_of_a_failure_comes_back(server: Instance) -> None:
    long = MESSAGE + "0123456789" * 5 + "\r\n"
    long += ("x" * 78 + "\r\n") * 1000
    returned = {}
    for ret in ("", " RET=FULL", " RET=HDRS"):
        send(server, "<dead@example.com>", parameters=ret, body=long)
        returned[ret] = report(server).returned_type
    assert returned == {
        "": "text/rfc822-headers",
        " RET=FULL": "message/rfc822",
        " RET=HDRS": "text/rfc822-headers",
    }


def test_an_alias_of_one_hands_on_what_was_asked(server: Instance) -> None:
    send(server, "<one@example.com> NOTIFY=SUCCESS ORCPT=rfc822;one@example.com")
    made = report(server)
    assert made.recipient["Action"] == "delivered"
    assert made.recipient["Original-Recipient"] == "rfc822; one@example.com"
    assert made.recipient["Final-Recipient"] == f"rfc822; {IAIN}"


def test_an_alias_of_several_is_reported_as_expanded(server: Instance) -> None:
    """One report for all that became known together: the expansion, and a target that failed."""
    send(server, "<both@example.com> NOTIFY=SUCCESS,FAILURE")
    made = report(server)
    assert made.header["Subject"] == "Your message could not be delivered"
    assert {(block["Action"], block["Final-Recipient"]) for block in made.recipients} == {
        ("expanded", "rfc822; both@example.com"),
        ("failed", "rfc822; lost@example.com"),
    }


def test_those_who_failed_together_share_a_report(server: Instance) -> None:
    wanted = ["dead@example.com", "both@example.com"]
    send(server, *(f"<{each}> ORCPT=rfc822;{each}" for each in wanted))
    made = report(server)
    assert made.header["Subject"] == "Your message could not be delivered"
    told = [(block["Original-Recipient"], block["Final-Recipient"]) for block in made.recipients]
    assert sorted(told) == [
        ("rfc822; both@example.com", "rfc822; lost@example.com"),
        ("rfc822; dead@example.com", "rfc822; gone@example.com"),
    ]


def test_nobody_is_told_of_what_comes_from_nobody(server: Instance) -> None:
    queue_id = send(server, f"<{IAIN}> NOTIFY=SUCCESS", "<dead@example.com>", sender="")
    assert reports(server) == []
    assert f"event=bounce_dropped id={queue_id} " in server.log()

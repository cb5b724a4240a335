"""Mail to Postfix and Exim: to a user, to nobody, to a full mailbox; and the reports on it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.certificates import issue
from tests.support.far_hosts import FarHost, exim, postfix
from tests.support.instance import until
from tests.support.serving import IAIN
from tests.support.world import EXIM, POSTFIX, World, new_world

pytestmark = pytest.mark.peer


@dataclass(frozen=True, slots=True)
class Far:
    """One of the hosts, and how it says what."""

    host: FarHost
    address: str
    unknown: str
    full: str
    dsn: bool


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One instance and one DNS for all tests here."""
    with new_world(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="module")
def hosts(world: World) -> Iterator[dict[str, Far]]:
    """Both hosts."""
    with ExitStack() as stack:
        name = "postfix.example"
        first = stack.enter_context(postfix(name, POSTFIX, world.port, issue(f"mail.{name}")))
        name = "exim.example"
        second = stack.enter_context(exim(name, EXIM, world.port, issue(f"mail.{name}")))
        yield {
            "postfix": Far(
                first,
                POSTFIX,
                "550 5.1.1 <none@postfix.example>: Recipient address rejected: User unknown in "
                "virtual mailbox table",
                "452 4.2.2 <full@postfix.example>: Recipient address rejected: Mailbox is full",
                dsn=True,
            ),
            "exim": Far(
                second, EXIM, "550 5.1.1 User unknown", "451 4.2.2 Mailbox is full", dsn=False
            ),
        }


@pytest.fixture(params=["postfix", "exim"])
def far(request: pytest.FixtureRequest, hosts: dict[str, Far]) -> Far:
    """Each host in turn."""
    return hosts[request.param]


def test_a_user_nobody_and_a_full_mailbox(world: World, far: Far) -> None:
    host = far.host
    before = len(host.messages("user"))
    user, none, full = (host.address(local) for local in ("user", "none", "full"))
    queue_id = world.send(user, none, full)
    assert world.fate(queue_id, user).event == "sent"
    until(lambda: len(host.messages("user")) == before + 1, "the user's mail is there")
    text = host.messages("user")[-1]
    assert text.lower().startswith(b"return-path: <iain@example.com>\n")
    assert b"TLSv1." in text or b"tls TLS_" in text
    assert text.endswith(b"\nA line.\n.dot\n")

    deferred = world.fate(queue_id, full)
    assert deferred.event == "deferred"
    assert far.full in deferred.words

    assert world.fate(queue_id, none).event == "failed"
    report = world.report(queue_id)
    about = report.recipient
    assert about["Final-Recipient"] == f"rfc822; {none}"
    assert about["Action"] == "failed"
    assert about["Status"] == "5.1.1"
    assert about["Diagnostic-Code"] == f"smtp; {far.unknown}"
    assert about["Remote-MTA"].startswith(f"dns; mail.{host.domain} ({far.address}:{world.port})")
    assert f"RCPT TO:<{none}>" in report.text
    assert far.unknown in report.text
    assert report.returned.endswith(b"\nA line.\n.dot\n")


def test_success_is_reported_by_whose_duty_it_is(world: World, far: Far) -> None:
    """Postfix takes part in RFC 3461 and would tell by itself; Exim leaves it to this host."""
    user = far.host.address("user")
    queue_id = world.send(user, options=["NOTIFY=SUCCESS"])
    assert world.fate(queue_id, user).event == "sent"
    if far.dsn:
        until(lambda: f"message_finished id={queue_id}" in world.instance.log(), "it is done")
        assert f"bounced id={queue_id}" not in world.instance.log()
        return
    report = world.report(queue_id)
    assert report.recipient["Action"] == "relayed"
    assert report.recipient["Final-Recipient"] == f"rfc822; {user}"
    assert report.recipient["Status"].startswith("2.")


def test_each_member_of_a_list_has_a_sender_of_its_own(world: World, far: Far) -> None:
    """Seen by the other host, and by the owner in whose name nobody was written to."""
    user, none = far.host.address("user"), far.host.address("none")
    name = f"list-{far.host.domain.partition('.')[0]}"
    bounces = f"{name}-owner-none={far.host.domain}"
    lines = {name: (user, none), f"{name}-owner": (IAIN,), f"{name}-owner-default": (IAIN,)}
    with contextlib.closing(sqlite3.connect(world.instance.directory / "restante.db")) as rows:
        rows.executemany(
            "INSERT INTO virtual VALUES (?, ?, 'example.com')",
            [*((f"{local}@example.com", local) for local in lines), (IAIN, bounces)],
        )
        rows.executemany(
            "INSERT INTO alias VALUES ('alias', ? || '@example.com', '&' || ?, '')",
            [(local, target) for local, targets in lines.items() for target in targets],
        )
        rows.commit()
    before = Counter(far.host.messages("user"))
    queue_id = world.send(f"{name}@example.com")

    def new() -> list[bytes]:
        return list((Counter(far.host.messages("user")) - before).elements())

    until(new, "the member's mail is there")
    sender = f"{name}-owner-user={far.host.domain}@example.com"
    (copy,) = new()
    assert copy.lower().startswith(f"return-path: <{sender}>\n".encode())
    report = world.report(queue_id)
    assert report.header["To"] == f"{bounces}@example.com"
    assert report.recipient["Final-Recipient"] == f"rfc822; {none}"

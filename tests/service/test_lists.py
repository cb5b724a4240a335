"""Lists of instructions on a server: programs, mailboxes, forwards, owners, loops."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance, until
from tests.support.owner import AS_ROOT, owner, owners_home
from tests.support.report import take_reports
from tests.support.serving import ANN, IAIN, LOOPBACK, add_accounts, configure, smtp, start
from tests.support.smtp_peer import SmtpPeer, smtp_peer


@dataclass
class World:
    """An instance, iain's home, and another host that has nobody called gone."""

    instance: Instance
    home: Path
    peer: SmtpPeer

    def instruct(self, address: str, *lines: str) -> None:
        """What is to be done with mail for an address of example.com."""
        local, _, _ = address.partition("@")
        user, _, extension = local.partition("-")
        with contextlib.closing(sqlite3.connect(self.instance.directory / "restante.db")) as rows:
            if extension:
                rows.execute("INSERT INTO virtual VALUES (?, ?, 'example.com')", (address, local))
            rows.executemany(
                "INSERT INTO alias VALUES (?, ?, ?, '')",
                [(f"{user}@example.com", extension, line) for line in lines],
            )
            rows.commit()

    def send(self, recipient: str, sender: str = ANN) -> None:
        with smtp(self.instance.smtp_port) as wire:
            assert wire.ask(f"MAIL FROM:<{sender}>").startswith("250 ")
            assert wire.ask(f"RCPT TO:<{recipient}>").startswith("250 ")
            assert wire.ask("DATA").startswith("354 ")
            wire.send(b"Subject: for a list\r\n\r\nHello.\r\n.\r\n")
            assert wire.reply().startswith("250 ")

    def settled(self) -> bool:
        return not self.instance.queued()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    def answer(command: str) -> str:
        return "550 5.1.1 nobody" if "gone" in command else "250 2.1.5 ok"

    with (
        owners_home() as home,
        smtp_peer(SmtpPeer({"RCPT": answer})) as peer,
        new_instance(tmp_path / "instance", domains=()) as instance,
    ):
        add_accounts(instance)
        move(instance, home)
        configure(
            instance,
            {
                "routing.smtproutes": {'"far.example"': f"[{LOOPBACK}]:{peer.port}"},
                "programs": {"run_as_server_user": not AS_ROOT},
                "smtp": {"max_received": 10},
            },
        )
        start(instance)
        yield World(instance, home, peer)


def move(instance: Instance, home: Path) -> None:
    """Have iain live in ``home``, as the user whose it is."""
    iain = owner(home)
    with contextlib.closing(sqlite3.connect(instance.directory / "restante.db")) as database:
        database.execute(
            "UPDATE mailbox SET home = ?, uid = ?, gid = ? WHERE username = ?",
            (str(home), iain.uid, iain.gid, IAIN),
        )
        database.commit()


def test_what_failed_is_done_when_it_is_mended(world: World) -> None:
    world.instruct(
        "iain-x@example.com",
        "|echo first >> log",
        f"&{ANN}",
        "|test -e mended && echo second >> log",
        "./Maildir/",
        "|echo third >> log; exit 99",
        "|echo never >> log",
        "&gone@far.example",
    )
    log = world.home / "log"
    world.send("iain-x@example.com")
    until(lambda: "event=deferred" in world.instance.log(), "a program that fails for now")
    assert log.read_text() == "first\n"
    assert not (world.home / "Maildir").exists()
    shown = world.instance.run("queue", "list", "--json").stdout
    assert "test -e mended" in shown
    assert "echo first" not in shown, "what was done is left no more"
    (world.home / "mended").touch()
    world.instance.run("queue", "retry", "--all")
    until(world.settled, "the whole list done")
    assert log.read_text() == "first\nsecond\nthird\n"
    assert len(world.instance.messages(IAIN)) == 1
    (forwarded,) = world.instance.messages(ANN)
    assert b"Delivered-To: iain-x@example.com" in forwarded
    assert world.peer.commands == [], "what stands behind a 99 is not done"


def test_a_bounce_of_a_list_goes_to_its_owner(world: World) -> None:
    world.instruct("iain-l@example.com", "&bob@far.example", "&gone@far.example")
    world.instruct("iain-l-owner@example.com", "./Maildir/")
    world.send("iain-l@example.com")
    until(world.settled, "all told")
    heard = [each for each in world.peer.commands if each.startswith("MAIL")]
    assert [each.split()[1] for each in heard] == ["FROM:<iain-l-owner@example.com>"]
    (told,) = take_reports(world.instance, IAIN)
    assert told.header["To"] == "iain-l-owner@example.com"
    assert told.recipient["Final-Recipient"] == "rfc822; gone@far.example"
    assert take_reports(world.instance, ANN) == [], "who sent it is not concerned"


def test_an_owner_of_many_names_sees_who_is_gone(world: World) -> None:
    world.instruct("iain-v@example.com", "&bob@far.example", "&gone@far.example", f"&{IAIN}")
    world.instruct("iain-v-owner@example.com", "./Maildir/")
    world.instruct("iain-v-owner-default@example.com", "./Maildir/")
    bounces = "iain-v-owner-gone=far.example@example.com"
    world.instruct(bounces, "./Maildir/")
    world.send("iain-v@example.com")
    until(world.settled, "all told")
    heard = [each.split()[1] for each in world.peer.commands if each.startswith("MAIL")]
    assert sorted(heard) == [
        "FROM:<iain-v-owner-bob=far.example@example.com>",
        f"FROM:<{bounces}>",
    ]
    copy, report = sorted(world.instance.messages(IAIN), key=lambda octets: b"report" in octets)
    assert b"Return-Path: <iain-v-owner-iain=example.com@example.com>" in copy
    assert f"Delivered-To: {bounces}".encode() in report


def sends_back(world: World, recipient: str, header: str = "") -> str:
    """A program that sends what it is given to ``recipient``, with ``header`` in front."""
    envelope = f"MAIL FROM:<$SENDER>\\r\\nRCPT TO:<{recipient}>"
    send = f"exec 3<>/dev/tcp/{LOOPBACK}/{world.instance.smtp_port}; cat >&3; cat <&3"
    return (
        f"|said=$( (printf '%b' \"EHLO here\\r\\n{envelope}\\r\\nDATA\\r\\n\";"
        f" (printf '%s' \"{header}\"; cat) | sed 's/$/\\r/'; printf '.\\r\\nQUIT\\r\\n')"
        f" | bash -c '{send}');"
        ' case "$said" in *"250 2.0.0 ok"*) ;; *) echo "$said"; exit 100 ;; esac'
    )


def test_a_program_that_sends_the_message_back_comes_to_an_end(world: World) -> None:
    """What it is given shows no Delivered-To, so hops are counted."""
    world.instruct("iain-r@example.com", sends_back(world, "iain-r@example.com"))
    world.send("iain-r@example.com")
    until(lambda: "event=bounced" in world.instance.log(), "the sender told")
    (told,) = take_reports(world.instance, ANN)
    assert "too many Received fields: the message is looping" in " ".join(told.text.split())


def test_a_program_that_forwards_with_delivered_to_comes_back_once(world: World) -> None:
    """As qmail's forward does it."""
    world.instruct(IAIN, "|echo ran >> log", sends_back(world, IAIN, "$DTLINE"))
    world.send(IAIN)
    until(lambda: "event=bounced" in world.instance.log(), "the sender told")
    (told,) = take_reports(world.instance, ANN)
    assert f"The message is looping: it came by {IAIN} before" in " ".join(told.text.split())
    assert (world.home / "log").read_text() == "ran\n"

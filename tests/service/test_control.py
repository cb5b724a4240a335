"""A server on a control directory: what it takes from there, and what it heeds while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.control import control_directory
from tests.support.instance import Instance, until
from tests.support.serving import LOOPBACK, SAMPLE, Wire, hang_up, smtp
from tests.support.smtp_peer import SmtpPeer, smtp_peer

FILES = {
    "me": "mx.example.com\n",
    "locals": "example.com\n",
    "rcpthosts": "example.com\n",
    "virtualdomains": "example.com:nobody-here\n",
    "defaultdelivery": "./Maildir/\n",
}
ANY_PORT = {
    "RESTANTE_SMTP__LISTEN": '["127.0.0.1:0"]',
    "RESTANTE_POP3__LISTEN": '["127.0.0.1:0"]',
    "RESTANTE_ROUTING__SYSTEM_FILES": "false",
    "RESTANTE_RECEIVER__VERIFY_RECIPIENTS": "false",
}


RELAYING = {"RESTANTE_RECEIVER__RELAY_NETWORKS": '["127.0.0.0/8"]'}


def send(instance: Instance, recipient: str) -> None:
    with smtp(instance.smtp_port) as wire:
        wire.ask("MAIL FROM:<me@example.net>")
        assert wire.ask(f"RCPT TO:<{recipient}>").startswith("250 ")
        wire.ask("DATA")
        wire.send(SAMPLE + b".\r\n")
        assert wire.reply().startswith("250 ")


def sent_again(instance: Instance, recipient: str) -> bool:
    """Settings are looked at when they are asked for."""
    send(instance, recipient)
    return True


@contextmanager
def serving(
    tmp_path: Path, files: dict[str, str] = FILES, **environ: str
) -> Iterator[tuple[Instance, Path]]:
    """A server that has no restante.toml at all."""
    control = control_directory(tmp_path, files)
    (tmp_path / "instance").mkdir()
    told = {"RESTANTE_CONTROL": str(control), **ANY_PORT, **environ}
    instance = Instance(tmp_path / "instance", told)
    Instance(tmp_path / "made", ANY_PORT).here("init", str(tmp_path / "made"))
    (tmp_path / "made" / "restante.db").rename(tmp_path / "instance" / "restante.db")
    instance.start()
    try:
        yield instance, control
    finally:
        instance.kill()


def rcpt(instance: Instance, address: str) -> str:
    with smtp(instance.smtp_port) as wire:
        assert wire.ask("MAIL FROM:<me@example.net>").startswith("250 ")
        return wire.ask(f"RCPT TO:<{address}>")


def test_a_control_directory_is_enough(tmp_path: Path) -> None:
    with serving(tmp_path) as (instance, control):
        assert rcpt(instance, "ann@example.com").startswith("250 ")
        assert rcpt(instance, "ann@example.org").startswith("550 5.7.1")
        assert f"event=control_read directory={control}" in instance.log()
        assert instance.stop() == 0


def test_rcpthosts_count_without_sighup_and_survive_being_broken(tmp_path: Path) -> None:
    with serving(tmp_path) as (instance, control):
        assert rcpt(instance, "ann@example.org").startswith("550 5.7.1")

        (control / "rcpthosts").write_text("example.com\nexample.org\n")
        until(lambda: rcpt(instance, "ann@example.org").startswith("250 "), "example.org counts")
        assert "event=control_reread changed=rcpthosts" in instance.log()

        (control / "rcpthosts").write_bytes(b"\xff\xfe rubbish\n")
        until(lambda: "event=control_refused" in still_accepted(instance), "the file is refused")

        (control / "rcpthosts").write_text("example.com\n")
        until(lambda: rcpt(instance, "ann@example.org").startswith("550 "), "it counts no more")
        assert instance.log().count("event=control_refused") == 1
        assert instance.stop() == 0


def still_accepted(instance: Instance) -> str:
    """The log, once both domains have been accepted again: files are looked at when asked for."""
    for domain in ("example.com", "example.org"):
        assert rcpt(instance, f"ann@{domain}").startswith("250 ")
    return instance.log()


def ehlo(instance: Instance) -> str:
    with Wire(instance.smtp_port) as wire:
        return wire.reply() + "\n" + wire.ask("EHLO client.example")


def test_a_message_is_judged_by_what_counted_when_it_began(tmp_path: Path) -> None:
    with serving(tmp_path) as (instance, control), smtp(instance.smtp_port) as wire:
        assert wire.ask("MAIL FROM:<me@example.net>").startswith("250 ")
        (control / "rcpthosts").write_text("example.org\n")
        until(lambda: rcpt(instance, "x@example.org").startswith("250 "), "rcpthosts counts")
        assert rcpt(instance, "x@example.com").startswith("550 ")

        assert wire.ask("RCPT TO:<x@example.com>").startswith("250 ")
        assert wire.ask("RSET").startswith("250 ")
        assert wire.ask("MAIL FROM:<me@example.net>").startswith("250 ")
        assert wire.ask("RCPT TO:<x@example.com>").startswith("550 ")


def test_size_greeting_and_bad_senders_count_without_sighup(tmp_path: Path) -> None:
    with serving(tmp_path, {**FILES, "databytes": "1000\n"}) as (instance, control):
        assert "SIZE 1000" in ehlo(instance)
        (control / "databytes").write_text("2000\n")
        (control / "smtpgreeting").write_text("mx.example.com hello\n")
        (control / "badmailfrom").write_text("@example.net\n")

        until(lambda: "SIZE 2000" in ehlo(instance), "databytes counts")
        assert ehlo(instance).startswith("220 mx.example.com hello")
        with smtp(instance.smtp_port) as wire:
            assert wire.ask("MAIL FROM:<me@example.net>").startswith("553 ")
            assert wire.ask("MAIL FROM:<me@example.org>").startswith("250 ")


def test_the_host_s_name_waits_for_sighup(tmp_path: Path) -> None:
    with serving(tmp_path) as (instance, control):
        (control / "me").write_text("other.example.com\n")
        assert ehlo(instance).startswith("220 mx.example.com")

        hang_up(instance)
        until(lambda: "event=server_reloaded" in instance.log(), "reloaded")
        until(lambda: ehlo(instance).startswith("220 other.example.com"), "greeted anew")


def test_sighup_on_a_broken_directory_changes_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as (instance, control):
        (control / "me").write_text("not a name\n")
        hang_up(instance)

        until(lambda: "event=reload_refused" in instance.log(), "refused")
        assert ehlo(instance).startswith("220 mx.example.com")


@pytest.mark.parametrize(
    "address", ["ann@[127.0.0.1]", "ann@[IPv6:::1]", "ann@[IPv6:::ffff:127.0.0.1]"]
)
def test_an_address_of_this_host_is_localiphost(tmp_path: Path, address: str) -> None:
    with serving(tmp_path, {**FILES, "localiphost": "example.com\n"}) as (instance, _):
        assert rcpt(instance, address).startswith("250 ")
        assert rcpt(instance, "ann@[192.0.2.1]").startswith("550 ")
        told = instance.run("explain", address).stdout
        assert "localiphost makes it ann@example.com\nRouting of ann@example.com\n" in told


def test_routes_and_names_for_others_count_without_sighup(tmp_path: Path) -> None:
    """What waits for the old route, or comes now, goes by the new one."""
    with smtp_peer(SmtpPeer()) as first, smtp_peer(SmtpPeer()) as second:
        files = {**FILES, "smtproutes": f":[{LOOPBACK}]:{first.port}\n"}
        with serving(tmp_path, files, **RELAYING) as (instance, control):
            send(instance, "ann@example.org")
            until(lambda: len(first.contents) == 1, "it went by the first route")

            (control / "helohost").write_text("other.example.com\n")
            (control / "smtproutes").write_text(f":[{LOOPBACK}]:{second.port}\n")
            until(
                lambda: sent_again(instance, "ann@example.org") and second.contents,
                "the second route counts",
            )
            assert "EHLO other.example.com" in second.commands


def test_reports_bear_the_new_name_without_sighup(tmp_path: Path) -> None:
    with smtp_peer(SmtpPeer()) as sender:
        files = {**FILES, "smtproutes": f":[{LOOPBACK}]:{sender.port}\n"}
        with serving(tmp_path, files) as (instance, control):
            send(instance, "nobody@example.com")
            until(lambda: len(sender.contents) == 1, "the report is sent")
            assert b"<MAILER-DAEMON@mx.example.com>" in sender.contents[0]

            (control / "bouncefrom").write_text("bounces\n")
            (control / "bouncehost").write_text("example.com\n")
            until(
                lambda: (
                    sent_again(instance, "nobody@example.com")
                    and b"<bounces@example.com>" in sender.contents[-1]
                ),
                "the new name counts",
            )

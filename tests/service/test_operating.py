"""The commands of docs/operating.md are run, and do what the page says."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Literal

import pytest

from restante import maillog
from restante.config.tree import Log
from restante.eventlog import log
from restante.logsetup import setup_logging
from restante.status import Peer, PermanentFailure, Reply
from tests.support.instance import Instance, new_instance, until
from tests.support.ports import free_port
from tests.support.relaying_server import submit
from tests.support.serving import (
    ANN,
    IAIN,
    Sections,
    add_accounts,
    configure,
    deliver,
    new_server,
)

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()


def commands(heading: str) -> list[str]:
    """What stands in the blocks of a section, without comments."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line.partition("  #")[0] for line in re.findall(r"(?m)^ {4}(\S.*)$", section)]


def test_a_backup_of_a_running_server_is_restored(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    with new_instance(tmp_path / "instance") as instance:
        instance.log_directory = tmp_path
        instance.add_mailbox(IAIN)
        instance.start()
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        lines = "\n".join(commands("Backup and restore"))
        here = lines.replace("/srv/mail", str(instance.directory)).replace("/backup", str(backup))
        subprocess.run(["sh", "-ec", here], umask=0o022, check=True)
        made = {each.name: stat.S_IMODE(each.stat().st_mode) for each in backup.iterdir()}
        assert made == {"restante.db": 0o600, "mail.tar": 0o600}
        instance.stop()
        instance.directory.rename(tmp_path / "former")
        instance.directory.mkdir(mode=0o711)
        unpack = ["tar", "--numeric-owner", "-xpf", str(backup / "mail.tar")]
        subprocess.run(unpack, cwd=instance.directory, check=True)
        shutil.copy(backup / "restante.db", instance.directory)
        instance.start()
        until(lambda: "event=server_ready" in instance.log(), "the server is ready")
        assert instance.run("check").returncode == 0
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert len(instance.messages(IAIN)) == 2


@pytest.mark.parametrize("format_", ["logfmt", "json"])
def test_domains_of_a_provider_whatever_its_hosts_say(
    tmp_path: Path, format_: Literal["logfmt", "json"]
) -> None:
    hostile = [
        " recipient=ann@forged.example host=mx.outlook.com address=192.0.2.1 ",
        '", "host": "mx.outlook.com", "recipient": "ann@forged.example", "address": "',
        '" host=mx.outlook.com address="',
        '\\" host=mx.outlook.com address=',
    ]
    at, former = tmp_path / "log", log.destination
    opened = setup_logging(Log(target=str(at), format=format_), str(tmp_path))
    try:
        for domain, host, texts in (
            ("customer.example", "customer.mail.protection.outlook.com", ["no", *hostile]),
            ("honest.example", "mx.honest.example", hostile),
        ):
            for text in texts:
                peer = Peer(host, "192.0.2.25", f"RCPT TO:<ann@{domain}>")
                answer = PermanentFailure(Reply(550, "7.1", text), peer=peer)
                maillog.failed("01jx4kq8s7zc00a7eqb", f"ann@{domain}", answer)
    finally:
        log.destination = former
        opened.close()
    look, _, _ = block("A large provider refuses our mail").partition("    $EDITOR")
    page_programs(tmp_path, {"journalctl": f"exec cat {at}"})
    done = subprocess.run(
        ["sh", "-ec", look],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["5", "customer.example"]


def send_on(thief: smtplib.SMTP) -> None:
    """Until the session ends."""
    with suppress(smtplib.SMTPException, OSError):
        while True:
            for sender in ("", IAIN, "iain+1@example.com"):
                thief.sendmail(sender, "kate@example.net", "Subject: buy\r\n\r\n")
                time.sleep(0.02)


@pytest.mark.parametrize(("format_", "name"), [("logfmt", IAIN), ("json", f'"{IAIN}"')])
def test_an_account_that_sends_what_it_should_not_is_stopped(
    tmp_path: Path, format_: str, name: str
) -> None:
    sections: Sections = {
        "log": {"format": format_},
        "smtp": {"auth": True},
        "routing": {"smtproutes": {"": f"[127.0.0.1]:{free_port()}"}},  # nobody listens
    }
    with new_server(tmp_path / "instance", sections) as instance, instance.smtp() as thief:
        with instance.smtp() as other:
            other.login(ANN, "secret")
            other.sendmail(ANN, "bob@example.net", "Subject: hello\r\n\r\n")
        thief.login(IAIN, "secret")
        sending = Thread(target=send_on, args=[thief])
        sending.start()
        until(lambda: len(instance.queued()) > 4, "mail waits")
        script = tmp_path / "script"
        script.write_text(block("An account sends what it should not").replace("NAME", name))
        done = run_as_on_the_page(instance, script, password="another")
        assert done.returncode == 0, done.stderr
        sending.join()
        count = sum(
            "message_accepted" in line and IAIN in line for line in instance.log().splitlines()
        )
        shown = [line.split() for line in done.stdout.splitlines()]
        assert [who for _, who in shown] == [name.replace(IAIN, ANN), name]
        assert shown[0][0] == "1"
        assert 4 <= int(shown[1][0]) < count, "it has gone on"
        assert [each["sender"] for each in instance.queued()] == [ANN]
        assert len((tmp_path / "removed.tsv").read_text().splitlines()) == count
        assert instance.ended() == 0
        instance.start()
        with instance.smtp() as again, pytest.raises(smtplib.SMTPAuthenticationError):
            again.login(IAIN, "secret")


BOMB = """
import asyncio, os, signal, sys
from restante.cli import main
from restante.courier import MailCourier

attempt = MailCourier.attempt

async def attempt_or_die(self, message):
    if "bomb@example.org" in map(str, message.envelope.recipients):
        await asyncio.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return await attempt(self, message)

MailCourier.attempt = attempt_or_die
del sys.argv[1:-3]
main()
"""
"""The command ``--dir DIR serve``, whose workers do not survive an attempt for ``bomb``."""


def test_a_message_that_ends_workers_is_named_and_can_be_held(tmp_path: Path) -> None:
    with new_instance(tmp_path / "instance", domains=()) as instance:
        add_accounts(instance)
        configure(
            instance,
            {
                "log": {"level": "debug"},
                "receiver": {"relay_networks": ["127.0.0.0/8"]},
                "routing": {
                    "smtproutes": {
                        "example.net": f"[127.0.0.1]:{free_port()}",
                        "example.org": f"[127.0.0.1]:{free_port()}",
                    }
                },
            },
        )
        instance.within = [sys.executable, "-c", BOMB]
        instance.start()
        submit(instance, "ann@example.net")
        queue_id = submit(instance, "bomb@example.org")
        until(lambda: instance.log().count("event=worker_ended") >= 3, "they end again and again")
        told = re.findall(r"event=(attempt_begun id=\w+|worker_ended)", instance.log())
        before = {one for one, other in pairwise(told) if other == "worker_ended"}
        assert before == {f"attempt_begun id={queue_id}"}
        assert instance.run("queue", "hold", queue_id).returncode == 0
        lives = re.compile(r"event=(queue_opened|attempt_begun|worker_ended)")
        until(lambda: lives.findall(instance.log())[-1] == "queue_opened", "one that lives")
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert lives.findall(instance.log())[-1] == "queue_opened"


def block(heading: str) -> str:
    """The first block of a section, as it is."""
    section = PAGE.partition(f"\n## {heading}\n")[2]
    found = re.search(r"(?:^ {4}.*\n)+", section, re.MULTILINE)
    assert found is not None
    return found.group()


SYSTEMCTL = """
case $1 in
reload) kill -HUP {pid} ;;
restart) kill {pid} && while grep -qs '^State:.[^Z]' /proc/{pid}/status; do sleep 0.05; done ;;
esac
"""
"""Waits as it does, for a server that the test starts again."""


def run_as_on_the_page(
    instance: Instance, script: Path, password: str
) -> subprocess.CompletedProcess[str]:
    """With a journal, a service manager and a command as the page takes them to be there."""
    assert instance.process is not None
    programs = script.with_suffix(".bin")
    programs.mkdir()
    page_programs(
        programs,
        {
            "restante": f'exec {sys.executable} -m restante --dir {instance.directory} "$@"',
            "journalctl": f"exec cat {instance.log_file}",
            "systemctl": SYSTEMCTL.format(pid=instance.process.pid),
        },
    )
    text = script.read_text()
    script.write_text(text.replace("mailbox passwd", "mailbox passwd --password-stdin"))
    path = f"{programs}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-e", script],
        input=f"{password}\n",
        env=os.environ | {"PATH": path},
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def page_programs(directory: Path, programs: Mapping[str, str]) -> None:
    """Commands of the page, each with what it does here."""
    for name, does in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{does}\n")
        (directory / name).chmod(0o755)

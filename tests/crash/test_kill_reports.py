"""kill -9 at random moments: what senders asked to be told is told, once."""

from __future__ import annotations

import random
import smtplib
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance, until
from tests.support.report import read_report

SENDERS = 4
SENDER = "ann@example.com"
MAILBOX = "iain@example.com"
ALIAS = "both@example.com"
NOBODIES = ("gone@example.com", "lost@example.com")
"""Where the alias leads."""
WANTED = Counter(
    [("delivered", MAILBOX), ("expanded", ALIAS), *(("failed", nobody) for nobody in NOBODIES)]
)
"""What is to be told of every message."""


class Load:
    """Senders that go on until the server is gone, and remember what was acknowledged to them."""

    def __init__(self, instance: Instance, name: str) -> None:
        self._instance = instance
        self._name = name
        self._stop = threading.Event()
        self.acknowledged: list[str] = []
        """Envelope ids."""
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            try:
                with self._instance.smtp() as client:
                    while not self._stop.is_set():
                        count += 1
                        self._send_one(client, f"{self._name}-{number}-{count}")
            except (OSError, smtplib.SMTPException):
                time.sleep(0.01)

    def _send_one(self, client: smtplib.SMTP, envid: str) -> None:
        client.ehlo_or_helo_if_needed()
        for command in (
            f"MAIL FROM:<{SENDER}> RET=HDRS ENVID={envid}",
            f"RCPT TO:<{MAILBOX}> NOTIFY=SUCCESS",
            f"RCPT TO:<{ALIAS}> NOTIFY=SUCCESS,FAILURE",
        ):
            code, said = client.docmd(command)
            assert code == 250, said
        code, said = client.data(f"Subject: crash\r\nX-Token: {envid}\r\n\r\nHello.\r\n")
        assert code == 250, said
        self.acknowledged.append(envid)


def account(instance: Instance, acknowledged: set[str]) -> None:
    """Every acknowledged message was reported in full; no fate of any was told twice."""
    told: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for octets in instance.messages(SENDER):
        report = read_report(octets + b"\n")
        fates = [
            (block["Action"], block["Final-Recipient"].removeprefix("rfc822; "))
            for block in report.recipients
        ]
        told[report.message["Original-Envelope-Id"]].update(fates)
        failed = {address for action, address in fates if action == "failed"}
        assert failed in (set(), set(NOBODIES)), "those who failed together were told apart"
    assert acknowledged
    assert acknowledged <= told.keys()
    assert {envid: fates for envid, fates in told.items() if fates != WANTED} == {}
    delivered = Counter(
        line
        for octets in instance.messages(MAILBOX)
        for line in octets.split(b"\n")
        if line.startswith(b"X-Token: ")
    )
    assert delivered == Counter(f"X-Token: {envid}".encode() for envid in told)


def kill_rounds(directory: Path, rounds: int, seed: int) -> None:
    """Load, kill, start again, so many times; then account for all that was acknowledged."""
    chance = random.Random(seed)
    acknowledged: set[str] = set()
    with new_instance(directory, environ={"RESTANTE_SERVER__WORKERS": "2"}) as instance:
        for address in (SENDER, MAILBOX):
            instance.add_mailbox(address)
        for nobody in NOBODIES:
            instance.here("alias", "add", ALIAS, nobody)
        for number in range(rounds):
            instance.start()
            with Load(instance, f"{seed}-{number}") as load:
                until(lambda load=load: len(load.acknowledged) >= 5, "five messages acknowledged")
                time.sleep(chance.uniform(0, 0.3))
                instance.kill()
            acknowledged |= set(load.acknowledged)
        instance.start()
        until(lambda: not instance.queued(), "all was told")
        account(instance, acknowledged)


def test_reports_survive_kill(tmp_path: Path) -> None:
    kill_rounds(tmp_path / "instance", rounds=3, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_reports_survive_many_kills(tmp_path: Path, seed: int) -> None:
    kill_rounds(tmp_path / "instance", rounds=10, seed=seed)

"""kill -9 at random moments under load: everything acknowledged is there, once."""

from __future__ import annotations

import json
import random
import re
import smtplib
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance, until

SENDERS = 6
USERS = ("ann@example.com", "iain@example.com")
MIXED = "mixed@example.com"
"""An alias of a mailbox here and an address elsewhere: always travels through the queue."""
_TOKEN = re.compile(rb"^X-Token: (\S+)", re.MULTILINE)


class Load:
    """Senders that go on until told to stop, and remember what was acknowledged to them."""

    def __init__(self, instance: Instance, seed: int) -> None:
        self._instance = instance
        self._random = random.Random(seed)
        self._seed = seed
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.acknowledged: dict[str, tuple[str, ...]] = {}
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def count(self) -> int:
        """How many messages were acknowledged so far."""
        with self._lock:
            return len(self.acknowledged)

    def _send(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            try:
                with self._instance.smtp() as client:
                    while not self._stop.is_set():
                        count += 1
                        self._send_one(client, f"{self._seed}-{number}-{count}")
            except (OSError, smtplib.SMTPException):
                time.sleep(0.01)

    def _send_one(self, client: smtplib.SMTP, token: str) -> None:
        with self._lock:
            recipients = self._random.choice(([USERS[0]], [USERS[1]], list(USERS), [MIXED]))
            size = self._random.choice((100, 4096, 4096, 400_000))
        lines = ("x" * 70 + "\r\n") * (size // 72)
        body = f"X-Token: {token}\r\nSubject: crash\r\n\r\n{lines}"
        client.sendmail("sender@example.net", recipients, body)
        with self._lock:
            self.acknowledged[token] = tuple(recipients)


def tokens_of(instance: Instance, login: str) -> Counter[str]:
    """How often each message lies in the mailbox."""
    found: Counter[str] = Counter()
    for text in instance.messages(login):
        match = _TOKEN.search(text)
        assert match, "a message without its token: it was torn"
        found[match[1].decode()] += 1
    return found


def expected_in(user: str, recipients: tuple[str, ...]) -> bool:
    """Whether a message to these recipients belongs into the user's mailbox."""
    return user in recipients or (user == USERS[1] and MIXED in recipients)


def kill_rounds(directory: Path, rounds: int, seed: int) -> None:
    """Load, kill, start again, so many times; then account for every acknowledged message."""
    chance = random.Random(seed)
    acknowledged: dict[str, tuple[str, ...]] = {}
    with new_instance(directory, environ={"RESTANTE_SERVER__WORKERS": "2"}) as instance:
        for user in USERS:
            instance.add_mailbox(user)
        instance.run("alias", "add", MIXED, USERS[1])
        instance.run("alias", "add", MIXED, "far@elsewhere.test")
        for number in range(rounds):
            instance.start()
            with Load(instance, seed * 1000 + number) as load:
                until(lambda load=load: load.count() >= 5, "five messages acknowledged")
                time.sleep(chance.uniform(0, 0.7))
                instance.kill()
            acknowledged |= load.acknowledged
        instance.start()
        until(lambda: queue_has_settled(instance), "all local recipients of the queue delivered")
        account(instance, acknowledged)


def queue_has_settled(instance: Instance) -> bool:
    """Whether only mail for elsewhere waits."""
    waiting = [
        recipient["address"]
        for message in json.loads(instance.run("queue", "list", "--json").stdout)
        for recipient in message["recipients"]
        if recipient["state"] == "waiting"
    ]
    return all(address.endswith("@elsewhere.test") for address in waiting)


def account(instance: Instance, acknowledged: dict[str, tuple[str, ...]]) -> None:
    """Every acknowledged message in every mailbox it was for, exactly once; none anywhere twice."""
    for user in USERS:
        found = tokens_of(instance, user)
        wanted = {token for token, to in acknowledged.items() if expected_in(user, to)}
        assert wanted, "the load never reached this mailbox"
        missing = wanted - found.keys()
        assert not missing, f"lost: {sorted(missing)[:5]} of {len(wanted)}"
        doubled = [token for token, times in found.items() if times > 1]
        assert not doubled, f"doubled: {doubled[:5]}"


def test_acknowledged_mail_survives_kill(tmp_path: Path) -> None:
    kill_rounds(tmp_path / "instance", rounds=3, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 22))
def test_acknowledged_mail_survives_many_kills(tmp_path: Path, seed: int) -> None:
    kill_rounds(tmp_path / "instance", rounds=15, seed=seed)

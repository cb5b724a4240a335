"""Clients of a cluster: senders that try again as a mail host would, readers that fetch and delete.

They choose a machine for each connection, and go to another one when it fails. What they are
promised is written down, and so is whatever a client must never hear.
"""

from __future__ import annotations

import contextlib
import poplib
import random
import re
import smtplib
import threading
from collections import Counter, defaultdict
from concurrent.futures import Future
from functools import partial
from types import TracebackType

from tests.support.cluster import MIXED, PASSWORD, POP3, SMTP, USERS, Cluster, Node
from tests.support.instance import PATIENCE
from tests.support.pop3_client import Session

SENDERS = 4
READERS = 2
"""Of each user: they are in each other's way."""
_TOKEN = re.compile(rb"(?m)^X-Token: (\S+)\r?$")
BEARABLE = (b"-ERR [IN-USE]", b"-ERR [SYS/TEMP]", b"-ERR EOF")
"""What a reader may hear; the last is poplib's own word for a connection that has ended."""


class Load:
    """Clients that go on until the block ends; then ``complaints`` tell what was wrong."""

    def __init__(self, cluster: Cluster, seed: int, *, pace: float) -> None:
        """``pace``: seconds that each client rests between two attempts."""
        self._cluster = cluster
        self._seed = seed
        self._pace = pace
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._clients: list[Future[None]] = []
        self._holders: dict[str, tuple[Node, int]] = {}
        self.acknowledged: dict[str, tuple[str, ...]] = {}
        """Recipients of each message that a machine has answered for, by its token."""
        self.taken: Counter[int] = Counter()
        """How many messages each machine has answered for."""
        self.served: Counter[int] = Counter()
        """How many POP3 sessions each machine has brought to their end."""
        self.fetched: dict[str, dict[str, str]] = defaultdict(dict)
        """Each user's tokens by the unique-ids under which they were fetched."""
        self.complaints: list[str] = []
        self.temporary: Counter[str] = Counter()
        """What clients heard, and have to bear."""

    def __enter__(self) -> Load:
        works = [partial(self._send_all, number) for number in range(SENDERS)]
        works += [partial(self._read_all, user, n) for user in USERS for n in range(READERS)]
        self._clients = [self._cluster.network.at_the_hub(work) for work in works]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for client in self._clients:
            if kind is None:
                client.result(4 * PATIENCE)
            else:
                client.exception(4 * PATIENCE)

    # Senders

    def _send_all(self, number: int) -> None:
        chance = random.Random(self._seed * 100 + number)
        count = 0
        while not self._stop.is_set():
            count += 1
            recipients = chance.choice([(user,) for user in USERS] + [USERS, (MIXED,)])
            self._send(f"{self._seed}-{number}-{count}", recipients, chance)
            self._stop.wait(self._pace)

    def _send(self, message: str, recipients: tuple[str, ...], chance: random.Random) -> None:
        """Until it is taken. An attempt whose answer was lost may have been taken too: each is
        known by a token of its own."""
        attempt = 0
        while not self._stop.is_set():
            attempt += 1
            token = f"{message}.{attempt}"
            node = chance.choice(self._cluster.nodes)
            size = chance.choice((100, 4096, 4096, 100_000))
            lines = ("x" * 70 + "\r\n") * (size // 72)
            body = f"X-Token: {token}\r\nSubject: load\r\n\r\n{lines}"
            try:
                with smtplib.SMTP(node.machine.front, SMTP, timeout=PATIENCE) as client:
                    refused = client.sendmail("sender@example.net", recipients, body)
                    taken = tuple(each for each in recipients if each not in refused)
                    self._note_taken(node, token, taken)
                    self._note_refused(f"{node.machine.front}: {message}", refused)
                    recipients = tuple(refused)
                    if not recipients:
                        return
            except smtplib.SMTPRecipientsRefused as error:
                self._note_refused(f"{node.machine.front}: {message}", error.recipients)
            except smtplib.SMTPResponseException as error:
                self._note_answer(node, error.smtp_code, error.smtp_error)
            except (OSError, smtplib.SMTPServerDisconnected) as error:
                self.temporary[type(error).__name__] += 1
            self._stop.wait(self._pace)

    def _note_taken(self, node: Node, token: str, recipients: tuple[str, ...]) -> None:
        with self._lock:
            self.acknowledged[token] = recipients
            self.taken[node.machine.number] += 1

    def _note_refused(self, where: str, refused: dict[str, tuple[int, bytes]]) -> None:
        for recipient, (code, text) in refused.items():
            self.temporary[f"{code}"] += 1
            if code // 100 != 4:
                self.complaints.append(f"{where}: {recipient}: {code} {text!r}")

    def _note_answer(self, node: Node, code: int, text: bytes | str) -> None:
        self.temporary[f"{code}"] += 1
        # -1: the connection was closed in the midst of an answer.
        if code // 100 != 4 and code != -1:
            self.complaints.append(f"{node.machine.front}: {code} {text!r}")

    # Readers

    def _read_all(self, user: str, number: int) -> None:
        chance = random.Random(f"{self._seed} {user} {number}")
        while not self._stop.is_set():
            node = chance.choice(self._cluster.nodes)
            life = node.life
            try:
                self._read(node, life, user)
            except poplib.error_proto as error:
                self._note_error(node, user, error.args[0])
            except (OSError, EOFError) as error:
                self.temporary[type(error).__name__] += 1
            self._stop.wait(self._pace)

    def _note_error(self, node: Node, user: str, text: object) -> None:
        line = text if isinstance(text, bytes) else str(text).encode()
        self.temporary[line[:30].decode("ascii", "replace")] += 1
        if line.startswith(b"-ERR") and not line.startswith(BEARABLE):
            self.complaints.append(f"{node.machine.front}: {user}: {line!r}")

    def _read(self, node: Node, life: int, user: str) -> None:
        with contextlib.closing(Session(node.machine.front, POP3)) as session:
            session.user(user)
            session.pass_(PASSWORD)
            # Who has had no mail has no Maildir, no lock, and nothing that another could take.
            if session.stat()[0]:
                self._hold(node, life, user)
                try:
                    self._fetch(session, user)
                finally:
                    self._let_go(node, life, user)
            session.quit()
            with self._lock:
                self.served[node.machine.number] += 1

    def _fetch(self, session: poplib.POP3, user: str) -> None:
        for line in session.uidl()[1]:
            number, _, uid = line.decode("ascii").partition(" ")
            token = _TOKEN.search(b"\n".join(session.retr(number)[1]))
            with self._lock:
                if token is None:
                    self.complaints.append(f"{user}: {uid} was torn")
                else:
                    self.fetched[user][uid] = token[1].decode()
            session.dele(number)

    def _hold(self, node: Node, life: int, user: str) -> None:
        """Mail is one session's, but for one that was killed and does not know it yet."""
        with self._lock:
            other = self._holders.get(user)
            if other is not None and other[0].life == other[1]:
                addresses = f"{node.machine.front} and {other[0].machine.front}"
                self.complaints.append(f"{user}: two sessions at once, {addresses}")
            self._holders[user] = (node, life)

    def _let_go(self, node: Node, life: int, user: str) -> None:
        with self._lock:
            if self._holders.get(user) == (node, life):
                del self._holders[user]


def complaints_about_mail(cluster: Cluster, load: Load) -> list[str]:
    """What was promised and is not kept: every acknowledged message once, and none twice."""
    found: list[str] = []
    for user in USERS:
        copies = load.fetched[user] | _lying(cluster, user)
        times = Counter(copies.values())
        wanted = {token for token, to in load.acknowledged.items() if _is_for(user, to)}
        assert wanted, f"nothing was sent to {user}"
        found += [f"{user}: lost {token}" for token in sorted(wanted - times.keys())]
        found += [f"{user}: {count} times {token}" for token, count in times.items() if count > 1]
    return found


def _is_for(user: str, recipients: tuple[str, ...]) -> bool:
    return user in recipients or (user == USERS[0] and MIXED in recipients)


def _lying(cluster: Cluster, user: str) -> dict[str, str]:
    """The tokens of what lies in a Maildir, by unique-id."""
    found = {}
    for folder in ("new", "cur"):
        for path in (cluster.maildir(user) / folder).iterdir():
            token = _TOKEN.search(path.read_bytes())
            found[path.name.partition(":")[0]] = token[1].decode() if token else "torn"
    return found

"""Whatever a peer says: no exception, no hang, bounded buffers, one result a recipient, an end."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from restante.protocol.smtp.client import MAX_UNANSWERED, MECHANISMS, SmtpClient
from restante.protocol.smtp.client_events import (
    ClientEvent,
    ClientWait,
    Closed,
    TransactionDone,
)
from restante.protocol.smtp.client_reply import MAX_LINE, MAX_REPLY
from tests.support.smtp_client import message

RECIPIENTS = ["b@b.example", "c@b.example", "d@b.example"]
BLOCK = 1024
"""Octets that the peer says at once."""
EHLO = b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"
WORDS = st.sampled_from(
    [
        b"220 hi\r\n", b"250 ok\r\n", b"250 2.1.5 ok\r\n", b"251 x\r\n", b"250-mx\r\n", b"250\r\n",
        b"235 in\r\n", b"334 bW9yZQ==\r\n", b"354 go\r\n", b"421 4.3.2 bye\r\n", b"450 no\r\n",
        b"452 4.5.3 many\r\n", b"550 5.1.1 no\r\n", b"552 5.3.4 big\r\n", b"503 what\r\n",
        b"550-5.1.1 no\r\n", b"150 wait\r\n", b"999 x\r\n", b"2", b"50 ", b"\r", b"\n", b"\r\n",
        b"-", b" ", b"\x00", b"\xff", b"250-" + b"x" * 900 + b"\r\n", EHLO,
    ]
)  # fmt: skip
SAYINGS = st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=60)
ACTIONS = st.lists(st.sampled_from(["send", "tls", "PLAIN", "LOGIN", "content"]), max_size=12)


class Walker:
    """A driver that does the next action whenever it may."""

    def __init__(self, actions: list[str]) -> None:
        self.client = SmtpClient("client.example")
        self.events: list[ClientEvent] = []
        self.sent = b""
        self._actions = iter(actions)
        self._transactions = 0

    @property
    def closed(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Closed)

    def hear(self, octets: bytes) -> None:
        """Receive without acting."""
        self.client.receive(octets)
        self._listen()

    def work(self) -> None:
        """Act until the peer must say something."""
        for _ in range(1000):
            wait = self._listen()
            if wait is None or wait is ClientWait.NEED_DATA:
                return
            self._act(wait)
        raise AssertionError("this goes on for ever")

    def _listen(self) -> ClientWait | None:
        while not self.closed:
            event = self.client.next_event()
            self.sent += self.client.outgoing()
            if isinstance(event, ClientWait):
                return event
            self._note(event)
        return None

    def _note(self, event: ClientEvent) -> None:
        self.events.append(event)
        if isinstance(event, TransactionDone):
            self._transactions -= 1
            assert len(event.results) == len(RECIPIENTS)
        if isinstance(event, Closed):
            assert self._transactions == 0, "a message without results"

    def _act(self, wait: ClientWait) -> None:
        action = next(self._actions, "end")
        if wait is ClientWait.NEED_HANDSHAKE:
            self.client.tls_started()
        elif wait is ClientWait.NEED_CONTENT:
            self._content(action)
        elif action in MECHANISMS:
            self.client.authenticate(action, "name", "password")
        elif action == "tls":
            self.client.start_tls()
        elif action == "end":
            self.client.quit()
        else:
            self._transactions += 1
            self.client.send(message(*RECIPIENTS))

    def _content(self, action: str) -> None:
        if action == "content":
            self.client.content(b".x\n" * 30_000)
        else:
            self.client.end_content()


def walk(actions: list[str], blocks: list[bytes], cut: Callable[[bytes], list[bytes]]) -> Walker:
    """A whole session; the driver acts between two blocks of the peer."""
    walker = Walker(actions)
    for block in blocks:
        for piece in cut(block):
            walker.hear(piece)
            assert len(walker.client._replies._unused) < MAX_LINE + BLOCK
            assert sum(map(len, walker.client._replies._texts)) <= MAX_REPLY
            assert len(walker.client._unanswered) <= MAX_UNANSWERED
        walker.work()
    walker.client.receive_eof()
    walker.work()
    assert walker.closed
    return walker


def blocks(sayings: list[bytes], greeted: bool) -> list[bytes]:
    """What the peer says, in blocks of some octets."""
    said = b"".join(sayings)
    rest = [said[at : at + BLOCK] for at in range(0, len(said), BLOCK)]
    return [b"220 hi\r\n", EHLO, *rest] if greeted else rest


@given(ACTIONS, SAYINGS, st.booleans())
def test_any_peer(actions: list[str], sayings: list[bytes], greeted: bool) -> None:
    walk(actions, blocks(sayings, greeted), lambda block: [block])


@given(ACTIONS, st.lists(WORDS, max_size=30), st.booleans())
def test_one_word_at_a_time(actions: list[str], sayings: list[bytes], greeted: bool) -> None:
    opening = [b"220 hi\r\n", EHLO] if greeted else []
    walk(actions, [*opening, *sayings], lambda block: [block])


@given(ACTIONS, SAYINGS, st.integers(1, 40))
def test_cutting_changes_nothing(actions: list[str], sayings: list[bytes], size: int) -> None:
    said = blocks(sayings, greeted=True)
    whole = walk(actions, said, lambda block: [block])
    single = walk(actions, said, lambda block: [bytes([octet]) for octet in block])
    some = walk(
        actions,
        said,
        lambda block: [block[at : at + size] for at in range(0, len(block), size)],
    )
    assert whole.events == single.events == some.events
    assert whole.sent == single.sent == some.sent

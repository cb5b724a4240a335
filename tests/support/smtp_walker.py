"""A driver of the SMTP client that does whatever it may, in the order that it is given."""

from __future__ import annotations

from collections.abc import Callable

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
            assert len(walker.client._replies._block) < MAX_LINE + BLOCK
            assert sum(map(len, walker.client._replies._texts)) <= MAX_REPLY
            assert len(walker.client._unanswered) <= MAX_UNANSWERED
        walker.work()
    walker.client.receive_eof()
    walker.work()
    assert walker.closed
    return walker

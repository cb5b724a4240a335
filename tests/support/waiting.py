"""Mail that waits in the queue of an instance whose server does not run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.envelope import Envelope, Notify, RecipientDsn, memory_content
from restante.queue import BackOff, LastAnswer, RecipientState, Target
from restante.queue.rows import Result
from restante.queue.store import QueueStore
from restante.queue.work import LaneNews
from restante.status import Peer, Reply
from restante.tally.owner import as_owner
from tests.support.queued import due, new_id
from tests.support.shell import Shell

HOUR = 3600.0
ANN = Address("ann", "example.com")
BUSY = Peer("mx.busy.example", "192.0.2.1", "RCPT TO:<ann@busy.example>", "TLSv1.3 X")
GREYLISTED = Reply(450, "2.0", "<ann@busy.example>: Greylisted for 287 seconds")
TIMED_OUT = "connect to mx.dead.example timed out"
HEADER = b"Subject: hello\nX-Bell: \x07\n"
BODY = b"Dear all,\n\nhello.\n"


@dataclass(frozen=True)
class Sent:
    """A message to be queued, and the answer to its first attempt."""

    targets: tuple[Target, ...]
    age: float
    sender: ReversePath = ANN
    answer: LastAnswer | None = None
    back_off: BackOff | None = None
    body: bytes = HEADER + b"\n" + BODY
    by_lane: Mapping[str, LastAnswer] = field(default_factory=dict)
    """The answers of lanes that have one of their own."""


def put(shell: Shell, slot: int, sent: Sequence[Sent]) -> list[str]:
    """Queue the messages as a server would have; their ids."""
    with as_owner(str(shell.directory / "queue")):
        return asyncio.run(_put(shell, slot, sent))


async def _put(shell: Shell, slot: int, sent: Sequence[Sent]) -> list[str]:
    now = time.time()
    store = QueueStore.open(str(shell.directory / "queue"), slot)
    ids = []
    for each in sent:
        addresses = tuple(Address.from_stored(target.address) for target in each.targets)
        envelope = Envelope(
            new_id(), each.sender, addresses, now - each.age, ret="HDRS", envid="order 7"
        )
        await store.add(envelope, memory_content(b"Received: here\n", each.body), each.targets)
        ids.append(envelope.queue_id)
        if each.answer is None and each.back_off is None and not each.by_lane:
            continue
        for message in await due(store, now):
            if message.envelope == envelope:
                results = [
                    Result(r.id, RecipientState.WAITING, answer, now + HOUR)
                    for r in message.recipients
                    if (answer := each.by_lane.get(r.target.lane, each.answer))
                ]
                await store.record(message, results, now, LaneNews(now, each.back_off))
    await store.close()
    return ids


def to(address: str, lane: str = "", dsn: RecipientDsn | None = None) -> tuple[Target, ...]:
    return (Target(address, lane=lane, dsn=dsn or RecipientDsn()),)


@dataclass(frozen=True)
class Waiting:
    """A hosted instance, and what waits there, the oldest first."""

    shell: Shell
    dead: str
    """Two days old, its lane left alone."""
    busy: str
    """Three hours old, greylisted."""
    bounce: str
    """A minute old, from the null reverse-path, for a mailbox here."""

    @property
    def ids(self) -> list[str]:
        return [self.dead, self.busy, self.bounce]

    def states(self) -> dict[str, set[str]]:
        """Of the recipients of every message."""
        listed = self.shell.json("queue", "list")
        return {each["id"]: {r["state"] for r in each["recipients"]} for each in listed}


def some_mail(hosted: Shell) -> Waiting:
    """A message that nobody takes, one that is greylisted, and a bounce."""
    now = time.time()
    answer = LastAnswer(GREYLISTED, "", BUSY, now - 60)
    dsn = RecipientDsn(Notify.FAILURE | Notify.DELAY, "rfc822;ann@busy.example")
    (dead,) = put(
        hosted,
        1,
        [Sent(to("bob@dead.example", "dead.example"), 48 * HOUR, back_off=BackOff(TIMED_OUT, 99))],
    )
    busy, bounce = put(
        hosted,
        0,
        [
            Sent(to("ann@busy.example", "busy.example", dsn), 3 * HOUR, answer=answer),
            Sent(to("iain@example.com"), 60, NULL_REVERSE_PATH),
        ],
    )
    return Waiting(hosted, dead, busy, bounce)


def lines(text: str) -> list[list[str]]:
    """The fields of each line that ``queue`` prints into a pipe."""
    return [line.split("\t") for line in text.splitlines()]

"""A courier that answers as a script says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from restante.queue import Answer, Attempted, BackOff, QueuedMessage
from restante.status import Delivered, Peer, PermanentFailure, Reply, TemporaryFailure

HERE = Delivered("in the mailbox")
LATER = TemporaryFailure(Reply(451, "3.0", "not now"), "the disk is away")
NEVER = PermanentFailure(Reply(550, "1.1", "no such user"))
PEER = Peer("mx.example.net", "192.0.2.1", "RCPT TO:<ann@example.net>")
NO_HOST = TemporaryFailure(Reply(451, "4.1", "no answer from host"), "timed out", PEER)
DOWN = BackOff("mx.example.net does not answer")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One recipient's part of an attempt."""

    at: float
    queue_id: str
    address: str
    again: bool


class ScriptedCourier:
    """Gives each address its answers one after the other, the last for ever; else Delivered."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._scripts: dict[str, list[Answer | Exception]] = {}
        self._held: dict[str, asyncio.Event] = {}
        self._down: dict[str, BackOff] = {}
        self.attempts: list[Attempt] = []
        self.calls: list[QueuedMessage] = []

    def answer(self, address: str, *answers: Answer | Exception) -> None:
        self._scripts[address] = list(answers)

    def hold(self, address: str) -> asyncio.Event:
        """Let attempts for this address hang until the event is set."""
        return self._held.setdefault(address, asyncio.Event())

    def lane_fails(self, lane: str, back_off: BackOff = DOWN) -> None:
        """Every attempt in the lane fails for now, and asks for it to be left alone."""
        self._down[lane] = back_off

    def lane_works(self, lane: str) -> None:
        """The lane works again."""
        del self._down[lane]

    async def attempt(self, message: QueuedMessage) -> Attempted:
        self.calls.append(message)
        addresses = [recipient.target.address for recipient in message.recipients]
        self.attempts.extend(
            Attempt(self._now(), message.envelope.queue_id, address, message.again)
            for address in addresses
        )
        for address in addresses:
            if address in self._held:
                await self._held[address].wait()
        if message.lane in self._down:
            return Attempted([NO_HOST] * len(addresses), self._down[message.lane])
        return Attempted([self._next(address) for address in addresses])

    def of(self, address: str) -> list[Attempt]:
        """The attempts for one address."""
        return [attempt for attempt in self.attempts if attempt.address == address]

    def in_lane(self, lane: str) -> list[QueuedMessage]:
        """The attempts in one lane."""
        return [call for call in self.calls if call.lane == lane]

    def times(self, address: str) -> list[float]:
        """When it was tried."""
        return [attempt.at for attempt in self.of(address)]

    def _next(self, address: str) -> Answer:
        script = self._scripts.get(address, [HERE])
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

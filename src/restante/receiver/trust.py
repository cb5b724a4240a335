"""Recipients that were taken before are taken at once, and asked about while the content comes.

A sender without PIPELINING (RFC 2920) waits for each RCPT's answer, and each answer for a question
to the database. For an address that was taken not long ago the answer is nearly always the same: it
is given first, and the question is asked meanwhile, for many recipients together. What the rows say
counts all the same, as the end of the content is answered by it alone. An address that was not
taken before is asked about before RCPT is answered, so that who mistypes one hears of it then.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable, Coroutine, Sequence
from copy import copy
from functools import partial
from typing import Any

from restante import maillog
from restante.address import Address
from restante.config import Settings
from restante.receiver import OnTrust, Transaction
from restante.routing.decision import Unknown
from restante.routing.reply import CANNOT_KNOW
from restante.status import Reply

PAIRS = 64 * 1024
"""Of places for an address each: 1 MiB in all, of which the kernel gives what is written to."""
OCTETS = 8
"""Of a place."""
TOGETHER = 50
"""Recipients of a transaction that are asked about together: what one of them costs hardly falls
any further."""
MOST_QUESTIONS = 1_000
"""That a worker has under way for recipients taken on trust; beyond, RCPT waits for its answer."""
CHANGED = Reply(451, "1.0", "a recipient is not taken any more, send again to hear which")
"""To the content for several recipients, of whom not all are what they were."""

Decide = Callable[[Transaction, Sequence[Address]], Coroutine[Any, Any, list[Reply]]]
"""Asks about recipients of a transaction, and notes in it what is decided; the replies to RCPT."""


class FamiliarRecipients:
    """Addresses that anybody could send to when they were asked about last.

    One for all workers, made before they are forked, in memory that all of them see; they hash
    texts alike, since Python draws the key for that when it starts. Each address may be in two
    places, and whoever comes third of those that share them drives out the one that came first.
    It may be wrong about any address: nothing is decided by it.
    """

    def __init__(self) -> None:
        self._places = memoryview(mmap.mmap(-1, PAIRS * 2 * OCTETS)).cast("q")
        self._settings = 0

    def under(self, settings: Settings) -> FamiliarRecipients:
        """Those who were asked about under these settings; the others are in the same places."""
        same = copy(self)
        same._settings = hash(repr((settings.routing, settings.receiver)))
        return same

    def has(self, address: Address) -> bool:
        """Whether it was added, not forgotten, and not driven out."""
        number, place = self._number_and_place(address)
        return number in (self._places[place], self._places[place + 1])

    def add(self, address: Address) -> None:
        """The rows have just said so."""
        number, place = self._number_and_place(address)
        if self._places[place] != number:
            self._places[place + 1] = self._places[place]
            self._places[place] = number

    def forget(self, address: Address) -> None:
        """Ask about it before the next RCPT is answered."""
        number, first = self._number_and_place(address)
        for place in (first, first + 1):
            if self._places[place] == number:
                self._places[place] = 0

    def _number_and_place(self, address: Address) -> tuple[int, int]:
        """What stands for an address, and the first of the places where it may be."""
        number = hash((self._settings, address))
        return number, number % PAIRS * 2


class Trust:
    """Takes familiar recipients, and has them asked about; belongs to one event loop."""

    def __init__(self, familiar: FamiliarRecipients, decide: Decide) -> None:
        self._familiar = familiar
        self._decide = decide
        self._is_answered = True
        """Whether the last question had an answer; if not, RCPT is to say so, not the content."""
        self._questions: set[asyncio.Task[list[Reply]]] = set()
        """Under way for all transactions, those that were dropped as well."""
        self._asking: dict[str, OnTrust] = {}
        """Of which transaction they are, for each session that has some."""

    def warrants(self, transaction: Transaction, address: Address) -> bool:
        """Whether RCPT may be answered before the address was asked about.

        Not while a question of a transaction is under way that the session has dropped: else one
        client that drops them all could have more asked than all others together.
        """
        asking = self._asking.get(transaction.client.session)
        return (
            self._is_answered
            and self._familiar.has(address)
            and len(self._questions) < MOST_QUESTIONS
            and (asking is None or asking is transaction.on_trust)
        )

    def answered(self, *, well: bool) -> None:
        """The directory had an answer to a question, or none."""
        self._is_answered = well

    def take(self, transaction: Transaction, address: Address) -> None:
        """Note a recipient whom ``warrants`` was asked about; ``settle`` waits for the rows.

        The first of a transaction is asked about at once, and then as many together as were asked
        about before: few do not wait for others, and a thousand cost some two dozen questions.
        """
        if address in transaction.decided:
            return
        # Whatever comes between: a recipient of whom this is left waits in the queue.
        transaction.decided[address] = Unknown(address, "taken on trust")
        trust = transaction.on_trust = transaction.on_trust or OnTrust()
        trust.waiting.append(address)
        if len(trust.waiting) >= min(trust.asked, TOGETHER):
            self._ask(transaction, trust)

    def _ask(self, transaction: Transaction, trust: OnTrust) -> None:
        waiting, trust.waiting = trust.waiting, []
        trust.asked += len(waiting)
        question = asyncio.get_running_loop().create_task(self._confirm(transaction, waiting))
        trust.questions.append(question)
        self._questions.add(question)
        self._asking[transaction.client.session] = trust
        question.add_done_callback(partial(self._ended, transaction.client.session, trust))

    def _ended(self, session: str, trust: OnTrust, question: asyncio.Task[list[Reply]]) -> None:
        self._questions.discard(question)
        if trust.is_answered and self._asking.get(session) is trust:
            del self._asking[session]

    async def _confirm(self, transaction: Transaction, addresses: Sequence[Address]) -> list[Reply]:
        """What RCPT would have been answered; raises nothing, as perhaps nobody waits for it."""
        try:
            return await self._decide(transaction, addresses)
        except Exception as error:  # noqa: BLE001 - a bug must not look like an answer
            maillog.unplanned("smtp session", error)
            for address in addresses:  # else the others' mail would be put off for one, each time
                self._familiar.forget(address)
            return [CANNOT_KNOW] * len(addresses)

    async def settle(self, transaction: Transaction) -> Reply | None:
        """Wait until all are asked about; the answer to the content unless all are what they were.

        That is the answer to the only recipient, or a temporary one: RCPT will tell each his own.
        """
        trust = transaction.on_trust
        if trust is None:
            return None
        if trust.waiting:
            self._ask(transaction, trust)
        answers = [reply for question in trust.questions for reply in await question]
        refusals = [reply for reply in answers if not reply.is_success]
        if not refusals or len(transaction.decided) == 1:
            return refusals[0] if refusals else None
        return next((each for each in refusals if each.code < 500), CHANGED)

"""The worker's side of making homes: what fails because a home is missing is tried once more.

A helper makes a home where its user may. Where only root may, it says that the mailbox is not
set up; then the supervisor is asked to have the account's home made. That is rare, so that
nobody needs to tell a missing home from whatever else may be wrong with it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from restante.directory import Account
from restante.envelope import Content, Envelope
from restante.errors import TemporaryError
from restante.helper.makers import MADE, MAX_WORDS, NOT_MADE
from restante.helper.office import Asks
from restante.mda import Delivery, MailboxWriter, MboxDelivery, ProgramDelivery, Ran
from restante.mda.answers import MISCONFIGURED
from restante.status import Outcome, TemporaryFailure

AT_ONCE = 8
"""Homes that one worker asks for at the same time."""
PATIENCE = 30.0
"""Seconds to wait for one."""
PAUSE = 60.0
"""Seconds for which an answer counts; then the same home is asked for again."""
MAX_REMEMBERED = 10_000
"""Accounts whose homes were asked for lately."""


class Homes:
    """Asks the supervisor for homes. Belongs to one event loop."""

    def __init__(self, supervisor: Asks) -> None:
        self._supervisor = supervisor
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._asked: OrderedDict[Account, tuple[float, asyncio.Task[str]]] = OrderedDict()

    async def make(self, account: Account) -> str:
        """See to it that there is a home: an empty string if there is now, else why not."""
        now = asyncio.get_running_loop().time()
        until, asking = self._asked.get(account, (0.0, None))
        if asking is None or until < now:
            asking = asyncio.create_task(self._ask(account))
            self._asked[account] = now + PAUSE, asking
            self._asked.move_to_end(account)
            while len(self._asked) > MAX_REMEMBERED:
                self._asked.popitem(last=False)
        return await asyncio.shield(asking)

    async def _ask(self, account: Account) -> str:
        try:
            async with self._turn, asyncio.timeout(PATIENCE):
                fields, descriptors = await self._supervisor.ask("home", account.name)
                try:
                    if (fields.get("uid"), fields.get("gid")) != (account.uid, account.gid):
                        return "the account has another uid or gid now"
                    return await _answer(descriptors)
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
        except (TemporaryError, OSError) as error:  # TimeoutError is one
            return f"its home cannot be made: {error!s}"


async def _answer(descriptors: Sequence[int]) -> str:
    """What the process that makes the home says; it closes its end then."""
    said = b""
    for descriptor in descriptors:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            connection.setblocking(False)
            receive = partial(asyncio.get_running_loop().sock_recv, connection, MAX_WORDS)
            while len(said) < MAX_WORDS and (more := await receive()):
                said += more
    if said.startswith(NOT_MADE):
        return said.removeprefix(NOT_MADE).decode("utf-8", "backslashreplace")
    return "" if said == MADE else "its home was not made in time"


class HomesFirst:
    """A MailboxWriter that has missing homes made. Belongs to one event loop."""

    def __init__(self, writer: MailboxWriter, homes: Homes) -> None:
        self._writer = writer
        self._homes = homes

    def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Coroutine[Any, Any, Outcome]:
        """See MailboxWriter. What fails here goes through the queue, to ``deliver_each``."""
        return self._writer.deliver_all(envelope, content, deliveries)

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> tuple[Outcome, ...]:
        """See MailboxWriter."""
        found = await self._writer.deliver_each(envelope, content, deliveries, again=again)
        if not any(map(_is_misplaced, found)):
            return found
        outcomes = list(
            await asyncio.gather(
                *(
                    self._after(outcome, delivery.account)
                    for outcome, delivery in zip(found, deliveries, strict=True)
                )
            )
        )
        places = [place for place, outcome in enumerate(outcomes) if outcome is None]
        some = [deliveries[place] for place in places]
        if some:
            repeated = await self._writer.deliver_each(envelope, content, some, again=again)
            for place, outcome in zip(places, repeated, strict=True):
                outcomes[place] = outcome
        return tuple(outcome for outcome in outcomes if outcome is not None)

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        """See MailboxWriter."""
        found = await self._writer.append(envelope, content, mbox, again=again)
        outcome = await self._after(found, mbox.account)
        return outcome or await self._writer.append(envelope, content, mbox, again=again)

    async def run(self, envelope: Envelope, content: Content, program: ProgramDelivery) -> Ran:
        """See MailboxWriter."""
        ran = await self._writer.run(envelope, content, program)
        outcome = await self._after(ran.outcome, program.account)
        if outcome is None:
            return await self._writer.run(envelope, content, program)
        return replace(ran, outcome=outcome)

    async def close(self) -> None:
        """See MailboxWriter."""
        await self._writer.close()

    async def _after(self, outcome: Outcome, account: Account) -> Outcome | None:
        """What becomes of a first attempt: None if it is worth another, now that there is a home.

        Else the outcome, with what keeps root from making the home.
        """
        if not isinstance(outcome, TemporaryFailure) or not _is_misplaced(outcome):
            return outcome
        why = await self._homes.make(account)
        return replace(outcome, detail=f"{outcome.detail}; {why}") if why else None


def _is_misplaced(outcome: Outcome) -> bool:
    return isinstance(outcome, TemporaryFailure) and outcome.reply == MISCONFIGURED

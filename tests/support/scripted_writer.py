"""A mailbox writer whose outcomes a test decides, instruction by instruction."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from restante.envelope import Content, Envelope
from restante.mda import Delivery, MboxDelivery, ProgramDelivery, Ran
from restante.status import Delivered, Outcome, PermanentFailure, Reply, TemporaryFailure

DONE = Ran(Delivered("done"))
LAST = Ran(Delivered("done, and the last"), is_last=True)
NOT_NOW = Ran(TemporaryFailure(Reply(451, "3.0", "not now")))
NEVER = Ran(PermanentFailure(Reply(554, "3.0", "never")))

Work = Delivery | MboxDelivery | ProgramDelivery


def name_of(work: Work) -> str:
    """The instruction as its line has it, with an absolute path."""
    match work:
        case ProgramDelivery():
            return f"|{work.command}"
        case MboxDelivery():
            return work.path
        case Delivery():
            return f"{work.maildir}/"


@dataclass
class ScriptedWriter:
    """Does nothing but note what it was to do, and by which envelope; all of it works."""

    tried: list[tuple[str, Ran]] = field(default_factory=list)
    work: list[tuple[Envelope, Work]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    """What it was to deliver, as ``work``."""
    script: dict[str, list[Ran]] = field(default_factory=lambda: defaultdict(list))
    """How an instruction ends, attempt for attempt; then ``DONE``."""
    hanging: dict[str, asyncio.Event] = field(default_factory=dict)
    """Programs that run until the event is set."""

    @property
    def done(self) -> list[str]:
        """What was done, in the order in which it was."""
        return [name for name, ran in self.tried if isinstance(ran.outcome, Delivered)]

    def end(self, name: str, *attempts: Ran) -> None:
        """Have an instruction end so, attempt for attempt."""
        self.script[name] += attempts

    async def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Outcome:
        return self._take(envelope, content, deliveries[0]).outcome

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> tuple[Outcome, ...]:
        return tuple(self._take(envelope, content, each).outcome for each in deliveries)

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        return self._take(envelope, content, mbox).outcome

    async def run(self, envelope: Envelope, content: Content, program: ProgramDelivery) -> Ran:
        if hanging := self.hanging.get(name_of(program)):
            await hanging.wait()
        return self._take(envelope, content, program)

    async def close(self) -> None:
        """Nothing to close."""

    def _take(self, envelope: Envelope, content: Content, work: Work) -> Ran:
        name = name_of(work)
        ran = self.script[name].pop(0) if self.script[name] else DONE
        self.tried.append((name, ran))
        self.work.append((envelope, work))
        self.contents.append(content.read())
        return ran

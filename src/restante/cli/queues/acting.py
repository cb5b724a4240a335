"""``restante queue retry``, ``hold``, ``release``, ``remove`` and ``bounce``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from restante.address import shown
from restante.cli.output import count, one_line
from restante.cli.queues.selecting import not_found
from restante.cli.status import ExitCode
from restante.errors import OperatorError
from restante.queue import QueueFailed, QueueUnusable
from restante.queue.selection import EVERYTHING

if TYPE_CHECKING:
    from restante.cli.queues.journal import Note
    from restante.queue.operate import Affected, QueueOperator, Verb
    from restante.queue.reader import QueueReader
    from restante.queue.selection import Selection

SHOWN = 20
"""Messages that a terminal is told of one by one; a pipe is told of all."""
_HANGING_UP = (signal.SIGHUP, signal.SIGTERM)
"""What ends a command beside Ctrl-C, unless it was started to ignore that, as by nohup(1)."""

_QUESTIONS = {"remove": "Remove, without a word to the sender,", "bounce": "Return to the sender"}
_DONE = {
    "retry": "put up for an attempt now",
    "hold": "held",
    "release": "released",
    "remove": "removed",
    "bounce": "returned to the sender",
}
_NOTHING = {
    "retry": "waits",
    "hold": "waits",
    "release": "is held",
    "remove": "waits or is held",
    "bounce": "waits or is held",
}


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, and how careful to be about it."""

    verb: Verb
    selection: Selection
    dry_run: bool
    confirmed: bool
    """Nobody need be asked."""

    @property
    def is_filtered(self) -> bool:
        """Whether more is asked of recipients than that they are of some messages."""
        return replace(self.selection, ids=frozenset()) != EVERYTHING


@dataclass(slots=True)
class _Tally:
    """What was counted so far."""

    messages: int = 0
    recipients: int = 0

    def counting(self, affected: Iterable[Affected]) -> Iterator[Affected]:
        """Hand on what passes."""
        last = ""
        for part in affected:
            self.messages += part.queue_id != last
            self.recipients += len(part.recipients)
            last = part.queue_id
            yield part

    def __str__(self) -> str:
        return f"{count(self.messages, 'message')} ({count(self.recipients, 'recipient')})"


@dataclass(slots=True)
class _Lines:
    """Lines on standard output, for as long as they can be written."""

    most: int | None
    """Parts that are told one by one; None: all."""
    parts: int = 0
    failure: OSError | None = None

    def tell(self, part: Affected) -> None:
        """Say what was done, or count it where enough was said."""
        self.parts += 1
        if self.most is None or self.parts <= self.most:
            self._say(_line(part))

    def end(self) -> None:
        """Say how many were counted alone."""
        if self.most is not None and self.parts > self.most:
            self._say(f"... and {self.parts - self.most} more")

    def _say(self, line: str) -> None:
        """Who reads no more must not keep what was asked for from being done, and noted."""
        if self.failure is None:
            try:
                print(line)
            except OSError as error:
                self.failure = error


def carry_out(operator: QueueOperator, reader: QueueReader, order: Order, note: Note) -> None:
    """Do it, or say what would be done; ``note`` is called with what was done.

    Raises OperatorError where it is refused, and where a message that was named by its id
    is not there to have it done to; with the others it is done all the same. So it is where a
    queue cannot be used. Raises OSError where all is done, and standard output did not take what
    there was to say.
    """
    if not (order.confirmed or order.dry_run):
        _ask(operator, order)
    act = operator.matching if order.dry_run else operator.apply
    tally, missing = _Tally(), set(order.selection.ids)
    lines = _Lines(SHOWN if sys.stdout.isatty() else None)
    failure = None
    with _stopping(operator):
        try:
            for part in tally.counting(act(order.verb, order.selection)):
                missing.discard(part.queue_id)
                if not order.dry_run:
                    note(order.verb, part)
                lines.tell(part)
        except (QueueUnusable, QueueFailed) as error:
            failure = error
    if failure is not None and not tally.messages:
        raise failure
    lines.end()
    _conclude(operator, order, tally)
    if operator.stopped:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if lines.failure is not None:
        raise lines.failure
    if failure is not None and (missing or not order.selection.ids):
        raise failure
    if missing:
        raise OperatorError("\n".join(_explain(reader, order, each) for each in sorted(missing)))


@contextmanager
def _stopping(operator: QueueOperator) -> Iterator[None]:
    """Have what ends a command end the work where nothing is half done.

    From then on Ctrl-C ends it anywhere. A terminal that is closed may well say so twice.
    """

    def stop(_number: int, _frame: object) -> None:
        operator.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    heeded = [each for each in _HANGING_UP if signal.getsignal(each) is not signal.SIG_IGN]
    former = {each: signal.signal(each, stop) for each in (signal.SIGINT, *heeded)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _ask(operator: QueueOperator, order: Order) -> None:
    """Before what cannot be undone is done to several messages; raises OperatorError."""
    tally = _Tally()
    with suppress(QueueUnusable, QueueFailed):  # of which is told when all else is done
        for _ in tally.counting(operator.matching(order.verb, order.selection)):
            pass
    if tally.messages <= 1:
        return
    if not sys.stdin.isatty():
        raise OperatorError(
            f"{order.verb} is for {tally}, and there is no terminal to ask at; add --yes to do it, "
            "--dry-run to see them"
        )
    try:
        agreed = typer.confirm(f"{_QUESTIONS[order.verb]} {tally}?", err=True)
    except typer.Abort:
        print(file=sys.stderr)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if not agreed:
        raise OperatorError("nothing was changed")


def _line(part: Affected) -> str:
    sender = shown(str(part.sender)) or "<>"
    recipients = list(map(shown, part.recipients))
    if not sys.stdout.isatty():
        return "\t".join(map(one_line, (part.queue_id, sender, " ".join(recipients))))
    first, *others = recipients
    more = f" and {len(others)} more" if others else ""
    return one_line(f"{part.queue_id}  from {sender} to {first}{more}")


def _conclude(operator: QueueOperator, order: Order, tally: _Tally) -> None:
    """On a terminal below the lines; elsewhere apart from them, since programs count those.

    Where nobody takes it, as of a terminal that is closed, the exit code says enough.
    """
    out = sys.stdout if sys.stdout.isatty() else sys.stderr
    with suppress(OSError):
        for line in _conclusion(operator, order, tally):
            print(line, file=out)


def _conclusion(operator: QueueOperator, order: Order, tally: _Tally) -> Iterator[str]:
    if operator.stopped:
        yield f"Stopped: {tally} {_DONE[order.verb]}; all others are as they were."
    elif not tally.messages:
        if not order.selection.ids:
            yield f"Nothing that {_NOTHING[order.verb]} matches; nothing was changed."
    elif order.dry_run:
        yield f"{tally} would be {_DONE[order.verb]}; nothing was changed."
    else:
        yield f"{tally} {_DONE[order.verb]}."
    if operator.unserved:
        yield "No server has the queue just now; the next one that does finds this."


def _explain(reader: QueueReader, order: Order, queue_id: str) -> str:
    """Why nothing was done to a message that was named by its id."""
    entry = reader.message(queue_id)
    if entry is None:
        return not_found(queue_id)
    if order.is_filtered:
        why = f"nothing of it that {_NOTHING[order.verb]} matches"
    elif order.verb in ("retry", "hold") and entry.held and not entry.waiting:
        return f"{queue_id} is held; restante queue release {queue_id} lets it go on"
    else:
        why = f"nothing of it {_NOTHING[order.verb]}"
    return f"{queue_id}: {why}; restante queue show {queue_id} tells more"

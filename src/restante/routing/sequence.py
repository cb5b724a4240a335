"""Lists with a program: their instructions are obeyed in their order (dot-qmail(5)).

What a program answers decides what becomes of those after it, so they cannot be tried
independently, as those of other lists are. Forwards are sent on at the end, all together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from restante.routing.decision import (
    Instruction,
    ToForward,
    ToMaildir,
    ToMbox,
    ToProgram,
)
from restante.routing.instructions import instruction_line, parse_instruction

MOST_STEPS = 100
"""Programs and mailboxes in such a list, forwards not counted: each is an attempt of its own, for
which the list is read anew, and whoever wrote it is not to keep a worker busy for hours."""


@dataclass(frozen=True, slots=True)
class Step:
    """The instruction whose turn it is, and what is left of the list afterwards."""

    action: ToMaildir | ToMbox | ToProgram
    rest: tuple[Instruction, ...]
    """When it is done."""
    rest_of_last: tuple[Instruction, ...]
    """When it is done and says that those after it do not count (exit 99)."""


def is_sequence(actions: Sequence[Instruction]) -> bool:
    """Whether the instructions are one target, rather than a target each."""
    return any(isinstance(action, ToProgram) for action in actions)


def objection(actions: Sequence[Instruction]) -> str:
    """Why the instructions are not obeyed at all, or an empty string."""
    steps = sum(not isinstance(action, ToForward) for action in actions)
    if steps > MOST_STEPS and is_sequence(actions):
        return f"a list with a program has {steps} programs and mailboxes, {MOST_STEPS} at most"
    return ""


def next_step(actions: Sequence[Instruction]) -> Step | None:
    """The first instruction that is no forward; None: only forwards are left."""
    for index, action in enumerate(actions):
        if not isinstance(action, ToForward):
            before = tuple(actions[:index])
            return Step(action, (*before, *actions[index + 1 :]), before)
    return None


def to_text(actions: Sequence[Instruction]) -> str:
    """The instructions as a queue keeps them, a line each."""
    return "\n".join(map(instruction_line, actions))


def from_text(text: str) -> tuple[Instruction, ...]:
    """The instructions that ``to_text`` wrote; raises BadInstruction."""
    parsed = map(parse_instruction, text.split("\n"))
    return tuple(action for action in parsed if action is not None)

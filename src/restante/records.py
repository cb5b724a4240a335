"""Values of which every command or message makes some."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A slotted dataclass that is frozen for the type checker, and for whoever reads it.

    Not for the interpreter: where it has to guard a dataclass, each field is set by a call of
    ``object.__setattr__``, and making a value of five fields takes 500 ns instead of 140. Equal
    records have equal hashes, as those of a frozen dataclass have. For what is made for every
    message; all other values are frozen dataclasses.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)

"""The settings tree as a list: what the loader, the template and the documentation walk over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, get_type_hints

from restante.config import tree


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as the tree declares it."""

    section: str
    name: str
    kind: Any
    """Its type: ``int``, ``tuple[str, ...]``, ``Literal[...]``, ..."""
    default: Any
    doc: str
    low: float | None
    high: float | None
    hidden: str
    """What its value must be, where that may hold a password and is never repeated."""
    has_lines: bool
    """Whether its value may be several lines."""

    @property
    def environment_name(self) -> str:
        """The environment variable that overrides it."""
        return f"RESTANTE_{self.section}__{self.name}".upper()


@dataclass(frozen=True, slots=True)
class Section:
    """A table of restante.toml."""

    name: str
    kind: type[Any]
    doc: str
    settings: dict[str, Setting]


def catalog() -> dict[str, Section]:
    """Every section by its name, in the order of the tree."""
    return {section.name: section for section in _sections()}


def _sections() -> Iterator[Section]:
    kinds = get_type_hints(tree.Settings)
    for entry in fields(tree.Settings):
        if entry.default_factory is not MISSING:
            kind = kinds[entry.name]
            yield Section(entry.name, kind, kind.__doc__ or "", _settings(entry.name, kind))


def _settings(section: str, kind: type[Any]) -> dict[str, Setting]:
    kinds = get_type_hints(kind)
    return {entry.name: _setting(section, entry, kinds[entry.name]) for entry in fields(kind)}


def _setting(section: str, entry: Field[Any], kind: Any) -> Setting:
    default = entry.default if entry.default_factory is MISSING else entry.default_factory()
    return Setting(section, entry.name, kind, default, **entry.metadata)

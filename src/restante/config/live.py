"""Settings that follow the control files of a running server.

A file that changes is read again when a setting is next asked for; restante.toml and the
environment are not, which is what SIGHUP is for. What a file says that cannot be used leaves the
settings as they were.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from restante.config.catalog import catalog
from restante.config.constraints import check
from restante.config.control import SOURCES, Source, read_control
from restante.config.control_files import Stamp, stamp_of
from restante.config.convert import WrongValue, convert
from restante.config.tree import Control, Settings
from restante.errors import ConfigurationError, RestanteError

T = TypeVar("T")

LOOK_INTERVAL = 0.8
"""Seconds between two looks at the files at the least: one stat of each."""
SETTLING_TIME = 0.2
"""Seconds that a change must be old: what is being written in this moment may be half there. With
the interval, what an editor has written counts within a second."""

_NANOSECONDS = 1e9


class Listener(Protocol):
    """Hears what becomes of changes."""

    def reread(self, changed: list[str], warnings: list[str]) -> None:
        """The files named ``changed`` are in force, but for what ``warnings`` say."""
        ...

    def refused(self, problems: list[str]) -> None:
        """What was in force before stays in force."""
        ...


class LiveSettings:
    """The settings as the control files have them now; without a control directory, as given."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        proof: Callable[[Settings], object],
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``proof`` raises RestanteError for settings that its caller can make nothing of.

        ``clock`` counts seconds; ``now`` is what files are dated by.
        """
        self._settings = settings
        self._listener = listener
        self._proof = proof
        self._environ = environ
        self._clock = clock
        self._now = now
        self._seen = _Seen(settings.control) if settings.control is not None else None
        self._next_look = clock() + LOOK_INTERVAL

    def __call__(self) -> Settings:
        """The settings that are in force now: the same object until something changes."""
        if self._seen is not None and self._clock() >= self._next_look:
            self._next_look = self._clock() + LOOK_INTERVAL
            self._look(self._seen)
        return self._settings

    def _look(self, seen: _Seen) -> None:
        stamps = seen.look()
        changed = [name for name, stamp in stamps.items() if stamp != seen.stamps[name]]
        if not changed or not seen.has_settled(changed, stamps, self._now()):
            return
        seen.stamps = stamps
        try:
            fresh, warnings = refreshed(self._settings, self._environ)
            self._proof(fresh)
        except RestanteError as error:
            self._listener.refused(str(error).splitlines())
            return
        self._settings = fresh
        self._listener.reread(changed, [text for text in warnings if _is_about(text, changed)])


class _Seen:
    """The files of a control directory as they were when they were last heeded."""

    def __init__(self, control: Control) -> None:
        names = {name for source in _live_sources(control) for name in source.files}
        self._directory = control.directory
        self.stamps = {name: control.stamps[name] for name in sorted(names)}

    def look(self) -> dict[str, Stamp | None]:
        """What they are now."""
        return {name: stamp_of(os.path.join(self._directory, name)) for name in self.stamps}

    def has_settled(
        self, changed: list[str], stamps: Mapping[str, Stamp | None], now: float
    ) -> bool:
        """Whether all changes are some time old, or dated in the future.

        A file that is not there has no time of its own, but its directory has: editors move
        the old file away before they write the new one.
        """
        times = [max(stamp[2:]) for name in changed if (stamp := stamps[name]) is not None]
        if len(times) < len(changed) and (directory := stamp_of(self._directory)) is not None:
            times.append(max(directory[2:]))
        ages = [now - nanoseconds / _NANOSECONDS for nanoseconds in times]
        return not any(0 <= age < SETTLING_TIME for age in ages)


def refreshed(settings: Settings, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """The settings with what live control files say now, and what in these is passed over.

    Raises ConfigurationError.
    """
    control = settings.control
    assert control is not None
    live = _live_sources(control)
    layer = read_control(control.directory, environ, live.__contains__, settings.hostname)
    problems = list(layer.problems)
    sections = catalog()
    fresh = settings
    for source in live:
        section, name = source.setting
        setting = sections[section].settings[name]
        value = layer.values.get(source.setting)
        try:
            converted = setting.default if value is None else convert(setting, value)
        except WrongValue as error:
            problems.append(f"{layer.places[source.setting]}: {error}")
        else:
            fresh = _with(fresh, section, name, converted)
    ours = {source.setting for source in live}
    problems += [
        f"{layer.places.get(problem.setting, control.directory)}: {problem.what}"
        for problem in check(fresh)
        if problem.setting in ours
    ]
    if problems:
        raise ConfigurationError(problems)
    return fresh, list(layer.warnings)


def _live_sources(control: Control) -> list[Source]:
    """Those that neither restante.toml nor the environment overrules."""
    return [each for each in SOURCES if each.live and each.setting not in control.told]


def _with(settings: Settings, section: str, name: str, value: Any) -> Settings:
    part = replace(getattr(settings, section), **{name: value})
    return replace(settings, **{section: part})


def _is_about(warning: str, names: list[str]) -> bool:
    path = warning.partition(": ")[0]
    return os.path.basename(path) in names


@dataclass(slots=True)
class Derived(Generic[T]):
    """What is made of the settings, made anew when they have changed."""

    settings: Callable[[], Settings]
    make: Callable[[Settings], T]
    _made_of: Settings | None = None
    _made: T | None = None

    def __call__(self) -> T:
        """The one for the settings in force."""
        settings = self.settings()
        if self._made_of is not settings:
            self._made, self._made_of = self.make(settings), settings
        assert self._made is not None
        return self._made

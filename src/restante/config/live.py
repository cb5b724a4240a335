"""Settings that follow the control files of a running server.

A file that changes is read again when a setting is next asked for; restante.toml and the
environment are not, which is what SIGHUP is for. A file that cannot be used, or not be read any
more, leaves its setting as it was, and no other setting is any worse for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

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
        seen = self._seen
        if seen is not None and self._clock() >= self._next_look:
            self._next_look = self._clock() + LOOK_INTERVAL
            self._look(seen)
        return self._settings

    def _look(self, seen: _Seen) -> None:
        heeded: list[str] = []
        warnings: list[str] = []
        problems: list[str] = []
        for source, changed in seen.changes(self._now()):
            try:
                warnings += self._heed(source)
                heeded += changed
            except ConfigurationError as error:
                problems += error.problems
        if heeded:
            self._listener.reread(heeded, warnings)
        if problems:
            self._listener.refused(list(dict.fromkeys(problems)))

    def _heed(self, source: Source) -> tuple[str, ...]:
        """Take one setting as its files have it now; what in them is passed over.

        Raises ConfigurationError, and the setting is what it was.
        """
        fresh, warnings = refreshed(self._settings, source, self._environ)
        try:
            self._proof(fresh)
        except RestanteError as error:
            place = os.path.join(fresh.control.directory, source.files[0]) if fresh.control else ""
            raise ConfigurationError([f"{place}: {error}"]) from error
        self._settings = fresh
        return warnings


def live_files(control: Control) -> list[str]:
    """The paths of the files that are there and whose changes are heeded."""
    names = [name for source in _live_sources(control) for name in source.files]
    there = [name for name in names if control.stamps[name] is not None]
    return [os.path.join(control.directory, name) for name in there]


def _live_sources(control: Control) -> list[Source]:
    """Those that neither restante.toml nor the environment overrules."""
    return [each for each in SOURCES if each.live and each.setting not in control.told]


class _Seen:
    """The files of a control directory as they were when they were last heeded."""

    def __init__(self, control: Control) -> None:
        self._directory = control.directory
        self._sources = _live_sources(control)
        self._stamps = dict(control.stamps)

    def changes(self, now: float) -> list[tuple[Source, list[str]]]:
        """Sources and the names of their files that have changed; told once."""
        found = []
        for source in self._sources:
            stamps = {name: stamp_of(self._path(name)) for name in source.files}
            changed = [name for name in stamps if stamps[name] != self._stamps[name]]
            if changed and self._have_settled([stamps[name] for name in changed], now):
                self._stamps |= stamps
                found.append((source, changed))
        return found

    def _have_settled(self, stamps: list[Stamp | None], now: float) -> bool:
        """Whether changes are some time old, or dated in the future.

        A file that is not there has no time of its own, but its directory has: editors move
        the old file away before they write the new one.
        """
        known = [stamp if stamp is not None else stamp_of(self._directory) for stamp in stamps]
        ages = [now - max(stamp[2:]) / _NANOSECONDS for stamp in known if stamp is not None]
        return not any(0 <= age < SETTLING_TIME for age in ages)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def refreshed(
    settings: Settings, source: Source, environ: Mapping[str, str]
) -> tuple[Settings, tuple[str, ...]]:
    """The settings with one of them as its control files say now, and what these say in vain.

    Raises ConfigurationError.
    """
    control = settings.control
    assert control is not None
    layer = read_control(control.directory, environ, source.__eq__, settings.hostname)
    place = layer.places.get(source.setting, control.directory)
    problems = list(layer.problems)
    fresh = settings
    try:
        fresh = _with(settings, source, layer.values.get(source.setting))
    except WrongValue as error:
        problems.append(f"{place}: {error}")
    problems += [
        f"{place}: {problem.what}" for problem in check(fresh) if problem.setting == source.setting
    ]
    if problems:
        raise ConfigurationError(problems)
    return fresh, layer.warnings


def _with(settings: Settings, source: Source, value: object) -> Settings:
    """The settings with one value as TOML would have it, None for the default; or WrongValue."""
    section, name = source.setting
    setting = catalog()[section].settings[name]
    converted = setting.default if value is None else convert(setting, value)
    part = replace(getattr(settings, section), **{name: converted})
    return replace(settings, **{section: part})


@dataclass(slots=True)
class Derived(Generic[T]):
    """What is made of the settings, made anew when they have changed."""

    settings: Callable[[], Settings]
    make: Callable[[Settings], T]
    _held: tuple[Settings, T] | None = None

    def __call__(self) -> T:
        """The one for the settings in force."""
        settings = self.settings()
        held = self._held
        if held is None or held[0] is not settings:
            held = self._held = (settings, self.make(settings))
        return held[1]

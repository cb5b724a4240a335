"""Reads restante.toml, the environment and a qmail control directory into one settings tree.

What the environment says counts for more than restante.toml, and that for more than a control
file.

Everything that is wrong is found in one reading. A problem is one line: where
it is, and what is wrong with it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from restante.config.catalog import Section, Setting, catalog
from restante.config.constraints import check
from restante.config.convert import WrongValue, convert, convert_text, shown
from restante.config.exposure import exposed_passwords
from restante.config.tree import Control, Settings, system_hostname
from restante.errors import ConfigurationError

FILE_NAME = "restante.toml"
MAX_FILE = 1024 * 1024
"""Octets in restante.toml."""
DIRECTORY_VARIABLE = "RESTANTE_DIR"
"""The environment variable that names the instance directory; it is no setting."""
CONTROL_VARIABLE = "RESTANTE_CONTROL"
"""The environment variable that names a qmail control directory, as restante.toml may."""
CONTROL_KEY = "control"
"""The one entry of restante.toml that stands outside of any section."""
PREFIX = "RESTANTE_"
"""What the names of all variables that are settings begin with."""
_NO_SETTINGS = {DIRECTORY_VARIABLE, CONTROL_VARIABLE}
CLOSE_NAME = 0.7
"""How alike two names are, from 0 to 1, for one to be taken for a misspelling of the other."""
CLOSE_VARIABLE = 0.9
"""The same for names of variables, which share their beginnings."""


def load(
    directory: str, environ: Mapping[str, str], control: str = "", name: str = FILE_NAME
) -> Settings:
    """The settings of the instance in ``directory``, with what ``environ`` overrides.

    ``control`` is a control directory that was named by hand; it, or one that ``environ`` names,
    takes the place of the one that restante.toml names, and without a restante.toml is enough.
    ``name``: that of a restante.toml that is still to get its own. Raises
    ConfigurationError with every problem there is.
    """
    directory = os.path.abspath(directory)
    named = control or environ.get(CONTROL_VARIABLE, "")
    file = _read_file(os.path.join(directory, name), optional=bool(named))
    return _Reading(directory, file, environ).read(named, by_hand=bool(control))


def load_again(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """The settings of the same instance as they are now; raises ConfigurationError.

    The name of this host is asked for anew where the resolver did not complete it, as at a boot.
    """
    if not settings.server.me and "." not in system_hostname():
        system_hostname.cache_clear()
    control = settings.control
    by_hand = control.directory if control is not None and control.named_by_hand else ""
    return load(settings.directory, environ, by_hand)


@dataclass(frozen=True, slots=True)
class _File:
    """restante.toml, or what stands for one that is not there."""

    path: str
    table: Mapping[str, Any] = field(default_factory=dict)
    exists: bool = True


def _read_file(path: str, *, optional: bool) -> _File:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        if optional:
            return _File(path, exists=False)
        directory = os.path.dirname(path)
        hint = f"make one with: restante init {directory}"
        raise ConfigurationError([f"no {FILE_NAME} in {directory}; {hint}"]) from None
    except OSError as error:
        raise ConfigurationError([f"{path} cannot be read: {error.strerror}"]) from None
    if len(data) > MAX_FILE:
        raise ConfigurationError([f"{FILE_NAME}: larger than {MAX_FILE} octets"])
    return _File(path, _parse(data))


def _parse(data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([f"{FILE_NAME}: line {line} is not UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"{FILE_NAME}: {error}"]) from None
    except ValueError:  # of int(), for more digits than sys.get_int_max_str_digits()
        raise ConfigurationError([f"{FILE_NAME}: a number has too many digits"]) from None
    except RecursionError:
        raise ConfigurationError([f"{FILE_NAME}: lists or tables are nested too deeply"]) from None


@dataclass(slots=True)
class _Reading:
    """One reading: values and problems, as they are found."""

    directory: str
    file: _File
    environ: Mapping[str, str]
    sections: dict[str, Section] = field(default_factory=catalog)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[tuple[str, str], str] = field(default_factory=dict)
    """Where a setting that is not at its default was set, as problems name the place."""
    problems: list[str] = field(default_factory=list)

    def read(self, named: str, *, by_hand: bool) -> Settings:
        """``named``: a control directory that restante.toml has no say in."""
        directory = self._control_directory(named)
        for name, entry in self.file.table.items():
            if name != CONTROL_KEY:
                self._take_section(name, entry)
        for name, text in self.environ.items():
            if name.startswith(PREFIX) and name not in _NO_SETTINGS:
                self._take_variable(name, text)
        control = self._take_control(directory, by_hand=by_hand) if directory else None
        settings = self._build(control)
        for problem in check(settings):
            self.problems.append(f"{self._place(*problem.setting)}: {problem.what}")
        self.problems += exposed_passwords(settings, self.sources, self.file.path)
        if self.problems:
            raise ConfigurationError(self.problems)
        return settings

    def _build(self, control: Control | None) -> Settings:
        """The tree so far; what could not be converted is at its default."""
        built = {
            name: section.kind(**self.values.get(name, {}))
            for name, section in self.sections.items()
        }
        return Settings(self.directory, **built, control=control)

    def _control_directory(self, named: str) -> str:
        """The control directory, absolute; empty if none is named."""
        if named:
            return os.path.abspath(named)
        entry = self.file.table.get(CONTROL_KEY, "")
        if not isinstance(entry, str):
            self.problems.append(f"{FILE_NAME}: {CONTROL_KEY}: {shown(entry)} is no directory")
            return ""
        return os.path.normpath(os.path.join(self.directory, entry)) if entry else ""

    def _take_control(self, directory: str, *, by_hand: bool) -> Control:
        """What nothing else has decided is for the control files to say."""
        from restante.config import control  # only sites that have such a directory pay for it

        told = frozenset(self.sources)
        layer = control.read_control(
            directory, self.environ, lambda each: each.setting not in told, self._told_me()
        )
        self.problems += layer.problems
        for (section, name), value in layer.values.items():
            place = layer.places[section, name]
            self._take(self.sections[section].settings[name], place, convert, value)
        section, name = control.SYSTEM_FILES
        if (section, name) not in told:
            self.values.setdefault(section, {})[name] = True
        alone = not self.file.exists
        return Control(directory, by_hand, alone, told, layer.stamps, layer.warnings)

    def _told_me(self) -> str:
        """The host's name if it is not for the control directory to say."""
        if ("server", "me") not in self.sources:
            return ""
        return self.values.get("server", {}).get("me", "") or system_hostname()

    def _take_section(self, name: str, entry: object) -> None:
        section = self.sections.get(name)
        if section is None:
            self.problems.append(self._unknown_section(name, entry))
        elif not isinstance(entry, dict):
            self.problems.append(f"{FILE_NAME}: {name} is a section; write it as [{name}]")
        else:
            for key, value in entry.items():
                self._take_entry(section, key, value)

    def _take_entry(self, section: Section, key: str, value: object) -> None:
        place = f"{FILE_NAME}: [{section.name}] {key}"
        setting = section.settings.get(key)
        if setting is None:
            self.problems.append(f"{place}: no such setting{self._meant(section, key)}")
        else:
            self._take(setting, place, convert, value)

    def _take_variable(self, name: str, text: str) -> None:
        head, mark, tail = name.removeprefix(PREFIX).partition("__")
        section = self.sections.get(head.lower())
        setting = section.settings.get(tail.lower()) if section else None
        if setting is not None and name == setting.environment_name:
            self._take(setting, name, convert_text, text)
        elif mark or name in self._single_underscore_names():
            known = [entry.environment_name for entry in self._all_settings()]
            self.problems.append(
                f"{name}: no such setting{did_you_mean(name, known, CLOSE_VARIABLE)}"
            )

    def _single_underscore_names(self) -> set[str]:
        return {entry.environment_name.replace("__", "_") for entry in self._all_settings()}

    def _take(
        self,
        setting: Setting,
        place: str,
        converter: Callable[[Setting, Any], Any],
        value: object,
    ) -> None:
        self.sources[setting.section, setting.name] = place
        try:
            converted = converter(setting, value)
        except WrongValue as error:
            what = f"is not {setting.hidden}" if setting.hidden else str(error)
            self.problems.append(f"{place}: {what}")
        else:
            self.values.setdefault(setting.section, {})[setting.name] = converted

    def _place(self, section: str, name: str) -> str:
        return self.sources.get((section, name), f"{FILE_NAME}: [{section}] {name}")

    def _unknown_section(self, name: str, entry: object) -> str:
        if isinstance(entry, dict):
            return f"{FILE_NAME}: [{name}]: no such section{self._meant_section(name)}"
        homes = [f"[{home}]" for home in self._homes(name)]
        hint = f"; it belongs in {' or '.join(homes)}" if homes else ""
        return f"{FILE_NAME}: {name}: stands outside of any section{hint}"

    def _meant_section(self, name: str) -> str:
        return did_you_mean(f"[{name}]", [f"[{known}]" for known in self.sections])

    def _meant(self, section: Section, key: str) -> str:
        close = did_you_mean(key, section.settings)
        homes = [f"[{home}] {key}" for home in self._homes(key)]
        return close or (f"; did you mean {' or '.join(homes)}?" if homes else "")

    def _homes(self, key: str) -> list[str]:
        """The sections that have such a setting."""
        return [section.name for section in self.sections.values() if key in section.settings]

    def _all_settings(self) -> list[Setting]:
        return [entry for section in self.sections.values() for entry in section.settings.values()]


def did_you_mean(
    wrong: str, known: Mapping[str, object] | list[str], cutoff: float = CLOSE_NAME
) -> str:
    """A question to end a message with, or nothing if no known name is close."""
    import difflib  # only a mistake pays for it

    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""

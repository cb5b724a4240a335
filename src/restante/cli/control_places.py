"""Where in a control directory it stands what ``explain`` says of a setting: file and line."""

from __future__ import annotations

import re
from dataclasses import replace

from restante.address import fold
from restante.config.control import SOURCES
from restante.config.control_files import Files
from restante.config.tree import Control, Settings
from restante.routing.trace import Step, Trace

_OF_ROUTING = {source.setting[1]: source for source in SOURCES if source.setting[0] == "routing"}
_SETTING = re.compile(r"setting routing\.(?P<name>\w+)(?P<verb> has| exempts)?(?: (?P<key>\S+))?")


def name_places(settings: Settings, trace: Trace) -> None:
    """Have the steps of a trace name files in place of the settings that were taken from them."""
    if settings.control is not None:
        control = settings.control
        trace.entries[:] = [
            replace(each, text=located(control, each.text)) if isinstance(each, Step) else each
            for each in trace.entries
        ]


def located(control: Control, text: str) -> str:
    """The text of one step, with the place of the setting that it names."""

    def place(match: re.Match[str]) -> str:
        key = (match["key"] or "").rstrip(":").strip("'") if match["verb"] else None
        found = _place(control, match["name"], key)
        return match[0].replace(f"setting routing.{match['name']}", found, 1) if found else match[0]

    return _SETTING.sub(place, text)


def _place(control: Control, name: str, key: str | None) -> str:
    """The file, and the line that has ``key``; empty if no file says what the setting is."""
    source = _OF_ROUTING.get(name)
    if source is None or source.setting in control.told:
        return ""
    files = Files(control.directory, {})
    there = [each for each in source.files if control.stamps.get(each) is not None]
    if not there:
        return f"{files.place('me')}, for want of {name}," if source.default else ""
    if key is not None:
        for each in there:
            number = _line_of(files, each, key)
            if number is not None:
                return files.place(each, number)
    return files.place(there[0])


def _line_of(files: Files, name: str, key: str) -> int | None:
    """The number of the line that has ``key``: the last one, which is the one that counts."""
    numbers = [
        line.number for line in files.lines(name) or () if fold(line.text.partition(":")[0]) == key
    ]
    return numbers[-1] if numbers else None

"""The restante.toml that ``restante init`` writes: every setting, explained, at its default.

Explanations begin with ``# ``; settings at their default with ``#`` alone, so that
removing that one character sets them.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping

from restante.config.catalog import Section, Setting, catalog

WIDTH = 88

_HEADER = """\
# The settings of this Restante instance. docs/settings.md explains them too.
#
# A line that begins with # and a name shows a default: remove the # to change it.
# Each setting can be overridden from the environment as RESTANTE_SECTION__NAME,
# lists and tables as JSON. Relative paths start at the directory of this file.
# After a change: restante check, then send SIGHUP to the server.

# A qmail control directory to take settings from that are not set here. Empty: none.
#control = ""
"""


def render(overrides: Mapping[str, Mapping[str, object]]) -> str:
    """The text of restante.toml in which ``overrides[section][name]`` are set."""
    lines = _HEADER.splitlines()
    for section in catalog().values():
        lines += _section_lines(section, overrides.get(section.name, {}))
    return "\n".join(lines) + "\n"


def to_toml(value: object) -> str:
    """A setting's value as restante.toml writes it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(to_toml(entry) for entry in value)}]"
    if isinstance(value, Mapping):
        pairs = [f"{to_toml(key)} = {to_toml(entry)}" for key, entry in value.items()]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _section_lines(section: Section, overrides: Mapping[str, object]) -> Iterator[str]:
    yield ""
    yield from _comment(section.doc)
    yield f"[{section.name}]"
    for setting in section.settings.values():
        yield ""
        yield from _comment(f"{setting.doc}{_range_note(setting)}")
        if setting.name in overrides:
            yield f"{setting.name} = {to_toml(overrides[setting.name])}"
        else:
            yield f"#{setting.name} = {to_toml(setting.default)}"


def _range_note(setting: Setting) -> str:
    text = range_text(setting)
    return f" ({text})" if text else ""


def range_text(setting: Setting) -> str:
    """The legal range in words, empty where the setting names none."""
    if setting.low is not None and setting.high is not None:
        return f"{setting.low} to {setting.high}"
    return "" if setting.low is None else f"at least {setting.low}"


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"

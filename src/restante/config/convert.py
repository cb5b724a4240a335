"""From what TOML or the environment says to the type that a setting has.

All functions raise WrongValue with a text that follows the setting's name and
a colon: ``"ten" is not a whole number``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from restante.config.catalog import Setting
from restante.config.tree import HostPort

MAX_NUMBER = 2**53
"""The greatest number in settings that name no bound of their own."""
MAX_SHOWN = 60
"""Characters of a wrong value that an error message repeats."""

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_NO_CHARACTER = re.compile(r"[\ud800-\udfff]")
"""What octets of the environment become that are no UTF-8, and what JSON may write as an escape."""
_NOUNS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string in quotes"}


class WrongValue(ValueError):
    """A setting cannot have this value; the text says why."""


def convert(setting: Setting, value: object) -> Any:
    """The value of a setting as TOML gives it, in the setting's own type and range."""
    if setting.has_lines and isinstance(value, str):
        return "\n".join(map(_convert_string, value.split("\n")))
    converted = _convert(setting.kind, value)
    if setting.kind in (int, float):
        _check_range(setting, converted)
    return converted


def convert_text(setting: Setting, text: str) -> Any:
    """The value of a setting as the environment gives it: plain, or JSON for lists and tables."""
    return convert(setting, _from_text(setting.kind, text))


def _from_text(kind: Any, text: str) -> object:
    if kind is str or get_origin(kind) is Literal:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return _from_json(kind, text)


def _from_json(kind: Any, text: str) -> object:
    example = '["one", "two"]' if get_origin(kind) is tuple else '{"key": "value"}'
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise WrongValue(f"{shown(text)} is not JSON; write it as {example}") from None


def _convert(kind: Any, value: object) -> Any:
    origin = get_origin(kind)
    if origin is tuple:
        return _convert_list(get_args(kind)[0], value)
    if origin is Literal:
        return _convert_choice(get_args(kind), value)
    if origin is Mapping:
        return _convert_table(value)
    if kind is HostPort:
        return _convert_host_port(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise WrongValue(f"{shown(value)} is neither true nor false")
        return value
    if kind is str:
        return _convert_string(value)
    return _convert_number(kind, value)


def _convert_string(value: object) -> str:
    if not isinstance(value, str):
        raise WrongValue(f"{shown(value)} is not {_NOUNS[str]}")
    if _CONTROL_CHARACTER.search(value):
        raise WrongValue(f"{shown(value)} holds a control character")
    if _NO_CHARACTER.search(value):
        raise WrongValue(f"{shown(value)} is not UTF-8")
    return value


def _convert_number(kind: Any, value: object) -> Any:
    accepted = isinstance(value, int) or (kind is float and isinstance(value, float))
    if isinstance(value, bool) or not accepted:
        raise WrongValue(f"{shown(value)} is not {_NOUNS[kind]}")
    return value


def _check_range(setting: Setting, value: float) -> None:
    low = -MAX_NUMBER if setting.low is None else setting.low
    high = MAX_NUMBER if setting.high is None else setting.high
    if isinstance(value, float) and math.isnan(value):  # an int may be too large for a float
        raise WrongValue("nan is not a number")
    if value < low:
        raise WrongValue(f"{shown(value)} is too small; {low} is the least")
    if value > high:
        raise WrongValue(f"{shown(value)} is too large; {high} is the most")


def _convert_list(kind: Any, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise WrongValue(f"{shown(value)} is not a list; write it in [brackets]")
    return tuple(_convert(kind, entry) for entry in value)


def _convert_table(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise WrongValue(f"{shown(value)} is not a table; write it in {{braces}}")
    return {_convert_string(key): _convert_string(entry) for key, entry in value.items()}


def _convert_choice(choices: tuple[str, ...], value: object) -> str:
    if isinstance(value, str) and value in choices:
        return value
    named = ", ".join(each or "empty" for each in choices)
    raise WrongValue(f"{shown(value)} is not one of {named}")


def _convert_host_port(value: object) -> HostPort:
    text = _convert_string(value)
    try:
        return HostPort.parse(text)
    except ValueError as error:
        raise WrongValue(f"{shown(value)} {error}") from None


def shown(value: object) -> str:
    """A value as an error message repeats it: short, on one line, in TOML's or JSON's words."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = "the value"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."

"""SASLprep (RFC 4013): names and passwords prepared so that they can be compared.

What the profile maps is mapped, what it prohibits is an error, and code points that
Unicode 3.2 did not assign are prohibited as well, as for stored strings.
"""

from __future__ import annotations

import stringprep
import unicodedata
from collections.abc import Callable

_PROHIBITED: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)
"""RFC 4013 §2.3 and §2.5."""


class NotPrepared(ValueError):
    """The string holds what no name and no password may hold."""


def saslprep(text: str) -> str:
    """``text`` prepared; raises NotPrepared."""
    if text.isascii() and text.isprintable():
        return text  # as nearly all are, and none of these is changed
    mapped = "".join(_mapped(character) for character in text)
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(table(character) for character in prepared for table in _PROHIBITED):
        raise NotPrepared("a prohibited character")
    _check_direction(prepared)
    return prepared


def _mapped(character: str) -> str:
    """Spaces beyond ASCII are a space, and some characters are nothing (RFC 4013 §2.1)."""
    if stringprep.in_table_c12(character):
        return " "
    return "" if stringprep.in_table_b1(character) else character


def _check_direction(prepared: str) -> None:
    """Text from right to left begins and ends so, and holds none of the other (RFC 3454 §6)."""
    if not any(stringprep.in_table_d1(character) for character in prepared):
        return
    ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
    if not ends or any(stringprep.in_table_d2(character) for character in prepared):
        raise NotPrepared("directions are mixed")

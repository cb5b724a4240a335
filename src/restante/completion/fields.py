"""A header block as a list of fields (RFC 5322 §2.2), each of which can be put back as it was."""

from __future__ import annotations

import re
from typing import NamedTuple

# A field name is printable ASCII without colon (RFC 5322 §3.6.8); white space before the colon is
# obsolete (§4.5) and met. What begins with white space continues the field (§2.2.3).
_FIELD = re.compile(rb"([!-9;-~]{1,998})[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*")


class Field(NamedTuple):
    """One header field."""

    name: bytes
    """In lower case."""
    raw: bytes
    """All of it as it stands, its last LF included."""

    @property
    def text(self) -> str:
        """What follows the colon, folds and last LF included; octets that are not UTF-8 survive."""
        return self.raw.partition(b":")[2].decode("utf-8", "surrogateescape")

    def with_text(self, text: str) -> Field:
        """The same field with another text, which ends in LF."""
        head = self.raw.partition(b":")[0]
        return Field(self.name, head + b":" + text.encode("utf-8", "surrogateescape"))


def split_header(message: bytes) -> tuple[list[Field], int]:
    """The fields at the beginning of ``message``, and where they end.

    The header ends before the first line that is no field: the empty line, or a body that
    nothing parts from its header. Every line up to there ends in LF.
    """
    fields = []
    end = 0
    while match := _FIELD.match(message, end):
        fields.append(Field(match.group(1).lower(), match.group()))
        end = match.end()
    return fields, end

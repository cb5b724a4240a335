"""How commands print: JSON, tables on a terminal, tab-separated lines in a pipe."""

from __future__ import annotations

import codecs
import io
import json
import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout, suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: object) -> None:
    """One JSON value, indented."""
    print(_json(value))


def print_json_list(values: Iterable[object]) -> None:
    """One JSON list, as ``print_json`` prints it, with one of its values in memory at a time."""
    before = "[\n"
    for value in values:
        text = _json(value)
        print(before + textwrap.indent(text, "  "), end="")
        before = ",\n"
    print("[]" if before == "[\n" else "\n]")


def _json(value: object) -> str:
    """What could move the cursor or hide is escaped, as JSON lets it be: others wrote much of it.

    So are octets that were no UTF-8 where they came from, and all that is not ASCII where output
    is not in UTF-8, which JSON must be.
    """
    is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
    text = json.dumps(value, indent=2, ensure_ascii=not is_utf8)
    return "\n".join(
        line if line.isprintable() else "".join(map(_escaped, line)) for line in text.split("\n")
    )


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[object]], *, as_json: bool) -> None:
    """A list: JSON objects; a table with its heads on a terminal; else tabs and no heads.

    But for a table, whose columns are as wide as their cells, each row is printed as it comes.
    """
    if as_json:
        print_json_list(dict(zip(columns, row, strict=True)) for row in rows)
    elif sys.stdout.isatty():
        if all_rows := list(rows):
            _print_table(columns, all_rows)
    else:
        for row in rows:
            print("\t".join(one_line(cell) for cell in row))


def print_record(record: dict[str, Any], *, as_json: bool) -> None:
    """One thing: a JSON object, or a line for each of its parts."""
    if as_json:
        print_json(record)
        return
    width = max(len(name) for name in record) + 2
    for name, value in record.items():
        text = ", ".join(map(one_line, value)) if isinstance(value, list) else one_line(value)
        print(f"{name + ':':{width}}{text}")


def one_line(value: object) -> str:
    """A cell's text, in which nothing can pass for the next cell or move the cursor."""
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def remark(text: str) -> None:
    """Say on standard error what is no part of the answer, and so must not end the work."""
    with suppress(OSError):
        print(f"restante: {one_line(text)}", file=sys.stderr)


def have_ready() -> None:
    """Load now what printing would load, for who is about to lose the right to read it."""
    codecs.lookup("unicode_escape")
    if sys.stdout.isatty():
        fit("\N{HORIZONTAL ELLIPSIS}", 0)  # its width is in tables that are loaded then
        with redirect_stdout(io.StringIO()):
            _print_table(["."], [["."]])


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console().print(table, width=shutil.get_terminal_size().columns)  # not 80 if TERM is dumb


def human_size(octets: int) -> str:
    """A size for people: ``999``, ``1.5K``, ``20M``."""
    size = float(octets)
    for unit in ("", "K", "M", "G"):
        if size < 1024:
            return f"{size:.1f}".removesuffix(".0") + unit if size < 10 else f"{size:.0f}{unit}"
        size /= 1024
    return f"{size:.0f}T"


def human_span(seconds: float) -> str:
    """A span for people, in its largest unit and the next: ``59s``, ``2m``, ``3h 20m``, ``4d 1h``.

    So ``3h`` is anything from three hours to a minute more.
    """
    left = max(int(seconds), 0)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number:
            parts.append(f"{number}{unit}")
        if len(parts) == 2 or (parts and not number):
            break
    return " ".join(parts) or "0s"


def human_due(moment: float) -> str:
    """When something is due, seen from now."""
    left = moment - time.time()
    return f"in {human_span(left)}" if left > 0 else "now"


def timestamp(moment: float) -> str:
    """A moment as ISO 8601 in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def fit(text: str, width: int) -> str:
    """``text`` in exactly ``width`` cells of a terminal, cut with an ellipsis if it is longer."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…"


def program() -> str:
    """How this command can be typed again: by its path where the shell would not find it."""
    called = sys.argv[0]
    found = shutil.which("restante")
    is_path = os.path.basename(called) == "restante" and os.path.isfile(called)
    return shlex.quote(called) if is_path and found is None else "restante"


def count(number: int, noun: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

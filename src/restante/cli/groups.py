"""How a group of commands introduces them."""

from __future__ import annotations

import sys
from typing import Any

from typer.core import TyperGroup


class Group(TyperGroup):
    """A group whose help has each command's first sentence whole, in as many lines as it takes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the names and the sentences; typer's own way cuts these to a line each."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(limit=sys.maxsize))
                    for name, command in self.commands.items()
                ]
            )

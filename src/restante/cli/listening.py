"""Where a new instance or a demo listens: one option for each kind of listener."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated

import typer

from restante.cli.context import host_port
from restante.config.listeners import setting_of
from restante.config.tree import HostPort

INITIAL = {
    "submission": HostPort("127.0.0.1", 2587),
    "submissions": HostPort("127.0.0.1", 2465),
    "pop3s": HostPort("127.0.0.1", 2995),
}
"""Where a new instance listens too, besides what is so by default: with its self-signed
certificate there is something to shake hands with."""


def _option(name: str, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        f"--{name}", metavar="HOST:PORT", help=f"Where {what} listens.", show_default=False
    )
    return option


SmtpOption = Annotated[str, _option("smtp", "SMTP")]
SubmissionOption = Annotated[str, _option("submission", "submission with STARTTLS")]
SubmissionsOption = Annotated[str, _option("submissions", "submission over TLS")]
Pop3Option = Annotated[str, _option("pop3", "POP3")]
Pop3sOption = Annotated[str, _option("pop3s", "POP3 over TLS")]


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """What the options say, as text; empty where one was not given."""

    smtp: str = ""
    submission: str = ""
    submissions: str = ""
    pop3: str = ""
    pop3s: str = ""

    def settings(self) -> Iterator[tuple[str, str, tuple[HostPort, ...]]]:
        """Section, name and value for each option that was given; raises OperatorError."""
        for each in fields(self):
            text: str = getattr(self, each.name)
            if text:
                yield *setting_of(each.name), (host_port(text, f"--{each.name}"),)

    def environment(self) -> dict[str, str]:
        """The same as variables that override restante.toml; raises OperatorError."""
        return {
            f"RESTANTE_{section}__{name}".upper(): json.dumps([str(each) for each in value])
            for section, name, value in self.settings()
        }


def usage() -> str:
    """All options, as a message tells of them."""
    return " ".join(f"--{each.name} HOST:PORT" for each in fields(ListenerOptions))

"""The pages on settings and commands say what the code does."""

from __future__ import annotations

from pathlib import Path

import restante.cli.document
import restante.config.document
from restante.sendmail import options

DOCS = Path(__file__).parents[2] / "docs"


def test_settings_page_is_what_the_settings_tree_says() -> None:
    """Mend it with: python -m restante.config.document > docs/settings.md"""
    assert (DOCS / "settings.md").read_text() == restante.config.document.render()


def test_commands_page_is_what_the_commands_say() -> None:
    """Mend it with: python -m restante.cli.document > docs/commands.md"""
    assert (DOCS / "commands.md").read_text() == restante.cli.document.render()


def test_commands_page_has_every_command() -> None:
    page = (DOCS / "commands.md").read_text()

    for command in (
        "init DIR", "serve", "demo", "check", "explain ADDRESS",
        "domain add NAME", "domain list", "domain remove NAME",
        "mailbox add ADDRESS", "mailbox list", "mailbox show ADDRESS",
        "mailbox passwd ADDRESS", "mailbox remove ADDRESS",
        "alias add ADDRESS TARGET", "alias list", "alias remove ADDRESS TARGET",
        "queue list", "queue show ID",
    ):  # fmt: skip
        assert f"## restante {command}" in page


def test_every_option_of_sendmail_is_explained() -> None:
    page = (DOCS / "commands.md").read_text()
    known = options._FLAGS | options._WITH_VALUE | options._WITH_ATTACHED
    assert {letter for letter in known if f"`-{letter}" not in page} == set()

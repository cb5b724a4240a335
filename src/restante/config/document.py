"""``python -m restante.config.document`` writes docs/settings.md from the settings tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from restante.config.catalog import Section, Setting, catalog
from restante.config.template import range_text, to_toml
from restante.config.tree import HostPort

_HEADER = """\
# Settings

Settings live in `restante.toml` in the instance directory; `restante init` writes one in which
every setting stands with its explanation, at its default. `restante --dir DIR check` names all
that is wrong at once. SIGHUP makes a running server read them again.

Every setting can be overridden from the environment as `RESTANTE_SECTION__NAME` (two underscores
between section and name): numbers and strings as they are, booleans as `true` or `false`, lists
and tables as JSON:

    RESTANTE_SMTP__DATABYTES=20971520
    RESTANTE_SMTP__LISTEN='["0.0.0.0:25", "[::]:25"]'
    RESTANTE_ROUTING__ENVNOATHOSTS='{"iain.cx": "babasse.com"}'

A setting, section or such variable that does not exist is an error. `RESTANTE_DIR` names the
instance directory for the commands and is no setting. Relative paths start at the instance
directory.

One line may stand before all sections: `control = "/var/qmail/control"` names a qmail control
directory, of which settings are taken that neither restante.toml nor the environment sets; so do
`restante --control` and `RESTANTE_CONTROL`, which count for more. [qmail.md](qmail.md) tells which
file is which setting.

A file with a password that everybody can read is refused, be it restante.toml or
control/sqlserver (`database.allow_exposed_password`); `init` writes restante.toml with mode 0600.

This page is written by `python -m restante.config.document > docs/settings.md`.
"""

_KINDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "string",
    HostPort: "HOST:PORT",
}


def render() -> str:
    """The whole page."""
    lines = _HEADER.splitlines()
    for section in catalog().values():
        lines += _section(section)
    return "\n".join(lines) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield from ("", f"## [{section.name}]", "", section.doc, "")
    yield "| Setting | Type | Default | Range | Meaning |"
    yield "|---|---|---|---|---|"
    for setting in section.settings.values():
        yield _row(setting)


def _row(setting: Setting) -> str:
    cells = (
        f"`{setting.name}`",
        kind_text(setting.kind),
        f"`{to_toml(setting.default)}`",
        range_text(setting),
        setting.doc.replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |"


def kind_text(kind: Any) -> str:
    """A setting's type in words."""
    if get_origin(kind) is Literal:
        return " or ".join(each or "empty" for each in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {_KINDS[get_args(kind)[0]]}"
    return _KINDS.get(kind, "table of strings")


if __name__ == "__main__":
    print(render(), end="")

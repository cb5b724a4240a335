"""What the pages name is there: links, settings, commands, files, control files, messages."""

from __future__ import annotations

import ast
import errno
import os
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer

from restante import maillog
from restante.cli.app import app
from restante.config.catalog import catalog
from restante.config.control import SOURCES

TOP = Path(__file__).parents[2]
SOURCE = TOP / "src" / "restante"
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
SECTIONS = catalog()
SETTINGS = {f"{section}.{name}" for section, it in SECTIONS.items() for name in it.settings}
FILES = {"queue.db"}
"""Names that look like settings and are none."""

each_page = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


def prose(page: Path) -> str:
    """A page without its blocks between fences."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text())


def quoted(page: Path) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def anchors(page: Path) -> set[str]:
    """The heads of a page as links name them."""
    heads = re.findall(r"(?m)^#+ (.*)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        if not name.startswith("https:"):
            there = page.parent / name if name else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_every_page_is_in_the_list_of_the_readme() -> None:
    listed = re.findall(r"(?m)^- \[docs/(\S+)\]\(docs/\1\): ", PAGES[0].read_text())
    assert sorted(listed) == [page.name for page in PAGES[1:]]


@each_page
def test_settings_exist(page: Path) -> None:
    named = {name for name in quoted(page) if re.fullmatch(r"[a-z0-9]+\.[a-z0-9_]+", name)}
    settings = {name for name in named if name.partition(".")[0] in SECTIONS}
    rooms = {name for name in settings if list(SOURCE.glob(name.replace(".", "/") + "*"))}
    assert settings - SETTINGS - rooms - FILES == set()


@each_page
def test_variables_exist(page: Path) -> None:
    named = {
        f"{section}.{name}".lower()
        for section, name in re.findall(r"\bRESTANTE_([A-Z0-9]+)__([A-Z0-9_]+)", page.read_text())
    }
    assert named - SETTINGS - {"section.name"} == set()


@each_page
def test_files_of_the_repository_exist(page: Path) -> None:
    named = re.findall(r"\b(?:docs|tests|packaging|bench|scripts)/[\w./*-]*\w", page.read_text())
    assert [name for name in named if not list(TOP.glob(name))] == []


def test_files_behind_the_rfcs_exist() -> None:
    rows = re.findall(r"(?m)^\| [^|]+ \| [^|]+ \| ([^|]+) \| ", (TOP / "docs/rfc.md").read_text())
    names = {name for row in rows for name in re.findall(r"`([\w/]+(?:\*?\.py|/))`", row)}
    assert len(names) > 50
    assert [name for name in names if not list(SOURCE.rglob(name.rstrip("/")))] == []


def test_every_room_is_in_the_table_of_the_architecture() -> None:
    page = (TOP / "docs" / "architecture.md").read_text().partition("## The rooms")[2]
    first_cells = re.findall(r"(?m)^\| (`[^|]+) \|", page.partition("\n## ")[0])
    told = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert told == {room for room in rooms if not room.startswith("__")}


# Commands


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words behind ``restante`` in blocks and in backticks."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"(?m)^ {4}(?:\S*\$ )?(.*)$", text) + quoted(page)
    for line in lines:
        for found in re.findall(
            r"(?:^|[|;] *|bin/|restante |exec(?: -it)? mail )restante (.*)", line
        ):
            lexer = shlex.shlex(found, posix=True, punctuation_chars="|;&<>")
            lexer.whitespace_split = True
            yield list(takewhile(lambda word: word.strip("|;&<>"), lexer))


def follow(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the options behind it; None where they name none."""
    command: Any = typer.main.get_command(app)
    given: list[str] = []
    while words:
        word, *words = words
        if word.startswith("-"):
            given.append(word.partition("=")[0])
        elif hasattr(command, "commands") and word in command.commands:
            command = command.commands[word]
        elif hasattr(command, "commands") and not given:
            return None, [word]
    return command, given


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    known_to_all = {name for entry in typer.main.get_command(app).params for name in entry.opts}
    for words in command_lines(page):
        command, given = follow(words)
        assert command is not None, words
        known = {name for entry in command.params for name in entry.opts} | {"--help"}
        assert set(given) <= known | known_to_all, words


# Pages that tell what the code holds


def test_control_files_of_the_qmail_page() -> None:
    """All that are read, with their settings, and whether a change counts without a signal."""
    page = (TOP / "docs" / "qmail.md").read_text()
    rows = re.findall(r"(?m)^\| (`[^|]+`) \| ([^|]*) \| [^|]* \| ([^|]*) \|$", page)
    told = {
        file: (setting, at) for files, setting, at in rows for file in re.findall(r"`(\w+)`", files)
    }
    assert set(told) == {file for source in SOURCES for file in source.files}
    for source in SOURCES:
        for file in source.files:
            setting, at = told[file]
            section, name = source.setting
            assert f"`{section}.{name}`" in setting or setting.startswith(f"under `{section}`")
            assert (at == "SIGHUP") is not source.live, file


def texts() -> str:
    """All string literals of the program, parts of f-strings side by side."""
    nodes = (
        node for path in SOURCE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
    )
    found = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return "\n".join([*map(str, found), os.strerror(errno.EADDRINUSE)])


OPERATING = TOP / "docs" / "operating.md"
NOT_OURS = "No module named 'restante'\nstatus=203/EXEC"
"""What Python and systemd say where there is nothing to be started."""


def test_what_a_server_that_does_not_start_says() -> None:
    table = OPERATING.read_text().partition("## The server does not start")[2].partition("## ")[0]
    first_cells = re.findall(r"(?m)^\| (.*`.*) \| ", table)
    said = [each for cell in first_cells for each in re.findall(r"`([^`]+)`", cell)]
    known = f"{texts()}\n{NOT_OURS}"
    assert len(said) > 8
    assert [each for each in said if each not in known] == []


def test_events_that_the_operator_is_told_to_look_for() -> None:
    named = {name for name in quoted(OPERATING) if re.fullmatch(r"[a-z]+(_[a-z]+)+", name)}
    events = {name for name in vars(maillog) if not name.startswith("_")} | {"log_lost"}
    metrics = {name for name in named if name.startswith("restante_")}
    assert named - metrics - events == set()
    log = (TOP / "docs" / "log.md").read_text()
    assert [name for name in metrics if f"| `{name}` |" not in log] == []

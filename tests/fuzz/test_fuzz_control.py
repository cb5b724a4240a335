"""Whatever a control file holds, it becomes settings, or ConfigurationError names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.config.control import SOURCES
from restante.config.control_files import Files
from restante.config.load import load
from restante.config.tree import Settings
from restante.directory.engine import parse_url
from restante.errors import ConfigurationError
from restante.relay.routes import Routes
from restante.routing.site import Site

NAMES = sorted({name for source in SOURCES for name in source.files})
TOKENS = st.sampled_from(
    [
        "a.example",
        ".b",
        "ann@c.example",
        "@",
        ":",
        "[192.0.2.1]",
        ":25",
        "#",
        " ",
        "\t",
        "\r",
        "\x00",
        "0",
        "99999999999999999999",
        "-1",
        "é",
        "login ",
        "password ",
        "port ",
        "db ",
        "%",
        "./",
        "&x",
    ]
)
LINES = st.lists(st.lists(TOKENS, max_size=5).map("".join), max_size=6)
OCTETS = LINES.map(lambda lines: "\n".join(lines).encode()) | st.binary(max_size=200)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples, for making one takes longer than reading it."""
    directory = tmp_path_factory.mktemp("instance") / "control"
    directory.mkdir()
    return directory


@given(st.dictionaries(st.sampled_from(NAMES), OCTETS, max_size=3))
def test_any_octets_are_taken_or_refused(control: Path, files: dict[str, bytes]) -> None:
    for file in control.iterdir():
        file.unlink()
    for name, octets in ({"me": b"mx.example.com\n"} | files).items():
        (control / name).write_bytes(octets)
        (control / name).chmod(0o600)
    problems: list[str] = []
    try:
        usable(load(str(control.parent), {}, str(control)))
    except ConfigurationError as refused:
        problems = refused.problems
    named = {text.removeprefix(f"{control}/").partition(":")[0] for text in problems}
    assert named <= files.keys(), problems


def usable(settings: Settings) -> None:
    """What is made of the settings can be made."""
    Site(settings.routing, settings.hostname)
    Routes(settings.routing.smtproutes)
    parse_url(settings.database.url, settings.directory)


@given(OCTETS)
def test_lines_are_those_of_the_file(control: Path, octets: bytes) -> None:
    """Each line is where its number says, but for blanks at its end."""
    (control / "locals").write_bytes(octets)
    lines = Files(str(control), {}).lines("locals") or []

    for line in lines:
        assert octets.split(b"\n")[line.number - 1].rstrip(b" \t") == line.text.encode()
        assert not line.text.startswith("#")

"""The container file names what is there, and does what docs/container.md says it does.

Whether it builds is for a machine that has a container engine and its base image to say.
"""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path

from restante.cli.app import app
from restante.cli.listening import INITIAL
from restante.config.tree import Pop3, Smtp

TOP = Path(__file__).parents[2]
IGNORED = (TOP / ".dockerignore").read_text()


def instructions() -> list[tuple[str, str]]:
    """Keyword and rest of each instruction, its continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", (TOP / "Containerfile").read_text()).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def the(keyword: str) -> str:
    """The last one of its kind, which is the one in force."""
    return [rest for word, rest in instructions() if word == keyword][-1]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = [
        name
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from=")
        for name in rest.split()[:-1]
    ]

    assert copied
    kept = re.findall(r"(?m)^!(.*)$", IGNORED)
    for name in copied:
        assert (TOP / name).exists()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in kept)


def test_it_does_not_run_as_root() -> None:
    uid, _, gid = the("USER").partition(":")

    assert int(uid) >= 10000
    assert int(gid) >= 10000
    assert f"--uid {uid} " in " ".join(rest for word, rest in instructions() if word == "RUN")


def test_its_commands_exist() -> None:
    names = {command.name for command in app.registered_commands}
    health = json.loads(the("HEALTHCHECK").partition("CMD ")[2])

    assert json.loads(the("ENTRYPOINT")) == ["restante"]
    assert set(json.loads(the("CMD"))) <= names
    assert health[0] == "restante"
    assert set(health[1:]) <= names


def test_its_ports_are_those_of_a_new_instance() -> None:
    listening = [*Smtp().listen, *Pop3().listen, *INITIAL.values()]

    assert set(map(int, the("EXPOSE").split())) == {address.port for address in listening}
    page = (TOP / "docs" / "container.md").read_text()
    assert all(f":{port} " in page for port in the("EXPOSE").split())


def test_the_volume_is_the_instance() -> None:
    assert the("VOLUME") == the("WORKDIR") == re.findall(r"RESTANTE_DIR=(\S+)", the("ENV"))[0]

"""``check`` and a database that others hear by the network, or read where it lies."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Sequence

import pytest

from restante.cli.check.findings import Findings
from restante.cli.check.servers import examine_servers, examine_version
from restante.config.tree import Database, Settings
from restante.directory.engine import MYSQL, Row, Statement, Value
from tests.support.owner import only_root
from tests.support.shell import Shell

FAR = "192.0.2.7"
"""An address of nobody (RFC 5737); a single server is not asked here."""


def advice(url: str) -> list[str]:
    findings = Findings()
    examine_servers(Settings(directory="/", database=Database(url=url)), findings)
    assert findings.problems == []
    return findings.advice


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///restante.db",
        "mysql://u:p@/mail?unix_socket=/s",
        "mysql://u:p@localhost/mail",
        "mysql://u:p@127.0.0.2:3307/mail",
        "mysql://u:p@[::1]/mail",
        f"mysql://u:p@{FAR}/mail?ssl_mode=REQUIRED",
        f"mysql://u:p@{FAR}/mail?ssl_ca=/ca.pem",
    ],
)
def test_what_nobody_else_hears_is_no_matter(url: str) -> None:
    assert advice(url) == []


@pytest.mark.parametrize("host", [FAR, "[2001:db8::7]", "[::ffff:192.0.2.7]"])
def test_clear_text_to_another_host_is_named(host: str) -> None:
    (said,) = advice(f"mysql://u:secret@{host}/mail")
    assert said == (
        "database.url: mail addresses and password hashes go in clear text between here and "
        f"{host.strip('[]')}; add ?ssl_mode=VERIFY_IDENTITY, and ssl_ca for an authority of your "
        "own, unless nobody else hears that network"
    )


@only_root
@pytest.mark.parametrize("mode", [0o644, 0o604])
def test_a_file_that_everybody_can_read_is_named(hosted: Shell, mode: int) -> None:
    file = hosted.directory / "restante.db"
    assert hosted.json("check")["problems"] == []
    file.chmod(mode)
    (said,) = json.loads(hosted("check", "--json").out)["problems"]
    assert said == (
        f"database.url: {file} holds password hashes and everybody can read it; "
        f"run: chmod o-rwx {file}"
    )


def test_a_file_that_nobody_reaches_may_be_everybodys_to_read(hosted: Shell) -> None:
    hosted.directory.chmod(0o700)
    (hosted.directory / "restante.db").chmod(0o644)
    said = json.loads(hosted("check", "--json").out)["problems"]
    assert not any("everybody" in each for each in said)


@only_root
def test_a_file_of_the_workers_own_is_named(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where root starts a server that its own user has started before."""
    monkeypatch.setenv("RESTANTE_SERVER__USER", "nobody")
    file = hosted.directory / "restante.db"
    os.chown(file, pwd.getpwnam("nobody").pw_uid, -1)
    said = hosted.json("check")["advice"]
    assert (
        f"database.url: {file} belongs to the workers' user, so that whoever took one over could "
        f"make accounts; run: chown root: {file}"
    ) in said


class Calling:
    """The engine of a server that calls itself something."""

    dialect = MYSQL
    concurrency = 1

    def __init__(self, version: str) -> None:
        self._version = version

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        return [(self._version,)]

    async def transaction(self, statements: Sequence[Statement]) -> list[int]:
        raise NotImplementedError

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("5.5.68-MariaDB", "MariaDB 10.11"),
        ("10.1.48-MariaDB-0+deb9u2", "MariaDB 10.11"),
        ("10.11.6-MariaDB-0+deb12u1", ""),
        ("11.8.2-MariaDB", ""),
        ("5.7.44-log", "MySQL 8.0"),
        ("8.0.36-28", ""),
        ("9.7.0", ""),
        ("no number", ""),
    ],
)
async def test_a_server_older_than_those_tried_is_named(version: str, said: str) -> None:
    findings = Findings()
    await examine_version(Calling(version), findings)
    assert findings.problems == []
    assert len(findings.advice) == bool(said)
    assert all(version in each and f"before {said} " in each for each in findings.advice)

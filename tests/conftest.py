"""Fixtures that any test may use."""

from __future__ import annotations

import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from hypothesis import settings

from restante.auth.schemes import Argon2Cost, hash_password
from restante.eventlog import NOWHERE, log
from tests.support.instance import ANY_PORTS, NOBODY
from tests.support.mariadb import MariaDB, start_mariadb
from tests.support.shell import Shell

# A busy machine is not a bug: no test fails for the time an example took.
settings.register_profile("restante", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=50_000)
settings.load_profile("restante")

# What the command line is parsed by takes longer to make than most commands do.
typer.main.get_command = functools.cache(typer.main.get_command)

PASSABLE = 0o711
"""Mode of all temporary directories where root runs the tests: a server's workers are another
user, and must get to its instance, while pytest makes directories that only root can enter."""
CHEAPLY = functools.partial(hash_password, cost=Argon2Cost(passes=1, memory=8, lanes=1))
"""Hashes a password in no time."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put temporary directories where other users can pass."""
    if os.geteuid() == 0 and not config.option.basetemp:
        base = tempfile.mkdtemp(prefix="restante-tests-")
        os.chmod(base, PASSABLE)
        config.option.basetemp = os.path.join(base, "tmp")
        config.add_cleanup(lambda: shutil.rmtree(base, ignore_errors=True))


@pytest.fixture(scope="session", autouse=True)
def passable_directories(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let other users pass every temporary directory, as they can /srv."""
    if os.geteuid() != 0:
        return
    base = tmp_path_factory.getbasetemp()
    for directory in (base.parent, base):
        if not directory.stat().st_mode & stat.S_ISVTX:  # /tmp, if --basetemp lies right in it
            directory.chmod(PASSABLE)
    make = tmp_path_factory.mktemp

    def make_passable(basename: str, numbered: bool = True) -> Path:
        path = make(basename, numbered)
        path.chmod(PASSABLE)
        return path

    tmp_path_factory.mktemp = make_passable  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """A MariaDB server of this test process, shared by its tests."""
    server = start_mariadb()
    yield server
    server.remove()


@pytest.fixture
def mariadb_url(mariadb_server: MariaDB) -> str:
    """The URL of a fresh, empty MariaDB database."""
    return mariadb_server.url(mariadb_server.new_database())


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'restante.db'}"


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, empty database, on every engine in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    """A shell without an instance yet."""
    monkeypatch.delenv("RESTANTE_DIR", raising=False)
    monkeypatch.setattr("restante.auth.schemes.hash_password", CHEAPLY)
    if os.geteuid() == 0:  # whatever users this machine has
        monkeypatch.setenv("RESTANTE_MAIL__USER", NOBODY)
    yield Shell(tmp_path / "instance", capsys, monkeypatch)
    log.destination = NOWHERE


@pytest.fixture
def hosted(shell: Shell) -> Shell:
    """An instance that hosts example.com, with a mailbox."""
    made = shell.bare("init", str(shell.directory), "--host", "mx.example.com", *ANY_PORTS)
    assert made.code == 0, made.err
    assert shell("domain", "add", "example.com").code == 0
    assert shell.add_mailbox("iain@example.com").code == 0
    return shell

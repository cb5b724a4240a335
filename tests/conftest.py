"""Fixtures that any test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from tests.support.instance import ANY_PORTS
from tests.support.mariadb import MariaDB, start_mariadb
from tests.support.shell import Shell

# A busy machine is not a bug: no test fails for the time an example took.
settings.register_profile("restante", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=50_000)
settings.load_profile("restante")


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
    yield Shell(tmp_path / "instance", capsys, monkeypatch)
    structlog.reset_defaults()


@pytest.fixture
def hosted(shell: Shell) -> Shell:
    """An instance that hosts example.com, with a mailbox."""
    made = shell.bare("init", str(shell.directory), "--host", "mx.example.com", *ANY_PORTS)
    assert made.code == 0, made.err
    assert shell("domain", "add", "example.com").code == 0
    assert shell.add_mailbox("iain@example.com").code == 0
    return shell

"""Restante, on MariaDB or on its own SQLite file."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.accounts import (
    DOMAIN,
    Accounts,
    insert_into_sqlite,
    insertions,
    owner,
    restante_rows,
)
from bench.processes import Components
from bench.systems.mariadb import Database
from bench.systems.system import System, wait_for_greeting
from restante.tls.certificate import PairFiles
from tests.support.instance import Instance, new_instance


@contextlib.contextmanager
def restante(
    components: Components,
    directory: Path,
    accounts: Accounts,
    database: Database | None = None,
    *,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
    name: str = "restante",
    uid: int | None = None,
    certificate: PairFiles | None = None,
) -> Iterator[System]:
    """Running in ``directory``, which is made; without a database, with SQLite.

    All mail belongs to the user whom the workers become, so that they write and read it
    themselves; ``uid`` is another owner, for whom helpers do that. Without a ``certificate``
    TLS has the one that ``restante init`` makes.
    """
    component = components.new("restante")
    owners = owner() if uid is None else (uid, uid)
    settings = {**(settings or {}), **_pair(certificate)}
    with prepared(directory, accounts, database, workers, settings, owners) as instance:
        instance.within = component.prefix
        instance.start()
        assert instance.process is not None
        component.adopt(instance.process.pid)
        wait_for_greeting(instance.smtp_port, b"220", instance.log_file)
        used = (component, database.component) if database else (component,)
        yield System(
            name,
            used,
            directory / "mail",
            owners,
            instance.log_file,
            instance.smtp_port,
            instance.pop3_port,
            instance.port("pop3s"),
        )
        instance.stop()


@contextlib.contextmanager
def prepared(
    directory: Path,
    accounts: Accounts,
    database: Database | None = None,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
    owners: tuple[int, int] | None = None,
) -> Iterator[Instance]:
    """An instance with its accounts that has not been started."""
    owners = owners or owner()
    environ = {"RESTANTE_SERVER__WORKERS": str(workers), **_user(), **(settings or {})}
    place = database.server.new_database() if database else ""
    url = database.server.url(place, tcp=True) if database else ""
    with new_instance(directory, database=url, environ=environ, domains=(DOMAIN,)) as instance:
        mail = directory / "mail"
        os.chown(mail, *owners)
        rows = restante_rows(accounts, mail, *owners)
        if database is None:
            insert_into_sqlite(directory / "restante.db", rows)
        else:
            database.server.sql("".join(insertions(rows)), place)
        yield instance


def _pair(certificate: PairFiles | None) -> dict[str, str]:
    if certificate is None:
        return {}
    return {
        "RESTANTE_TLS__CERTIFICATE": certificate.certificate,
        "RESTANTE_TLS__KEY": certificate.key,
    }


def _user() -> dict[str, str]:
    """Whom the workers become: the owner of all mail, see ``bench.accounts.owner``."""
    if os.geteuid() != 0:
        return {}
    return {"RESTANTE_SERVER__USER": pwd.getpwuid(owner()[0]).pw_name}

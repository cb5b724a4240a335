"""Dovecot's POP3 on the same accounts and the same Maildirs, as it comes or made faster."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.accounts import owner
from bench.processes import Components
from bench.programs import program
from bench.systems.mariadb import READER, Database
from bench.systems.system import NotServingError, System, ended_by_pid, pid_in, wait_for_greeting
from tests.support.serving import free_port

SESSIONS = 2000
"""That it may have at the same time; as it comes a hundred."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Which processes it uses again, and whether it asks the database every time."""

    name: str
    login_again: bool = False
    """A process for logins serves one after another, and many at once ("high-performance mode")."""
    session_again: bool = False
    """A process for sessions serves one after another."""
    auth_cache: bool = False
    """What the database said is believed for an hour."""


AS_IT_COMES = Variant("dovecot as it comes")
LOGINS = Variant("dovecot, logins reused", login_again=True)
REUSED = Variant("dovecot, all reused", login_again=True, session_again=True)
CACHED = Variant("dovecot, reused and cached", True, True, auth_cache=True)


@contextlib.contextmanager
def dovecot(
    components: Components,
    directory: Path,
    database: Database,
    mail: Path,
    variant: Variant,
) -> Iterator[System]:
    """Running in ``directory``, which is made, on the Maildirs below ``mail``."""
    component = components.new("dovecot")
    port = free_port()
    directory.mkdir()
    log = directory / "log"
    configuration = directory / "dovecot.conf"
    configuration.write_text(_configuration(directory, mail, port, variant))
    (directory / "sql.conf").write_text(_sql(database, mail))
    start = [*component.prefix, program("dovecot"), "-c", str(configuration)]
    # A pipe would stay open in the daemon.
    with log.open("ab") as said:
        done = subprocess.run(start, check=False, stdout=said, stderr=said)
    if done.returncode != 0:
        raise NotServingError(f"Dovecot does not start: {log.read_text()[-2000:]}")
    pid = pid_in(directory / "run/master.pid", log)
    with ended_by_pid(pid):
        component.adopt(pid)
        wait_for_greeting(port, b"+OK", log)
        used = (component, database.component)
        yield System(variant.name, used, mail, owner(), log, pop3_port=port)


def _configuration(directory: Path, mail: Path, port: int, variant: Variant) -> str:
    uid, gid = owner()
    login = "service_count = 0\n  process_min_avail = 2" if variant.login_again else ""
    session = "service_count = 10000" if variant.session_again else ""
    return _CONFIGURATION.format(
        directory=directory,
        mail=mail,
        port=port,
        uid=uid,
        gid=gid,
        sessions=SESSIONS,
        login=login,
        session=session,
        cache="10M" if variant.auth_cache else "0",
    )


def _sql(database: Database, mail: Path) -> str:
    uid, gid = owner()
    return _SQL.format(
        port=database.server.port, peers=database.peers, reader=READER, mail=mail, uid=uid, gid=gid
    )


_CONFIGURATION = """base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols = pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_cache_size = {cache}
mail_location = maildir:{mail}/%d/%n/Maildir
first_valid_uid = {uid}
first_valid_gid = {gid}
default_process_limit = {sessions}
default_client_limit = 8000
default_vsz_limit = 1G
passdb {{
  driver = sql
  args = {directory}/sql.conf
}}
userdb {{
  driver = sql
  args = {directory}/sql.conf
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
  {login}
}}
service pop3 {{
  {session}
}}
"""
_SQL = """driver = mysql
connect = host=127.0.0.1 port={port} dbname={peers} user={reader} password={reader}
default_pass_scheme = PLAIN
password_query = SELECT address AS user, password FROM mailboxes WHERE address = '%u'
user_query = SELECT '{mail}/%d/%n' AS home, {uid} AS uid, {gid} AS gid FROM mailboxes \
  WHERE address = '%u'
"""

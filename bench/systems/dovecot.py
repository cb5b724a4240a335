"""Dovecot's POP3 on the same accounts and the same Maildirs, as it comes or made faster.

2.4 reads another configuration than 2.3: what is written here means the same to both.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.accounts import owner
from bench.processes import Components
from bench.programs import program
from bench.systems.mariadb import READER, Database
from bench.systems.system import NotServingError, System, ended_by_pid, pid_in, wait_for_greeting
from restante.tls.certificate import PairFiles
from tests.support.ports import free_port

SESSIONS = 2000
"""That it may have at the same time; as it comes a hundred."""
MAIN = "dovecot.conf"
"""The file that names all others."""


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


@dataclass(frozen=True, slots=True)
class Tls:
    """POP3 over TLS."""

    port: int
    certificate: PairFiles


@contextlib.contextmanager
def dovecot(
    components: Components,
    directory: Path,
    database: Database,
    mail: Path,
    variant: Variant,
    certificate: PairFiles | None = None,
) -> Iterator[System]:
    """Running in ``directory``, which is made, on the Maildirs below ``mail``.

    With a ``certificate`` it serves POP3 over TLS too.
    """
    component = components.new("dovecot")
    port = free_port()
    tls = Tls(free_port(), certificate) if certificate else None
    directory.mkdir()
    log = directory / "log"
    for name, text in configuration(database, directory, mail, port, variant, tls).items():
        (directory / name).write_text(text)
    start = [*component.prefix, program("dovecot"), "-c", str(directory / MAIN)]
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
        pop3s_port = tls.port if tls else 0
        yield System(variant.name, used, mail, owner(), log, pop3_port=port, pop3s_port=pop3s_port)


def configuration(
    database: Database,
    directory: Path,
    mail: Path,
    port: int,
    variant: Variant,
    tls: Tls | None = None,
) -> Mapping[str, str]:
    """Texts by the names of their files, in the syntax of the version that is installed."""
    uid, gid = owner()
    syntax = _SINCE_2_4 if _version() >= (2, 4) else _UNTIL_2_3
    values = {
        "directory": directory,
        "mail": mail,
        "port": port,
        "ssl": syntax.ssl.format_map(asdict(tls.certificate)) if tls else "ssl = no",
        "listener": _LISTENER.format(port=tls.port) if tls else "",
        "uid": uid,
        "gid": gid,
        "sessions": SESSIONS,
        "login": f"{syntax.for_ever}\n  process_min_avail = 2" if variant.login_again else "",
        "session": f"{syntax.served} = 10000" if variant.session_again else "",
        "cache": "10M" if variant.auth_cache else "0",
        "database_port": database.server.port,
        "peers": database.peers,
        "reader": READER,
    }
    return {name: text.format_map(values) for name, text in syntax.files.items()}


def _version() -> tuple[int, ...]:
    """The first two numbers of the installed one's."""
    command = [program("dovecot"), "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    numbers = re.match(r"(\d+)\.(\d+)", said)
    if numbers is None:
        raise NotServingError(f"Dovecot does not tell its version: {said[:200]!r}")
    return tuple(map(int, numbers.groups()))


@dataclass(frozen=True, slots=True)
class _Syntax:
    """How some versions are told what all are told."""

    files: Mapping[str, str]
    served: str
    """The setting for how many clients a process serves, one after another."""
    for_ever: str
    """The same, without an end."""
    ssl: str
    """What is told of TLS, by the names of the certificate's files."""


_LISTENER = """  inet_listener pop3s {{
    port = {port}
    ssl = yes
  }}
"""
_UNTIL_2_3 = _Syntax(
    {
        MAIN: """base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols = pop3
listen = 127.0.0.1
{ssl}
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
{listener}  {login}
}}
service pop3 {{
  {session}
}}
""",
        "sql.conf": """driver = mysql
connect = host=127.0.0.1 port={database_port} dbname={peers} user={reader} password={reader}
default_pass_scheme = PLAIN
password_query = SELECT address AS user, password FROM mailboxes WHERE address = '%u'
user_query = SELECT '{mail}/%d/%n' AS home, {uid} AS uid, {gid} AS gid FROM mailboxes \
  WHERE address = '%u'
""",
    },
    served="service_count",
    for_ever="service_count = 0",
    ssl="ssl = yes\nssl_cert = <{certificate}\nssl_key = <{key}",
)
_SINCE_2_4 = _Syntax(
    {
        MAIN: """dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols = pop3
listen = 127.0.0.1
{ssl}
auth_allow_cleartext = yes
auth_cache_size = {cache}
mail_driver = maildir
mail_path = {mail}/%{{user | domain}}/%{{user | username}}/Maildir
first_valid_uid = {uid}
first_valid_gid = {gid}
default_process_limit = {sessions}
default_client_limit = 8000
default_vsz_limit = 1G
sql_driver = mysql
mysql 127.0.0.1 {{
  port = {database_port}
  dbname = {peers}
  user = {reader}
  password = {reader}
}}
passdb sql {{
  default_password_scheme = PLAIN
  query = SELECT address AS user, password FROM mailboxes WHERE address = '%{{user}}'
}}
userdb sql {{
  query = SELECT '{mail}/%{{user | domain}}/%{{user | username}}' AS home, {uid} AS uid, \
    {gid} AS gid FROM mailboxes WHERE address = '%{{user}}'
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
{listener}  {login}
}}
service pop3 {{
  {session}
}}
"""
    },
    served="restart_request_count",
    for_ever="restart_request_count = unlimited",
    ssl="ssl = yes\nssl_server_cert_file = {certificate}\nssl_server_key_file = {key}",
)

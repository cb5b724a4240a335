"""Exim, from Debian's exim4-daemon-heavy, which can ask MariaDB.

It may not be installed beside Postfix: ``scripts/peers bench`` has unpacked it. An Exim that is
run with a configuration of its own gives up root's rights: all mail belongs to its own user.
"""

from __future__ import annotations

import contextlib
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.processes import Components
from bench.programs import MissingError
from bench.systems.mariadb import READER, Database
from bench.systems.system import ENDING, LOOPBACK, System, wait_for_greeting
from tests.support.ports import free_port

_PROGRAM = Path(__file__).parents[2] / "build/peers/exim-heavy/usr/sbin/exim4"
_RUNS_AS = "Debian-exim"


@contextlib.contextmanager
def exim(components: Components, directory: Path, database: Database) -> Iterator[System]:
    """Running in ``directory``, which is made; raises MissingError."""
    if not _PROGRAM.exists():
        raise MissingError("Exim is missing: as root, scripts/peers bench")
    component = components.new("exim")
    user = pwd.getpwnam(_RUNS_AS)
    owner = (user.pw_uid, user.pw_gid)
    port = free_port()
    for name in ("spool", "mail", "log"):
        (directory / name).mkdir(parents=True)
        shutil.chown(directory / name, _RUNS_AS)
    program = str(shutil.copy(_PROGRAM, directory / "exim4"))
    configuration = directory / "exim.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            directory=directory,
            port=port,
            user=_RUNS_AS,
            server=f"{LOOPBACK}::{database.server.port}/{database.peers}/{READER}/{READER}",
        )
    )
    start = [*component.prefix, program, "-C", str(configuration), "-bdf"]
    said = directory / "said"
    with said.open("wb") as output:  # each delivery says that it has no root's rights
        process = subprocess.Popen(start, stdin=subprocess.DEVNULL, stderr=output)
    try:
        component.adopt(process.pid)
        wait_for_greeting(port, b"220", said)
        used = (component, database.component)
        log = directory / "log" / "mainlog"
        yield System("exim", used, directory / "mail", owner, log, smtp_port=port)
    finally:
        process.terminate()
        process.wait(ENDING)


# As it comes, but for how many connections it takes at a time (20), how many wait to be taken (20),
# and how many messages of one connection it delivers before the next queue run (10): the load has
# more of each.
_CONFIGURATION = """primary_hostname = mail.bench.test
exim_path = {directory}/exim4
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/spool/pid
hide mysql_servers = {server}
keep_environment =
smtp_accept_max = 200
smtp_connect_backlog = 200
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept domains = ${{lookup mysql{{SELECT domain FROM domains \
      WHERE domain = '${{quote_mysql:$domain}}'}}}}
    verify = recipient
begin routers
aliases:
  driver = redirect
  data = ${{lookup mysql{{SELECT destination FROM aliases \
      WHERE source = '${{quote_mysql:$local_part@$domain}}'}}}}
mailboxes:
  driver = accept
  address_data = ${{lookup mysql{{SELECT maildir FROM mailboxes \
      WHERE address = '${{quote_mysql:$local_part@$domain}}'}}{{$value}}fail}}
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = {directory}/mail/$address_data
  maildir_format
  return_path_add
  envelope_to_add
  user = {user}
"""

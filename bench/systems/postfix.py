"""Postfix: virtual(8) writes into the same Maildirs, and accounts are looked up in MariaDB."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.accounts import owner
from bench.processes import Components
from bench.programs import program
from bench.systems.mariadb import READER, Database
from bench.systems.system import (
    LOOPBACK,
    System,
    ended_by_pid,
    pid_in,
    wait_for_greeting,
)
from restante.tls.certificate import PairFiles
from tests.support.ports import free_port

DIRECT, PROXY = "mysql", "proxy:mysql"
"""Every process asks the database itself, or all ask proxymap(8)."""


@contextlib.contextmanager
def postfix(
    components: Components,
    directory: Path,
    database: Database,
    maps: str = PROXY,
    settings: Mapping[str, str] | None = None,
    certificate: PairFiles | None = None,
) -> Iterator[System]:
    """Running in ``directory``, which is made; ``settings`` are more lines of main.cf.

    With a ``certificate`` it offers STARTTLS.
    """
    component = components.new("postfix")
    port = free_port()
    _lay_out(directory, database, maps, port, {**(settings or {}), **_tls(certificate)})
    log = directory / "log"
    start = [*component.prefix, program("postfix"), "-c", str(directory / "conf"), "start"]
    subprocess.run(start, check=True, capture_output=True)
    pid = pid_in(directory / "queue/pid/master.pid", log)
    with ended_by_pid(pid):
        component.adopt(pid)
        wait_for_greeting(port, b"220", log)
        name = f"postfix {maps}:"
        used = (component, database.component)
        yield System(name, used, directory / "mail", owner(), log, smtp_port=port)


def _lay_out(
    directory: Path, database: Database, maps: str, port: int, settings: Mapping[str, str]
) -> None:
    for name in ("conf", "data", "queue", "mail"):
        (directory / name).mkdir(parents=True)
    shutil.chown(directory / "data", "postfix")
    shutil.chown(directory / "mail", *owner())
    conf = directory / "conf"
    for name, query in _QUERIES.items():
        (conf / f"{name}.cf").write_text(
            f"user = {READER}\npassword = {READER}\nhosts = {LOOPBACK}:{database.server.port}\n"
            f"dbname = {database.peers}\nquery = {query}\n"
        )
    uid, gid = owner()
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (conf / "main.cf").write_text(
        _MAIN_CF.format(directory=directory, maps=f"{maps}:{conf}", uid=uid, gid=gid) + more
    )
    (conf / "master.cf").write_text(_MASTER_CF.format(listen=f"{LOOPBACK}:{port}"))


def _tls(certificate: PairFiles | None) -> dict[str, str]:
    """As Debian's main.cf has it."""
    if certificate is None:
        return {}
    return {
        "smtpd_tls_cert_file": certificate.certificate,
        "smtpd_tls_key_file": certificate.key,
        "smtpd_tls_security_level": "may",
    }


_QUERIES = {
    "domains": "SELECT 1 FROM domains WHERE domain = '%s'",
    "mailboxes": "SELECT maildir FROM mailboxes WHERE address = '%s'",
    "aliases": "SELECT destination FROM aliases WHERE source = '%s'",
}
_MAIN_CF = """compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
myhostname = mail.bench.test
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = {maps}/domains.cf
virtual_mailbox_maps = {maps}/mailboxes.cf
virtual_alias_maps = {maps}/aliases.cf
virtual_mailbox_base = {directory}/mail
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtp_dns_support_level = disabled
"""
_MASTER_CF = """{listen} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
tlsmgr unix - - n 1000? 1 tlsmgr
tlsproxy unix - - n - 0 tlsproxy
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
pickup unix n - n 60 1 pickup
postlog unix-dgram n - n - 1 postlogd
"""

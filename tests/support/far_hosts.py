"""The world outside on loopback addresses: nsd for the DNS, Postfix, Exim and smtp-sink for mail.

Each serves in a directory of its own under /tmp, where its unprivileged users may go, and ends
with its test. Postfix and Exim serve as root alone.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from tests.support.certificates import Issued
from tests.support.instance import until
from tests.support.ports import free_port

LOOPBACK = "127.0.0.1"
AS_ROOT = os.geteuid() == 0
EXIM = Path(__file__).parents[2] / "build/peers/exim/usr/sbin/exim4"
"""Where scripts/peers has unpacked Exim."""
_UNPRIVILEGED = "nobody"


class NotInstalledError(Exception):
    """A server that the tests need is not there."""


@contextlib.contextmanager
def _directory(name: str) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f"r{name}-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def _running(command: Sequence[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground, all that it says in a file."""
    with open(directory / "output", "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise NotInstalledError(f"{name} is not installed, and these tests need it: scripts/peers")
    return path


def _greets(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5) as probe:
            return probe.recv(3) == b"220"
    except OSError:
        return False


# The DNS


@contextlib.contextmanager
def nameserver(zone: str, *, broken: Sequence[str] = ()) -> Iterator[int]:
    """nsd with this root zone; its port. It answers SERVFAIL for what is ``broken``."""
    with _directory("dns") as directory:
        port = free_port()
        (directory / "root.zone").write_text(_ROOT + zone)
        zones = [(".", "root.zone"), *((name, "is-not-there") for name in broken)]
        (directory / "nsd.conf").write_text(
            _NSD.format(directory=directory, port=port)
            + "".join(f'zone:\n name: "{name}"\n zonefile: {file}\n' for name, file in zones)
        )
        with _running([_program("nsd"), "-d", "-c", str(directory / "nsd.conf")], directory):
            until(lambda: _answers(port), f"nsd: {(directory / 'output').read_text()}")
            yield port


_ROOT = """$TTL 60
@ SOA ns.example. admin.example. 1 60 60 60 60
@ NS ns.example.
ns.example. A 127.0.0.1
"""
_NSD = """server:
 ip-address: 127.0.0.1@{port}
 username: ""
 chroot: ""
 zonesdir: "{directory}"
 pidfile: "{directory}/nsd.pid"
 zonelistfile: "{directory}/zone.list"
 xfrdfile: "{directory}/xfrd.state"
 xfrdir: "{directory}"
 server-count: 1
remote-control:
 control-enable: no
"""


def _answers(port: int) -> bool:
    try:
        dns.query.udp(dns.message.make_query(".", "SOA"), LOOPBACK, timeout=1, port=port)
    except (dns.exception.DNSException, OSError):
        return False
    return True


# Hosts that deliver


@dataclass(frozen=True, slots=True)
class FarHost:
    """A mail host of another domain. ``user`` is there, ``none`` is not, ``full`` is full."""

    domain: str
    mail: Path
    """Maildirs by local part."""

    def address(self, local: str) -> str:
        """An address at this host."""
        return f"{local}@{self.domain}"

    def messages(self, local: str) -> list[bytes]:
        """What it has delivered."""
        return [path.read_bytes() for path in sorted(self.mail.glob(f"{local}/new/*"))]


@contextlib.contextmanager
def postfix(domain: str, address: str, port: int, certificate: Issued) -> Iterator[FarHost]:
    """Postfix as the host of a domain, with STARTTLS."""
    with _directory("pf") as directory:
        _lay_out_postfix(directory, domain, f"{address}:{port}", certificate)
        command = [_program("postfix"), "-c", str(directory / "conf"), "start-fg"]
        with _running(command, directory), _postfix_master(directory):
            until(lambda: _greets(address, port), "Postfix greets")
            yield FarHost(domain, directory / "mail")


def _lay_out_postfix(directory: Path, domain: str, listen: str, certificate: Issued) -> None:
    for name in ("conf", "data", "queue", "mail"):
        (directory / name).mkdir()
    shutil.chown(directory / "data", "postfix")
    shutil.chown(directory / "mail", _UNPRIVILEGED)
    pem = certificate.key_pem() + certificate.certificate_pem
    (directory / "conf" / "tls.pem").write_bytes(pem)
    (directory / "conf" / "dynamicmaps.cf").touch()
    (directory / "conf" / "main.cf").write_text(
        _MAIN_CF.format(
            directory=directory,
            domain=domain,
            uid=pwd.getpwnam(_UNPRIVILEGED).pw_uid,
        )
    )
    (directory / "conf" / "master.cf").write_text(_MASTER_CF.format(listen=listen))


@contextlib.contextmanager
def _postfix_master(directory: Path) -> Iterator[None]:
    """The master process has a session of its own: it is ended by its pid."""
    try:
        yield
    finally:
        pid = int((directory / "queue/pid/master.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), "Postfix ends")


_MAIN_CF = """compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/data/log
maillog_file_prefixes = {directory}
myhostname = mail.{domain}
mydestination =
alias_maps =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks =
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = inline:{{ {{user@{domain} = user/}} {{full@{domain} = full/}} }}
virtual_mailbox_base = {directory}/mail
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
smtpd_relay_restrictions = permit_auth_destination, reject
smtpd_recipient_restrictions =
 check_recipient_access inline:{{ {{full@{domain} = 452 4.2.2 Mailbox is full}} }},
 reject_unlisted_recipient
smtpd_peername_lookup = no
smtpd_tls_chain_files = {directory}/conf/tls.pem
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
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
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@contextlib.contextmanager
def exim(domain: str, address: str, port: int, certificate: Issued) -> Iterator[FarHost]:
    """Exim as the host of a domain, with STARTTLS."""
    if not EXIM.exists():
        raise NotInstalledError(f"{EXIM} is not there, and these tests need it: scripts/peers")
    with _directory("ex") as directory:
        for name in ("spool", "mail", "log"):
            (directory / name).mkdir()
            shutil.chown(directory / name, "Debian-exim")
        program = str(shutil.copy(EXIM, directory / "exim4"))
        pem = directory / "tls.pem"
        pem.write_bytes(certificate.key_pem() + certificate.certificate_pem)
        shutil.chown(pem, "Debian-exim")
        configuration = directory / "exim.conf"
        configuration.write_text(
            _EXIM.format(directory=directory, domain=domain, address=address, port=port)
        )
        with _running([program, "-C", str(configuration), "-bdf"], directory):
            until(lambda: _greets(address, port), "Exim greets")
            yield FarHost(domain, directory / "mail")


_EXIM = """primary_hostname = mail.{domain}
exim_path = {directory}/exim4
local_interfaces = {address}
daemon_smtp_ports = {port}
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/spool/pid
host_lookup =
keep_environment =
acl_smtp_rcpt = rcpt
tls_certificate = {directory}/tls.pem
tls_advertise_hosts = *
begin acl
rcpt:
  deny domains = ! {domain}
       message = relay not permitted
  deny local_parts = none
       message = 5.1.1 User unknown
  defer local_parts = full
       message = 4.2.2 Mailbox is full
  accept
begin routers
here:
  driver = accept
  local_parts = user : full
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = {directory}/mail/$local_part_data
  maildir_format
  return_path_add
  user = Debian-exim
"""


# Hosts that take everything


@dataclass(frozen=True, slots=True)
class Taken:
    """One message as smtp-sink took it."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Sink:
    """A host that keeps what it has acknowledged, one file a transaction."""

    directory: Path

    def taken(self) -> list[Taken]:
        """All that it has acknowledged, or is about to."""
        taken = []
        for path in self.directory.glob("m.*"):
            # It takes away the file of a transaction whose client has gone meanwhile.
            with contextlib.suppress(FileNotFoundError):
                taken.append(_read_taken(path.read_bytes()))
        return taken


def _read_taken(dump: bytes) -> Taken:
    sender = ""
    recipients = []
    while dump.startswith(b"X-"):
        line, _, dump = dump.partition(b"\n")
        name, _, value = line.decode().partition(": ")
        path = value.partition(" ")[0].strip("<>")
        if name == "X-Mail-Args":
            sender = path
        elif name == "X-Rcpt-Args":
            recipients.append(path)
    return Taken(sender, tuple(recipients), dump)


@contextlib.contextmanager
def smtp_sink(address: str, port: int, *options: str) -> Iterator[Sink]:
    """Postfix's smtp-sink, which accepts everything at once or as ``options`` say."""
    with _directory("sink") as directory:
        command = [_program("smtp-sink"), *options, "-d", str(directory / "m.")]
        if AS_ROOT:
            shutil.chown(directory, _UNPRIVILEGED)
            command += ["-u", _UNPRIVILEGED]
        with _running([*command, f"{address}:{port}", "1000"], directory):
            until(lambda: _greets(address, port), "smtp-sink greets")
            yield Sink(directory)

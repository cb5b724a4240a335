"""Every setting: its name, its type, its default and what it means.

``restante init`` writes restante.toml from this page, docs/settings.md is checked
against it, and each setting can be overridden by ``RESTANTE_SECTION__NAME``.
Those that stand for a qmail control file bear the file's name.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from restante.config.control_files import Stamps
from restante.labels import in_a_labels

MEBIBYTE = 1024 * 1024
MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MAX_WAIT = 36_500 * DAY
"""A hundred years, in seconds: a report names the day on which mail is given up."""
MAX_PORT = 65535
MECHANISMS = ("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")
"""What auth.mechanisms may name."""
TLS_POLICIES = ("none", "may", "encrypt", "verify")
"""Values of relay.tls_policy, from the weakest on."""

_HOST_PORT = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>[0-9]{1,5})", re.ASCII
)


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    hidden: str = "",
    has_lines: bool = False,
) -> Any:
    """A setting's default, its one-paragraph documentation and its legal range.

    ``hidden``: what it must be, where it may hold a password: no trace of the settings and no
    complaint shows it. ``has_lines``: it may be several lines.
    """
    metadata = {"doc": doc, "low": low, "high": high, "hidden": hidden, "has_lines": has_lines}
    if isinstance(default, list | dict):
        kind = tuple if isinstance(default, list) else dict
        frozen = default
        return field(default_factory=lambda: kind(frozen), metadata=metadata, repr=not hidden)
    return field(default=default, metadata=metadata, repr=not hidden)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A TCP address: ``127.0.0.1:2525``, ``[::1]:25``, ``localhost:110``.

    Port 0 lets the system choose.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """The address that ``text`` says; raises ValueError, whose text begins with a verb."""
        match = _HOST_PORT.fullmatch(text)
        if match is not None and int(match["port"]) <= MAX_PORT:
            host = match["literal"] or match["host"]
            with suppress(UnicodeError):
                host.encode("idna")  # as whoever asks the system for its address has to
                return cls(host, int(match["port"]))
        raise ValueError(
            f"is no address to listen on; write HOST:PORT, as in 127.0.0.1:2525 or [::1]:2525, "
            f"with a port from 0 to {MAX_PORT}"
        )

    def __str__(self) -> str:
        """The form in which settings write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Server:
    """The host as a whole."""

    me: str = setting(
        "",
        "The host's name, as it greets and as it writes Received fields (control/me). Empty: the "
        "system's host name.",
    )
    user: str = setting(
        "",
        "The system user whom the workers become when root starts the server, with the groups that "
        "it has then, and who owns what they write: the queue, the drop directory, the figures. "
        "Changes need a new start. Empty: restante if the system "
        "has that user, else nobody. Never root. Started by another user, the server runs as "
        "that one, whatever stands here.",
    )
    workers: int = setting(
        1,
        "Worker processes. Each has all services and a queue of its own; one per core is a good "
        "number.",
        low=1,
        high=256,
    )
    drain_timeout: int = setting(
        20,
        "Seconds that sessions may take for their last command after SIGTERM or SIGHUP.",
        low=0,
        high=HOUR,
    )
    max_connections: int = setting(
        10000, "Connections of all services together that one worker holds.", low=1, high=1000000
    )
    max_connections_per_address: int = setting(
        500,
        "Connections that one worker holds from one IPv4 address or IPv6 /64. 0: no limit.",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class Database:
    """The SQL database of accounts."""

    url: str = setting(
        "sqlite:///restante.db",
        "sqlite:///FILE (relative to the instance directory; sqlite:////absolute/file), or "
        "mysql://user:password@host:port/db, or mysql://user:password@/db?unix_socket=/path. "
        "Special characters are percent-encoded. By TCP, ?ssl_mode=VERIFY_IDENTITY encrypts and "
        "checks who answers, &ssl_ca=/path names the authority that it is of, if the system does "
        "not know that. Several hosts, host:port,host:port, are the nodes of one cluster: the "
        "first that answers is asked, and restante check names the others that do not.",
        hidden="a database URL",
    )
    pool_size: int = setting(
        4, "Connections that one worker keeps to MySQL or MariaDB at the most.", low=1, high=1000
    )
    connect_timeout: float = setting(
        3.0,
        "Seconds to wait for a new connection, and for one that others use: who gets that later is "
        "put off (of more than 9 seconds in all, its share).",
        low=0.1,
        high=60,
    )
    query_timeout: float = setting(
        5.0,
        "Seconds to wait for an answer; after that the look-up is a temporary failure. With "
        "connect_timeout at most 9 in all, so that a peer hears 451 within 10 seconds.",
        low=0.1,
        high=60,
    )
    allow_exposed_password: bool = setting(
        False,
        "Go on although everybody can read the file that holds a password: restante.toml, or "
        "control/sqlserver.",
    )


@dataclass(frozen=True, slots=True)
class Mail:
    """Where mailboxes lie and to whom their files belong."""

    root: str = setting(
        "mail", "Homes of new accounts: ROOT/DOMAIN/NAME. Relative to the instance directory."
    )
    home_roots: tuple[str, ...] = setting(
        ["/home", "/var/mail", "/var/spool/mail", "/var/vmail"],
        "Where root has started the server: directories below which, as below mail.root, it makes "
        "the missing home of an account at the first delivery, if nobody but root, or mail.user, "
        "can write to the directory that it is missing in.",
    )
    user: str = setting(
        "",
        "The system user whose uid and gid new accounts get. Empty: the user who runs the "
        "command; must be set where that is root (init and demo then use vmail if the system has "
        "that user, else nobody). Never uid 0.",
    )
    minimum_uid: int = setting(
        100, "Accounts with a smaller uid are refused. Never less than 1.", low=1
    )
    minimum_gid: int = setting(1, "Accounts with a smaller gid are refused.", low=1)
    helpers: int = setting(
        100,
        "Where root has started the server: how many uids that own mail are served at the same "
        "time, each by a process of its own (some 5 MiB), and by one more for each network file "
        "system that homes of it lie on. One such file system, which may hang, has three quarters "
        "of them at most. Mail for more of them waits.",
        low=1,
    )
    helper_idle: float = setting(
        30.0,
        "Seconds after which a worker lets a uid's process go that it does not need.",
        low=0.1,
    )


@dataclass(frozen=True, slots=True)
class Routing:
    """Decisions 1 and 2: what is accepted, and to whom it belongs. SQL is asked first."""

    locals: tuple[str, ...] = setting(
        [], "Domains whose local parts are looked up as user names (control/locals)."
    )
    envnoathost: str = setting(
        "",
        "The domain of addresses without one, and of local addresses that nobody owns "
        "(control/envnoathost). Empty: server.me.",
    )
    envnoathosts: Mapping[str, str] = setting(
        {}, "envnoathost for single domains of routing.locals: { 'iain.cx' = 'babasse.com' }."
    )
    localiphost: str = setting(
        "",
        "The domain that stands in for an IP address of this host in brackets "
        "(control/localiphost). Empty: none does.",
    )
    rcpthosts: tuple[str, ...] = setting(
        [],
        "Domains accepted from anyone, besides the rows of rcpthosts; .suffix entries match "
        "subdomains (control/rcpthosts and morercpthosts).",
    )
    virtualdomains: Mapping[str, str] = setting(
        {},
        "Addresses, domains, .suffixes or '' to the prefix of their user "
        "(control/virtualdomains); an empty prefix exempts.",
    )
    smtproutes: Mapping[str, str] = setting(
        {},
        "Domains, .suffixes or '' to the next hop: HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT "
        "(control/smtproutes). An empty next hop: the domain's MX, as if there were no route.",
    )
    subaddress_delimiter: str = setting(
        "+", "Parts name from tag in name+tag@domain. Empty: no subaddresses."
    )
    defaultdelivery: str = setting(
        "./Maildir/",
        "What is done with mail for an account that has no instructions; lines as in a .qmail "
        "file (control/defaultdelivery).",
        has_lines=True,
    )
    system_files: bool = setting(
        False,
        "Ask the passwd file (through NSS) and .qmail files where the tables have no row: "
        "decisions 3 to 5 of qmail. With a control directory, true unless said otherwise.",
    )
    max_alias_depth: int = setting(
        20,
        "Aliases of aliases that are followed before an address counts as looping.",
        low=1,
        high=100,
    )
    max_alias_targets: int = setting(
        10000,
        "Instructions that one address may have; with more, its mail has to wait (451). A list in "
        "a list is counted by itself. What a message leads to beyond that is not done in one go, "
        "but in steps of so many.",
        low=1,
        high=1000000,
    )


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who may send what to whom."""

    verify_recipients: bool = setting(
        True,
        "Refuse unknown recipients at RCPT (550 5.1.1). false: accept them and bounce, as qmail "
        "does.",
    )
    relay_networks: tuple[str, ...] = setting(
        [], "Networks whose peers may send anywhere: ['192.0.2.0/24', '::1/128']."
    )
    badmailfrom: tuple[str, ...] = setting(
        [], "Reverse-paths that are refused: addresses or @domain (control/badmailfrom)."
    )


@dataclass(frozen=True, slots=True)
class Smtp:
    """Mail in."""

    listen: tuple[HostPort, ...] = setting(
        [HostPort("127.0.0.1", 2525)], "Where SMTP listens: ['0.0.0.0:25', '[::]:25']."
    )
    auth: bool = setting(
        False,
        "Offer AUTH here too (RFC 4954). What users send belongs to [submission]; this is for "
        "those who cannot be moved there.",
    )
    greeting: str = setting(
        "", "The text behind server.me in the 220 greeting (control/smtpgreeting). Empty: ESMTP."
    )
    databytes: int = setting(
        50 * MEBIBYTE,
        "Octets in one message at the most; 0: no limit (control/databytes). Offered as SIZE (RFC "
        "1870). Programs of this host may send 64 KiB more: they hand on what came at the limit.",
        low=0,
    )
    timeoutsmtpd: float = setting(
        5 * MINUTE,
        "Seconds to wait for the next octets from a client (RFC 5321 §4.5.3.2.7; "
        "control/timeoutsmtpd).",
        low=1,
        high=DAY,
    )
    session_timeout: float = setting(2 * HOUR, "Seconds that one session may last in all.", low=1)
    max_recipients: int = setting(
        1000, "Recipients of one message (RFC 5321 §4.5.3.1.8; at least 100).", low=1
    )
    max_command_line: int = setting(
        4096,
        "Octets in a command line with its CRLF (RFC 5321 §4.5.3.1.4 asks for 512 and more for "
        "extensions).",
        low=512,
        high=65536,
    )
    max_text_line: int = setting(
        MEBIBYTE,
        "Octets in a line of a message with its CRLF (RFC 5321 §4.5.3.1.6 asks for 1000).",
        low=1000,
    )
    max_header: int = setting(
        MEBIBYTE,
        "Octets in the header of a message. Programs of this host may send 64 KiB more here, too.",
        low=1000,
    )
    max_received: int = setting(
        100, "Received fields in a message; more of them mean a loop (RFC 5321 §6.3).", low=10
    )
    max_errors: int = setting(
        20, "Commands that may fail in one session before it is closed with 421.", low=1
    )
    spool_threshold: int = setting(
        256 * 1024,
        "Bodies larger than this (octets) are kept in a file while they are received, not in "
        "memory.",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class Submission:
    """Mail out of this site's users: what somebody who has logged in may send."""

    listen: tuple[HostPort, ...] = setting(
        [],
        "Where users' programs send mail, with STARTTLS: ['0.0.0.0:587', '[::]:587'] (RFC 6409). "
        "Empty: nowhere.",
    )
    listen_tls: tuple[HostPort, ...] = setting(
        [],
        "The same with TLS from the first octet on: ['0.0.0.0:465', '[::]:465'] (RFC 8314 §3.3). "
        "Needs tls.certificate.",
    )
    senders: Literal["own", "domains", "any"] = setting(
        "own",
        "The envelope senders that an account may use. own: the addresses whose mail reaches it; "
        "domains: any address of the domains in which it has one of its own; any: whatever it "
        "likes. <> is always allowed.",
    )
    received_client: bool = setting(
        False,
        "Write the client's name and IP address into the Received field of mail that a user sends.",
    )
    messages_per_hour: int = setting(
        0, "Messages that one account may send in an hour, over all workers; 0: no limit.", low=0
    )
    messages_per_day: int = setting(
        0, "Messages that one account may send in 24 hours; 0: no limit.", low=0
    )
    recipients_per_hour: int = setting(
        0, "Recipients to which one account may send in an hour; 0: no limit.", low=0
    )
    recipients_per_day: int = setting(
        0, "Recipients to which one account may send in 24 hours; 0: no limit.", low=0
    )


@dataclass(frozen=True, slots=True)
class Pop3:
    """Mail out to its readers."""

    listen: tuple[HostPort, ...] = setting(
        [HostPort("127.0.0.1", 2110)], "Where POP3 listens, with STLS: ['0.0.0.0:110', '[::]:110']."
    )
    listen_tls: tuple[HostPort, ...] = setting(
        [],
        "The same with TLS from the first octet on: ['0.0.0.0:995', '[::]:995'] (RFC 8314 §3.3). "
        "Needs tls.certificate.",
    )
    timeout: float = setting(
        10 * MINUTE,
        "Seconds of inactivity after which a session ends without deleting (RFC 1939 §3 asks for "
        "600).",
        low=1,
        high=DAY,
    )
    login_timeout: float = setting(
        MINUTE, "Seconds that a client may take to log in.", low=1, high=DAY
    )
    max_errors: int = setting(
        20, "Commands that may fail in one session before it is closed.", low=1
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates. Files that change are read again while the server runs."""

    certificate: str = setting(
        "",
        "A file with this host's certificate in PEM, its chain behind it. Relative to the instance "
        "directory. Empty: no TLS is offered.",
    )
    key: str = setting(
        "",
        "The file with its private key, in PEM and not encrypted; to be read by the server's user "
        "alone.",
    )
    certificates: Mapping[str, str] = setting(
        {},
        "More of them, certificate to key: { 'example.net.pem' = 'example.net.key' }. A client "
        "that asks for a host (SNI) gets the certificate that names it, else the first one.",
    )
    handshake_timeout: float = setting(
        30.0, "Seconds that a TLS handshake may take.", low=1, high=HOUR
    )

    @property
    def is_offered(self) -> bool:
        """Whether there is any certificate."""
        return bool(self.certificate or self.certificates)


@dataclass(frozen=True, slots=True)
class Auth:
    """Logins."""

    plaintext: Literal["loopback", "never", "always"] = setting(
        "loopback",
        "Passwords without TLS. loopback: taken on connections to a loopback address of this host "
        "alone; never; always: anybody on the way can read them.",
    )
    refusal_delay: float = setting(
        2.0,
        "A refused login is answered this many seconds after it was asked, whatever the reason.",
        low=0,
        high=60,
    )
    max_attempts: int = setting(3, "Refused logins after which a session is closed.", low=1)
    hashing_threads: int = setting(
        2, "Passwords that one worker checks at the same time.", low=1, high=64
    )
    hashing_queue: int = setting(
        200, "Logins that may wait for a hashing thread; more are a temporary failure.", low=1
    )
    remember: int = setting(
        3600,
        "Seconds for which a password that was right is not hashed again, if the stored hash is "
        "still the same: so programs that look for mail often cost little, whatever the hash. "
        "Kept is a digest, in memory alone. 0: each login is hashed.",
        low=0,
        high=DAY,
    )
    mechanisms: tuple[str, ...] = setting(
        ["PLAIN", "LOGIN"],
        "How clients may log in by AUTH, as it is announced: PLAIN, LOGIN, SCRAM-SHA-256, "
        "SCRAM-SHA-256-PLUS. POP3's USER and PASS are taken where PLAIN is. SCRAM can only be done "
        "by accounts with {SCRAM-SHA-256} keys or a password in clear text, but clients choose it "
        "for any account where it is announced: name it only when all accounts have one of these.",
    )
    upgrade: Literal["", "argon2id"] = setting(
        "",
        "argon2id: after a good login a hash of another scheme, or a weaker one, is replaced by "
        "argon2id in mailbox.password, which needs 512 characters and the right to UPDATE. Other "
        "programs that read the table have to know {ARGON2ID}. Empty: hashes stay as they are.",
    )
    guess_account: int = setting(
        10,
        "Distinct wrong passwords for one account from one network, after which none from there "
        "is checked until one of them is older than guess_window; from all networks together, "
        "three times as many. Networks that the account has logged in from in the last 30 days "
        "are exempt from what others try. 0: no limit.",
        low=0,
        high=100,
    )
    guess_network: int = setting(
        30,
        "The same for one network (an IPv4 address, an IPv6 /64), whatever the accounts; for an "
        "IPv4 /24 and an IPv6 /48 four times as many. 0: no limit.",
        low=0,
        high=200,
    )
    guess_window: int = setting(
        3600, "Seconds for which a wrong password counts.", low=60, high=7 * DAY
    )
    guess_shared: tuple[str, ...] = setting(
        [],
        "Networks that many people log in from, as through a webmail: ['192.0.2.7/32']. What is "
        "tried from there counts for accounts alone. Loopback addresses are always among them.",
    )
    log_logins: bool = setting(True, "Record every attempt to log in.")


@dataclass(frozen=True, slots=True)
class Queue:
    """Mail that has to wait."""

    root: str = setting(
        "queue",
        "Where the queues lie; local disk. Relative to the instance directory. Changes need a new "
        "start, and the directory moved before it: what waits elsewhere is forgotten.",
    )
    queuelifetime: int = setting(
        7 * DAY,
        "Seconds after which a recipient is given up (control/queuelifetime).",
        low=0,
        high=MAX_WAIT,
    )
    concurrencylocal: int = setting(
        20,
        "Messages that one worker delivers from its queue at the same time "
        "(control/concurrencylocal).",
        low=1,
        high=1000,
    )
    concurrencyprograms: int = setting(
        20,
        "Programs that one worker runs at the same time, and mbox files that it writes; one "
        "account has a quarter of them at most; the last quarter is for accounts that have none. "
        "One process, a helper or a worker, has 40 and 8.",
        low=1,
        high=1000,
    )
    concurrencyremote: int = setting(
        200,
        "Attempts at other hosts that one worker makes at the same time, over all destinations "
        "(control/concurrencyremote). relay.concurrency_per_destination bounds each of them; "
        "the last quarter of them all is for destinations where none is under way.",
        low=1,
        high=10_000,
    )
    delay_notice: int = setting(
        0,
        "Seconds after which a sender is told that a message still waits, once for each recipient. "
        "14400 is four hours. 0: senders are not told.",
        low=0,
        high=MAX_WAIT,
    )
    bouncefrom: str = setting(
        "MAILER-DAEMON", "The local part in the From field of bounces (control/bouncefrom)."
    )
    bouncehost: str = setting(
        "", "The domain in the From field of bounces (control/bouncehost). Empty: server.me."
    )
    doublebounceto: str = setting(
        "",
        "The address that bounces of bounces go to (control/doublebounceto, at "
        "control/doublebouncehost). Empty: they are logged and dropped.",
    )
    max_waiting: int = setting(
        0,
        "Messages in one worker's queue at which new mail that must be queued gets 452; 0: no "
        "limit.",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class Relay:
    """Mail to other hosts. Where to is routing.smtproutes' to say, then the DNS."""

    helohost: str = setting(
        "", "What this host calls itself to others (control/helohost). Empty: server.me."
    )
    port: int = setting(
        25,
        "The port of mail exchangers (RFC 5321 §4.5.4.2). Anything else is for trying things out.",
        low=1,
        high=MAX_PORT,
    )
    nameservers: tuple[HostPort, ...] = setting(
        [], "DNS servers: ['192.0.2.53:53']. Empty: those of /etc/resolv.conf."
    )
    timeoutconnect: float = setting(
        MINUTE, "Seconds to wait for a connection (control/timeoutconnect).", low=1, high=HOUR
    )
    timeoutremote: float = setting(
        20 * MINUTE,
        "Seconds to wait for any one reply at the most (control/timeoutremote); the waits of RFC "
        "5321 §4.5.3.2 are shorter for most.",
        low=1,
        high=DAY,
    )
    concurrency_per_destination: int = setting(
        20, "Connections of one worker to one destination.", low=1, high=1000
    )
    concurrency_per_message: int = setting(
        10, "Destinations to which one message is sent at the same time.", low=1, high=1000
    )
    idle_timeout: float = setting(
        5.0,
        "Seconds that a connection is kept for the destination's next message. 0: not at all.",
        low=0,
        high=5 * MINUTE,
    )
    messages_per_connection: int = setting(
        100, "Messages after which a connection is closed.", low=1, high=1000000
    )
    tls_policy: Mapping[str, str] = setting(
        {},
        "Domains, .suffixes or '' to none, may, encrypt or verify; for mail that a route takes, "
        "the route's host counts. may: STARTTLS where it is offered, clear text where it fails. "
        "encrypt: never in clear text. verify: only to a host with a valid certificate for its "
        "name. What is not named here is may; a next hop with credentials is verify, unless there "
        "is ''.",
    )
    credentials: Mapping[str, str] = setting(
        {},
        "Next hops, as smtproutes writes them, to LOGIN:PASSWORD for AUTH. Sent over TLS or to "
        "the loopback only.",
        hidden="a table of next hops to LOGIN:PASSWORD",
    )


@dataclass(frozen=True, slots=True)
class Sendmail:
    """Mail that programs on this host leave for the server: restante-sendmail, cron, PHP."""

    users: Literal["everyone", "owner"] = setting(
        "everyone",
        "Who may leave mail: everyone who can reach DIR/drop, or the user who runs the server, and "
        "root.",
    )
    defaulthost: str = setting(
        "", "The host of addresses without one (control/defaulthost). Empty: server.me."
    )
    defaultdomain: str = setting(
        "",
        "Appended to hosts without a dot (control/defaultdomain). Empty: server.me without its "
        "first label.",
    )
    plusdomain: str = setting(
        "",
        "Appended to hosts that end in +, in its place (control/plusdomain). Empty: as "
        "defaultdomain.",
    )


@dataclass(frozen=True, slots=True)
class Programs:
    """Commands that accounts name: |command in alias rows and .qmail files (qmail-command(8))."""

    run_as_server_user: bool = setting(
        False,
        "Run commands of accounts whose uid is the server's own too. Such a command can read the "
        "settings, the queue and everybody's mail.",
    )
    timeout: float = setting(
        5 * MINUTE,
        "Seconds that a command may take. After that its process group is ended (SIGTERM, five "
        "seconds later SIGKILL) and the message is tried again later.",
        low=1,
        high=DAY,
    )
    path: str = setting(
        "/var/qmail/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "PATH of commands; nothing else of the server's environment reaches them.",
    )
    umask: str = setting("077", "The umask of commands, in octal.")
    max_output: int = setting(
        8192,
        "Octets of what a command writes (standard output and error) that are kept, for the log "
        "and the bounce. It may write more.",
        low=0,
        high=MEBIBYTE,
    )
    max_cpu: int = setting(
        0, "Seconds of processor time that a command's processes have each; 0: no limit.", low=0
    )
    max_memory: int = setting(
        0, "Octets of address space that a command's processes have each; 0: no limit.", low=0
    )
    max_file: int = setting(0, "Octets to which a command may let a file grow; 0: no limit.", low=0)
    max_processes: int = setting(
        0,
        "Processes that the command's user may have in all (RLIMIT_NPROC) while it runs; 0: no "
        "limit.",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class Log:
    """What happened."""

    target: str = setting(
        "stderr",
        "stderr, syslog, or the path of a file (relative to the instance directory; reopened on "
        "SIGHUP).",
    )
    format: Literal["logfmt", "json"] = setting(
        "logfmt", "logfmt (key=value) or json; one event per line."
    )
    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "debug, info, warning or error."
    )
    sql: bool = setting(
        False,
        "Record every SQL statement, with its parameters and the time it took; never a password.",
    )


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures for Prometheus."""

    listen: tuple[HostPort, ...] = setting(
        [], "Where /metrics is served over HTTP; empty: nowhere."
    )


@dataclass(frozen=True, slots=True)
class Control:
    """The qmail control directory of which some settings are taken."""

    directory: str
    """Absolute."""
    named_by_hand: bool
    """The command line names it, which counts for more than what restante.toml says later."""
    alone: bool
    """There is no restante.toml, so that nobody has made the instance directory."""
    told: frozenset[tuple[str, str]]
    """Section and name of what restante.toml and the environment decide."""
    stamps: Stamps
    """Of its files, as they were read."""
    warnings: tuple[str, ...] = ()
    """What in them is passed over."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything one instance is told."""

    directory: str
    """The instance directory, absolute; relative paths in settings start here."""
    server: Server = field(default_factory=Server)
    database: Database = field(default_factory=Database)
    mail: Mail = field(default_factory=Mail)
    routing: Routing = field(default_factory=Routing)
    receiver: Receiver = field(default_factory=Receiver)
    smtp: Smtp = field(default_factory=Smtp)
    submission: Submission = field(default_factory=Submission)
    pop3: Pop3 = field(default_factory=Pop3)
    tls: Tls = field(default_factory=Tls)
    auth: Auth = field(default_factory=Auth)
    queue: Queue = field(default_factory=Queue)
    relay: Relay = field(default_factory=Relay)
    programs: Programs = field(default_factory=Programs)
    sendmail: Sendmail = field(default_factory=Sendmail)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)
    control: Control | None = None

    def path(self, relative: str) -> str:
        """``relative`` as an absolute path; an absolute one stays what it is."""
        return os.path.normpath(os.path.join(self.directory, relative))

    @property
    def hostname(self) -> str:
        """The host's name, as protocols have it: server.me, else what the system calls itself."""
        return in_a_labels(self.server.me or system_hostname())

    @property
    def helohost(self) -> str:
        """What this host calls itself to others."""
        return in_a_labels(self.relay.helohost) or self.hostname

    @property
    def envnoathost(self) -> str:
        """The domain of addresses that have none."""
        return self.routing.envnoathost or self.hostname


@cache
def system_hostname() -> str:
    """The system's fully qualified name, or its bare one where the resolver knows no other.

    Asked once in a process (see ``load_again``): the resolver may have to be waited for.
    """
    name = socket.gethostname()
    if "." not in name:
        full = socket.getfqdn(name)
        name = name if full.startswith("localhost") else full
    return name or "localhost"

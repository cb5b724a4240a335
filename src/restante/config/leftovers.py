"""What of a qmail site stays behind: files beside those that are read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from restante.config.control import SOURCES

RELAY_RULES = "/etc/tcp.smtp"
"""Where tcpserver's rules for qmail-smtpd usually are."""
QMAIL = "/var/qmail"
"""Where qmail is, also where its control directory is a link, or was copied."""
ALIASES, NEWALIASES = "/etc/aliases.cdb", "/usr/bin/newaliases"
"""What fastforward reads, and the name by which its own program makes it from /etc/aliases."""
SENDMAIL = "restante-sendmail"
MAILDIR = "./Maildir/"
"""What Restante does where nothing says what is to be done."""
MAX_SCRIPT = 64 * 1024
"""Octets of qmail's start script that are looked at."""
_START = re.compile(r"""(?m)^[^#\n]*\bqmail-start[ \t]+(?:'([^']*)'|"([^"]*)"|([^\s'"]+))""")
_ELF = b"\x7fELF"
_EMPTY_CDB = 2048
"""Octets of a cdb that holds nothing."""
_READ = frozenset(name for source in SOURCES for name in source.files)
_REASONS = {
    "badmailto": "recipients who are not to get mail are no addresses here: remove the row",
    "badrcptto": "recipients who are not to get mail are no addresses here: remove the row",
    "concurrencyincoming": "tcpserver's; see server.max_connections",
    "idhost": "Message-ID fields have server.me",
    "percenthack": "user%host@domain is an ordinary address; the hack opened relays",
    "qmqpservers": "QMQP is left out; see routing.smtproutes",
    "servercert.pem": "TLS patches'; see tls.certificate and tls.key",
    "smtpauth": "AUTH patches'; see relay.credentials",
    "spfbehavior": "SPF patches'; there is no SPF check",
    "tlshosts": "TLS patches'; see relay.tls_policy",
}
"""Files that qmail or its common patches read, and what becomes of that."""


def leftovers(directory: str) -> Iterator[str]:
    """One line for everything that a control directory, or qmail beside it, has and is not read."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        yield f"{directory} cannot be listed: {error.strerror}"
        return
    unknown = [name for name in names if name not in _READ and _counts(name)]
    for name in unknown:
        if name == "morercpthosts.cdb":
            if "morercpthosts" not in names:
                yield f"{directory}/{name} is not read, only its text is: make morercpthosts anew"
        else:
            reason = _REASONS.get(name, "no file of qmail 1.03's")
            yield f"{directory}/{name} is not read: {reason}"
    if os.path.exists(RELAY_RULES):
        yield f"{RELAY_RULES} is not read: its RELAYCLIENT networks are for receiver.relay_networks"
    if os.path.exists(ALIASES) and os.path.basename(os.path.realpath(NEWALIASES)) == SENDMAIL:
        yield (
            f"{NEWALIASES} is {SENDMAIL}, which builds nothing: where fastforward reads {ALIASES}, "
            "changes of /etc/aliases count for nothing until its own newaliases is there again"
        )
    for home in dict.fromkeys((os.path.dirname(os.path.abspath(directory)), QMAIL)):
        yield from _of_qmail(home, names)


def _of_qmail(home: str, names: list[str]) -> Iterator[str]:
    """What qmail itself has in its directory; ``names``: the control files."""
    if assigned := _assigned_users(os.path.join(home, "users")):
        yield f"{assigned} is not read: its users need rows in mailbox, or in the passwd file"
    script = os.path.join(home, "rc")
    default = _default_delivery(script)
    if default not in ("", MAILDIR) and "defaultdelivery" not in names:
        yield (
            f"{script} has qmail do {default!r} where nothing else is said, and Restante does "
            f"{MAILDIR}: write it into control/defaultdelivery"
        )
    yield from _unsent(os.path.join(home, "queue"))
    program = os.path.join(home, "bin/qmail-queue")
    if _begins_with(program, _ELF):
        yield (
            f"{program} is qmail's: what forward, qmail-inject and their kind send by it waits for "
            "qmail-send; restante-qmail-queue goes in its place"
        )


def _assigned_users(directory: str) -> str:
    """The file that says something in the directory of qmail-users(5), or an empty string."""
    assign, compiled = (os.path.join(directory, name) for name in ("assign", "cdb"))
    if os.path.exists(assign):
        return assign if _holds_something(assign) else ""
    try:
        return compiled if os.path.getsize(compiled) > _EMPTY_CDB else ""
    except OSError:
        return ""


def _default_delivery(script: str) -> str:
    """The default delivery that qmail's start script names itself; empty where it does not."""
    try:
        with open(script, encoding="utf-8", errors="replace") as file:
            found = _START.search(file.read(MAX_SCRIPT))
    except OSError:
        return ""
    said = next(filter(None, found.groups()), "") if found else ""
    return "" if "$" in said or "`" in said else said.strip()


def _unsent(queue: str) -> Iterator[str]:
    """Messages that qmail has taken, and that nobody sends once it has stopped."""
    messages = 0
    try:
        for entry in os.scandir(os.path.join(queue, "mess")):
            if entry.is_dir(follow_symlinks=False):
                messages += sum(each.is_file(follow_symlinks=False) for each in os.scandir(entry))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield f"{queue} cannot be looked at, whether messages wait in it: {error.strerror}"
        return
    if messages:
        yield (
            f"messages wait in {queue}, {messages} of them: nothing but qmail-send delivers these; "
            "let it run until there are none"
        )


def _counts(name: str) -> bool:
    """Editors' backups and hidden files were never read by anybody."""
    return not name.startswith(".") and not name.endswith(("~", ".bak", ".orig", ".rpmsave"))


def _holds_something(path: str) -> bool:
    """Whether there is a users/assign with more than the dot that ends it (qmail-users(5))."""
    try:
        with open(path, "rb") as file:
            return file.read(3).strip() not in (b"", b".")
    except OSError:
        return False


def _begins_with(path: str, octets: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(octets)) == octets
    except OSError:
        return False

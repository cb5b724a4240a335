"""What of a qmail site stays behind: files beside those that are read."""

from __future__ import annotations

import os
from collections.abc import Iterator

from restante.config.control import SOURCES

RELAY_RULES = "/etc/tcp.smtp"
"""Where tcpserver's rules for qmail-smtpd usually are."""
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
    assign = os.path.normpath(os.path.join(directory, "../users/assign"))
    if os.path.exists(RELAY_RULES):
        yield f"{RELAY_RULES} is not read: its RELAYCLIENT networks are for receiver.relay_networks"
    if _holds_something(assign):
        yield f"{assign} is not read: its users need rows in mailbox, or in the passwd file"


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

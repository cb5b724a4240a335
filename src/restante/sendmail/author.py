"""Who sends: the reverse-path and the From field of a message that has none.

As in qmail-inject(8): the command line first, then the environment, then the login. A Return-Path
field counts for nothing, which may be of a message that somebody else has sent.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping

from restante.address_syntax import VERP, AddressSyntaxError, join_mailbox, split_mailbox
from restante.completion import Author, Hosts, MailboxSyntaxError, parse_mailboxes
from restante.sendmail import Refusal
from restante.sendmail.options import Options

_USER = ("QMAILUSER", "MAILUSER", "USER", "LOGNAME")
_HOST = ("QMAILHOST", "MAILHOST")
_NAME = ("QMAILNAME", "MAILNAME", "NAME")
_LETTERS = "QMAILINJECT"
PER_RECIPIENT, PER_MESSAGE = "r", "m"
"""Letters in it: a sender of its own for each recipient, or for this message."""
REMOVED = {"f": b"from", "i": b"message-id"}
"""Letters in it, and the field of the message that is taken out, to be made anew."""


def addresses(text: str, hosts: Hosts, status: int) -> list[tuple[str, str]]:
    """Local part and whole domain of each address in a list; Refusal with ``status`` if malformed.

    An address that is taken apart here is one that the server takes too.
    """
    try:
        return [
            checked(box.local, hosts.whole(box.domain), status) for box in parse_mailboxes(text)
        ]
    except MailboxSyntaxError as error:
        raise Refusal(status, f"{text[:100]!r} is no address: {error}") from None


def checked(local: str, domain: str, status: int) -> tuple[str, str]:
    """The parts as they are, if they make an address; else Refusal."""
    text = join_mailbox(local, domain)
    try:
        return split_mailbox(text)
    except (AddressSyntaxError, UnicodeEncodeError) as error:
        raise Refusal(status, f"{text[:100]!r} is no address: {error}") from None


def author(options: Options, environ: Mapping[str, str], hosts: Hosts) -> Author:
    """Whose message it is, unless it has a From field of its own; raises Refusal."""
    name = options.name if options.name is not None else _first(environ, _NAME)
    if options.sender:
        # A program that sends on in a list's name (NEWSENDER, qmail-command(8)) has the owner's
        # address, where the reports go as well.
        found = addresses(options.sender.removesuffix(VERP), hosts, os.EX_USAGE)
        if len(found) != 1:
            raise Refusal(os.EX_USAGE, f"-f takes one address, not {options.sender[:100]!r}")
        return Author(*found[0], name)
    user = _first(environ, _USER)
    account = _account()
    if not user:
        user = account.pw_name if account else f"uid{os.getuid()}"
    if not name and account is not None and account.pw_name == user:
        name = _full_name(account)
    host = _first(environ, _HOST)
    if not host and "@" in user:  # programs that the server runs have an account's name there
        user, _, host = user.rpartition("@")
    return Author(*checked(user, hosts.whole(host), os.EX_CONFIG), name)


def letters(environ: Mapping[str, str]) -> str:
    """What the environment asks for; letters that mean nothing here are no mistake."""
    return environ.get(_LETTERS, "")


def reverse_path(
    options: Options, environ: Mapping[str, str], hosts: Hosts, who: Author, at: float
) -> str:
    """The envelope's sender, ``at`` now; empty: the null one, if -f asks for it; raises Refusal.

    -f leaves no word to the environment, but for a sender of its own for each recipient.
    """
    if options.sender == "":
        return ""
    asked = letters(environ)
    local, domain = who.local, who.domain
    if options.sender is None:
        host = environ.get("QMAILSHOST")
        local, domain = environ.get("QMAILSUSER") or local, hosts.whole(host) if host else domain
        if PER_MESSAGE in asked:
            local += f"-{int(at)}.{os.getpid()}"
        if PER_RECIPIENT in asked:
            local += "-"
    path = join_mailbox(*checked(local, domain, os.EX_CONFIG))
    return path + VERP if PER_RECIPIENT in asked else path


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        return None


def _full_name(account: pwd.struct_passwd) -> str:
    """The first part of the GECOS field, in which ``&`` stands for the login (passwd(5))."""
    return account.pw_gecos.partition(",")[0].replace("&", account.pw_name.capitalize())

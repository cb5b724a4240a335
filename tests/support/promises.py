"""What ``explain`` promises for an address, and what is found of its mail, in the same words.

A line of either says what happens: ``iain/Maildir as iain@babasse.com`` (below the homes; with a
dot in front below the owner's home), ``|NOTE kept 0 as ...`` for a program, ``sent to ... from
...``; with the uid whose rights it is done with, 0 for mail that leaves.
"""

from __future__ import annotations

import contextlib
import mailbox
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.qmail_site import QmailSite
from tests.support.smtp_peer import SmtpPeer

SENDER = "me@far.example"
BOUNCE = f"sent to {SENDER} from "
"""Its sender is the null reverse-path."""
_VERP = "-@[]"


class Done(NamedTuple):
    """One thing that happens."""

    what: str
    uid: int = 0


def subject_of(address: str) -> str:
    """Of the message that is sent to an address."""
    return f"for {address}"


# What is promised


def promised(site: QmailSite, explanation: dict[str, Any]) -> set[Done]:
    """What an accepted message comes to, by the JSON of ``explain``."""
    decision = explanation["decision"]
    if explanation["reply"]["code"] != 250:
        return set()
    if decision["kind"] == "mailbox":
        return {_kept(site, decision)}
    return {_leads_to(site, leaf) for leaf in explanation["leads_to"]}


def _leads_to(site: QmailSite, leaf: dict[str, Any]) -> Done:
    match leaf["decision"]["kind"]:
        case "mailbox":
            return _kept(site, leaf["decision"])
        case "act":
            instruction = leaf["decision"]["instruction"].replace(site.note, "NOTE")
            return Done(_as(instruction, leaf["decision"]), leaf["decision"]["uid"])
        case "remote":
            return Done(f"sent to {leaf['address']} from {_sender(leaf)}")
    return Done(BOUNCE)


def _kept(site: QmailSite, decision: dict[str, Any]) -> Done:
    maildir = Path(decision["maildir"]).relative_to(site.homes)
    return Done(_as(str(maildir), decision), decision["uid"])


def _as(what: str, decision: dict[str, Any]) -> str:
    return f"{what} as {decision['delivered_to']}"


def _sender(leaf: dict[str, Any]) -> str:
    """By dot-qmail(5): owner-@host-@[] is owner-recipient=its.host@host for each recipient."""
    sender: str = leaf["new_sender"] or SENDER
    if not sender.endswith(_VERP):
        return sender
    owner, _, host = sender.removesuffix(_VERP).rpartition("@")
    return f"{owner}{leaf['address'].replace('@', '=')}@{host}"


# What is found


def found(site: QmailSite, peer: SmtpPeer, address: str) -> set[Done]:
    """What there is of the message for an address, in homes and elsewhere."""
    subject = subject_of(address)
    return {
        done for told, done in (*_in_homes(site), *_noted(site), *_sent(peer)) if told == subject
    }


def _in_homes(site: QmailSite) -> Iterator[tuple[str, Done]]:
    for path in site.homes.glob("*/Maildir/new/*"):
        message = mailbox.MaildirMessage(path.read_bytes())
        where = path.parents[1].relative_to(site.homes)
        yield message["Subject"], Done(_found_as(str(where), message), path.stat().st_uid)
    for name in ("box", "Mailbox", "never"):
        for path in site.homes.glob(f"*/{name}"):
            uid = path.stat().st_uid
            with contextlib.closing(mailbox.mbox(path, create=False)) as messages:
                for each in messages:
                    yield each["Subject"], Done(_found_as(f"./{name}", each), uid)


def _found_as(where: str, message: Message) -> str:
    return f"{where} as {message['Delivered-To']}"


def _noted(site: QmailSite) -> Iterator[tuple[str, Done]]:
    for path in site.homes.glob("*/notes"):
        for line in path.read_text().splitlines():
            subject, uid, what = line.split("\t")
            yield subject, Done(what, int(uid))


def _sent(peer: SmtpPeer) -> Iterator[tuple[str, Done]]:
    """The peer gets one message after the other."""
    for (sender, recipients), content in zip(_transactions(peer), peer.contents, strict=True):
        (subject,) = [
            line.removeprefix("Subject: ")
            for line in content.decode().splitlines()
            if line.startswith("Subject: for ")
        ]
        for recipient in recipients:
            yield subject, Done(f"sent to {recipient} from {sender}")


def _transactions(peer: SmtpPeer) -> Iterator[tuple[str, list[str]]]:
    sender = ""
    recipients: list[str] = []
    for command in peer.commands:
        address = command.partition("<")[2].partition(">")[0]
        match command.split(" ")[0].upper():
            case "MAIL":
                sender, recipients = address, []
            case "RCPT":
                recipients.append(address)
            case "DATA":
                yield sender, recipients

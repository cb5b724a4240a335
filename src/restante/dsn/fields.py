"""The part of a report that programs read (RFC 3464 §2)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import formatdate

from restante.address import Address, embed_unicode
from restante.dsn.hostile import ascii_text, printable, reply_lines
from restante.envelope import Content, Envelope, received_from
from restante.queue import Action, LastAnswer, Notice, QueuedRecipient
from restante.status import Peer

_CLASSES = {Action.FAILED: "54", Action.DELAYED: "4"}
"""The classes of a status that fit an action, the usual one first (RFC 3464 §2.3.4); else 2."""
_TOPIC = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
# The characters that an address of type utf-8 embeds even where UTF-8 may be written: all of
# ASCII that is no QCHAR (RFC 6533 §3).
_EMBEDDED = re.compile(r"[\x00-\x20+=\\\x7f]|[^\x00-\x7f\w]")


@dataclass(frozen=True, slots=True)
class StatusFields:
    """Writes the fields; their order is that of RFC 3464."""

    host: str
    """The name of this host."""
    lifetime: float
    """Seconds after which a message is given up."""
    is_global: bool
    """message/global-delivery-status, which may hold UTF-8, rather than its ASCII form."""

    @property
    def media_type(self) -> str:
        """The type of the part (RFC 3464 §2.1, RFC 6533 §4)."""
        return "message/global-delivery-status" if self.is_global else "message/delivery-status"

    def write(self, envelope: Envelope, content: Content, notices: Sequence[Notice]) -> bytes:
        """One block for the message, then one for each recipient, parted by empty lines."""
        blocks = [self._message_fields(envelope, content)]
        blocks += (self._recipient_fields(envelope, notice) for notice in notices)
        return "\n".join("".join(f"{line}\n" for line in block) for block in blocks).encode()

    def _message_fields(self, envelope: Envelope, content: Content) -> Iterator[str]:
        """RFC 3464 §2.2; Original-Envelope-Id by RFC 3461 §6.3 (a)."""
        if envelope.envid:
            yield f"Original-Envelope-Id: {self._text(envelope.envid)}"
        yield f"Reporting-MTA: dns; {self._text(self.host)}"
        client = received_from(content.trace)
        if client:
            yield f"Received-From-MTA: dns; {self._text(client)}"
        yield f"Arrival-Date: {formatdate(envelope.received_at, localtime=True)}"

    def _recipient_fields(self, envelope: Envelope, notice: Notice) -> Iterator[str]:
        """RFC 3464 §2.3; Original-Recipient from ORCPT alone, by RFC 3461 §6.3 (d)."""
        target, last = notice.recipient.target, notice.recipient.last
        if target.dsn.orcpt:
            kind, _, original = target.dsn.orcpt.partition(";")
            yield f"Original-Recipient: {self._typed(kind, original)}"
        yield f"Final-Recipient: {self._final_recipient(target.address)}"
        yield f"Action: {notice.action}"
        yield f"Status: {status(notice)}"
        if last is not None:
            yield from self._answer_fields(last, notice.action)
        yield f"Final-Log-Id: {self._text(envelope.queue_id)}"
        if notice.action is Action.DELAYED:
            until = tried_until(notice.recipient, self.lifetime)
            if until is not None:
                yield f"Will-Retry-Until: {formatdate(until, localtime=True)}"

    def _answer_fields(self, last: LastAnswer, action: Action) -> Iterator[str]:
        """Which host it was about; its words are told of failures and delays."""
        if last.peer is not None and last.peer.host:
            yield f"Remote-MTA: dns; {self._text(named(last.peer))}"
        if action in _CLASSES:
            # Folded where the reply has a line end, so that every line of it is seen.
            yield "Diagnostic-Code: smtp; " + "\n ".join(map(self._text, reply_lines(last.reply)))
        yield f"Last-Attempt-Date: {formatdate(last.at, localtime=True)}"

    def _final_recipient(self, address: str) -> str:
        mailbox = Address.from_stored(address).to_mailbox()
        needs_utf8 = not (mailbox.isascii() and mailbox.isprintable())
        return self._typed("utf-8" if needs_utf8 else "rfc822", mailbox)

    def _typed(self, kind: str, address: str) -> str:
        """The address with its type; one of type utf-8 in a form that fits the part."""
        if kind.lower() != "utf-8":
            return f"{ascii_text(kind)}; {ascii_text(address)}"
        if not self.is_global:
            return f"{kind}; {embed_unicode(address)}"
        return f"{kind}; " + _EMBEDDED.sub(lambda found: embed_unicode(found[0]), address)

    def _text(self, text: str) -> str:
        return printable(text) if self.is_global else ascii_text(text)


def status(notice: Notice) -> str:
    """The enhanced status code, of a class that fits the action (RFC 3464 §2.3.4).

    That of a temporary failure is 4: a 5 would say that trying again is of no use.
    """
    classes = _CLASSES.get(notice.action, "2")
    last = notice.recipient.last
    if last is None:
        return f"{classes[0]}.0.0"
    digit = "4" if last.is_temporary else str(last.reply.code // 100)
    if digit not in classes:
        return f"{classes[0]}.0.0"
    return f"{digit}.{last.reply.topic if _TOPIC.fullmatch(last.reply.topic) else '0.0'}"


def tried_until(recipient: QueuedRecipient, lifetime: float) -> float | None:
    """The time after which whoever was put off is given up; None: it is over, but does not count.

    So it is where nobody could be tried until then (queue/absence.py).
    """
    until = recipient.born + lifetime
    is_over = recipient.last is not None and recipient.last.at >= until
    return None if is_over else until


def named(peer: Peer) -> str:
    """A host with its address, as far as it is known: ``mx.example.net (192.0.2.1)``."""
    return f"{peer.host} ({peer.address})" if peer.address else peer.host

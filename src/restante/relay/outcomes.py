"""From what a host answered to what becomes of recipients, and of all mail for that host.

**Whom a failure is about.** A host that cannot be spoken to, says 421, or puts off a
sender nobody else complained of is left alone as a whole (``BackOff``). So is one that says
its system is full, down or overloaded. A recipient that is put off (greylisting, a full
mailbox), a content that is, and a connection that is lost while a content is judged are
the message's own trouble, until PUT_OFF_IN_A_ROW of them come one after another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from restante.protocol.smtp.client_events import Result
from restante.protocol.smtp.client_transaction import TOO_MANY_TOPICS
from restante.queue import BackOff
from restante.relay.session import Session
from restante.status import Delivered, Outcome, PermanentFailure, Reply, TemporaryFailure

SHUTTING_DOWN = 421
"""RFC 5321 §3.8: the host closes the connection, whatever the command was."""
TOO_MANY = 452
"""With an enhanced status that is none of TOO_MANY_TOPICS: a full mailbox, or a full disk."""
ABOUT_THE_HOST = frozenset({"3.1", "3.2", "4.5"})
"""Mail system full, not accepting messages, congested (RFC 3463 §§ 3.4, 3.5)."""
ABOUT_THE_SENDER = frozenset({"1.0", "1.7", "1.8"})
"""Answers to MAIL that other senders would not get (RFC 3463 §3.2)."""
CONTENT_COMMANDS = frozenset({"content", "BDAT"})
"""What is under way while the host sees a content and not yet its end (``Peer.command``)."""
PUT_OFF_IN_A_ROW = 10
"""Recipients of one lane that were put off one after another, before it is left alone."""
MAX_LANES = 10_000
"""Lanes whose recipients are counted."""


def outcome(session: Session, result: Result) -> Outcome:
    """What becomes of one recipient."""
    reply, peer = result.reply, session.peer(result.command, silent=result.local)
    if reply.is_success:
        return Delivered(str(reply), peer)
    if reply.is_temporary:
        return TemporaryFailure(reply, peer=peer)
    if result.local:
        # This host's own words: the other one was not asked.
        return PermanentFailure(reply, f"{peer.place} cannot take it")
    return PermanentFailure(reply, peer=peer)


def is_one_too_many(result: Result) -> bool:
    """Whether the transaction was full (RFC 5321 §4.5.3.1.10), if others had a place in it."""
    reply = result.reply
    is_rcpt = result.command.startswith("RCPT ")
    return is_rcpt and reply.code == TOO_MANY and reply.topic in TOO_MANY_TOPICS


def is_for_another_host(session: Session, result: Result, *, alive: bool) -> bool:
    """Whether the next MX is to be asked (RFC 5321 §5.1): nothing was said of this recipient.

    ``alive``: the session can go on. Once the content was sent, the host may have the
    message whatever it said, and nobody else may get it.
    """
    if session.content_sent or not result.reply.is_temporary:
        return False
    said_to_all = result.local or result.reply.code == SHUTTING_DOWN
    return _is_mail(result.command) or (not alive and said_to_all)


def back_off(session: Session, results: Sequence[Result]) -> BackOff | None:
    """Whether these answers are about the host as a whole."""
    for result in results:
        if _is_about_host(session, result):
            command = result.command.partition(" ")[0]
            said = result.reply.text if result.local else _codes(result.reply)
            return BackOff(f"{session.endpoint.host} [{session.endpoint.where}], {command}: {said}")
    return None


def _is_about_host(session: Session, result: Result) -> bool:
    reply = result.reply
    if not reply.is_temporary:
        return False
    if result.local:
        return not session.content_sent and result.command not in CONTENT_COMMANDS
    if reply.code == SHUTTING_DOWN or reply.topic in ABOUT_THE_HOST:
        return True
    return _is_mail(result.command) and reply.topic not in ABOUT_THE_SENDER


def _is_mail(command: str) -> bool:
    return command.startswith("MAIL ") or command == "RSET"


def _codes(reply: Reply) -> str:
    """A reply without its text, which may name a recipient or a sender."""
    return " ".join(filter(None, (str(reply.code), reply.enhanced)))


class Streaks:
    """How many recipients of a lane were put off, one after another."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def add(self, lane: str, outcomes: Sequence[Outcome]) -> BackOff | None:
        """Take note of outcomes; whether there were too many of one kind."""
        count = self._counts.pop(lane, 0)
        for each in outcomes:
            if isinstance(each, TemporaryFailure):
                count += not each.at_once
            else:
                count = 0
        if not count:
            return None
        self._counts[lane] = count % PUT_OFF_IN_A_ROW
        if len(self._counts) > MAX_LANES:
            self._counts.popitem(last=False)
        if count < PUT_OFF_IN_A_ROW:
            return None
        return BackOff(f"{count} recipients in a row were put off")

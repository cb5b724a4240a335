"""The part of a report that people read: what happened, to whom, and what comes next.

Addresses and replies stand indented, on lines of their own: neither can begin a line that
looks like the report's own words.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate

from restante.address import NullReversePath, fold, shown
from restante.dsn.fields import named, status, tried_until
from restante.dsn.hostile import printable, reply_lines
from restante.dsn.original import Original
from restante.dsn.reasons import reason
from restante.envelope import Envelope, Notify
from restante.queue import Action, LastAnswer, Notice

WIDTH = 76
"""Characters in a line of our own words."""


@dataclass(frozen=True, slots=True)
class _Words:
    """What is said of all recipients with the same fate."""

    subject: str
    lead: str
    next: str


_WORDS: Mapping[Action, _Words] = {
    Action.FAILED: _Words(
        "Your message could not be delivered",
        "It could NOT be delivered to:",
        "It is not tried any more. Once what stood in the way is mended, please send the message "
        "again.",
    ),
    Action.DELAYED: _Words(
        "Your message is delayed",
        "It has not been delivered yet to:",
        "You need not do anything, and need not send it again: it is tried {until}.",
    ),
    Action.RELAYED: _Words(
        "Your message was passed on",
        "It was passed on to another mail system for:",
        "That system does not report deliveries. You will not hear of this again, unless it "
        "sends the message back.",
    ),
    Action.DELIVERED: _Words(
        "Your message was delivered",
        "It was delivered to the mailbox of:",
        "Whether it has been read is not known.",
    ),
    Action.EXPANDED: _Words(
        "Your message was passed on to a group",
        "It was passed on to all who get the mail for:",
        "You will not be told of its delivery to each of them.",
    ),
}
"""From what matters most to the sender to what matters least."""

_OWNER_WORDS: Mapping[Action, _Words] = {
    Action.FAILED: _Words(
        "Mail of your list could not be delivered",
        _WORDS[Action.FAILED].lead,
        "It is not tried any more. An address that is gone for good had better leave the list.",
    ),
    Action.DELAYED: replace(_WORDS[Action.DELAYED], subject="Mail of your list is delayed"),
}
"""The same for the owner of a list by which the message went: more is never told to an owner."""

_WHO_SAID: Mapping[str, str] = {
    "greeting": "{where} greeted with",
    "end of data": "{where} answered to the content of the message",
}
"""How what another host said is introduced, by ``Peer.command`` where that is no command."""


def subject(envelope: Envelope, notices: Sequence[Notice]) -> str:
    """The subject of the report: the worst that it tells."""
    if isinstance(envelope.reverse_path, NullReversePath):
        return "A report could not be delivered"
    told = {notice.action for notice in notices}
    return next(words.subject for action, words in _words(notices).items() if action in told)


def _words(notices: Sequence[Notice]) -> Mapping[Action, _Words]:
    """What is said to whom the notices are for."""
    owners = any(notice.recipient.target.reverse_path is not None for notice in notices)
    return {**_WORDS, **_OWNER_WORDS} if owners else _WORDS


@dataclass(frozen=True, slots=True)
class Explanation:
    """Writes the text."""

    host: str
    """The name of this host."""
    lifetime: float
    """Seconds after which a message is given up."""

    def write(self, envelope: Envelope, original: Original, notices: Sequence[Notice]) -> str:
        """One paragraph about the message, then one section for each fate that was met."""
        sections = [self._message(envelope, original, notices)]
        for action in _WORDS:
            alike = [notice for notice in notices if notice.action is action]
            if alike:
                sections.append("\n".join(self._section(action, alike)))
        sections.append(self._attached(original))
        return "\n".join(sections)

    def _message(self, envelope: Envelope, original: Original, notices: Sequence[Notice]) -> str:
        sender = printable(f"<{shown(str(envelope.reverse_path))}>")
        whose = "a message of your list" if _words(notices) is not _WORDS else "your message"
        if isinstance(envelope.reverse_path, NullReversePath):
            # Nobody's message: it goes to those who run this host (doublebounceto).
            whose = "a message without a sender's address, as reports like this one are"
        host = printable(self.host)
        intro = f"This is an automatic message from the mail system at {host}, about {whose}:"
        about = [f"    Subject: {original.subject}"] if original.subject else []
        about += [
            f"    Sender:  {sender}",
            f"    Arrived: {formatdate(envelope.received_at, localtime=True)}",
            f"    Id here: {printable(envelope.queue_id)}",
        ]
        return _filled(intro) + "\n" + "".join(f"{line}\n" for line in about)

    def _section(self, action: Action, notices: Sequence[Notice]) -> Iterator[str]:
        words = _words(notices)[action]
        yield f"{words.lead}\n"
        for notice in notices:
            yield "".join(f"{line}\n" for line in self._recipient(notice))
        ends = [tried_until(notice.recipient, self.lifetime) for notice in notices]
        until = max((end for end in ends if end is not None), default=None)
        then = words.next.format(until=_until(until))
        if action is Action.DELAYED and any(_is_told_of_failure(each) for each in notices):
            then += " If it still cannot be delivered by then, you will be told."
        yield _filled(then)

    def _recipient(self, notice: Notice) -> Iterator[str]:
        """The address that the sender wrote comes first: it is the one that he or she knows."""
        recipient = notice.recipient
        address = recipient.target.address
        written = next(iter(recipient.trail), address)
        yield f"    <{printable(shown(written))}>"
        if fold(written) != fold(address):
            yield f"      (which leads to <{printable(shown(address))}>)"
        if recipient.last is None:
            return
        if notice.action in {Action.FAILED, Action.DELAYED}:
            yield from self._trouble(notice, recipient.last)
        elif recipient.last.peer is not None:
            yield f"      (by way of {printable(named(recipient.last.peer))})"

    def _trouble(self, notice: Notice, last: LastAnswer) -> Iterator[str]:
        yield ""
        text = reason(status(notice), last.peer)
        if notice.action is Action.FAILED and last.is_temporary:
            tried = _span(last.at - notice.recipient.born)
            text += f" It was tried again for {tried}, in vain, and is given up now."
        yield from (f"      {line}" for line in textwrap.wrap(text, WIDTH - 6))
        yield ""
        yield f"      {self._who_said(last)}:"
        yield from (f"        {line}" for line in reply_lines(last.reply))

    def _who_said(self, last: LastAnswer) -> str:
        if last.peer is None:
            return f"{printable(self.host)} says"
        where, command = printable(named(last.peer)), printable(last.peer.command)
        if last.peer.silent:
            return f"{printable(self.host)} says of {where}"
        return _WHO_SAID.get(command, "{where} answered to {command}").format(
            where=where, command=command
        )

    def _attached(self, original: Original) -> str:
        what = "The message" if original.is_whole else "The header of the message"
        return _filled(f"{what} is attached, and the same report in a form for programs.")


def _is_told_of_failure(notice: Notice) -> bool:
    return notice.recipient.target.dsn.wants(Notify.FAILURE)


def _until(end: float | None) -> str:
    return "for some time yet" if end is None else f"until {formatdate(end, localtime=True)}"


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH) + "\n"


def _span(seconds: float) -> str:
    minutes, hours = max(1, round(seconds / 60)), round(seconds / 3600)
    if hours >= 48:
        count, unit = hours // 24, "day"
    else:
        count, unit = (hours, "hour") if minutes >= 60 else (minutes, "minute")
    return f"{count} {unit}{'' if count == 1 else 's'}"

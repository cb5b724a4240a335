"""One mail transaction as a client sees it: commands out, answers in, one result a recipient."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from restante.protocol.smtp import client_commands as commands
from restante.protocol.smtp.client_commands import Command, Kind
from restante.protocol.smtp.client_content import ChunkEncoder, DataEncoder
from restante.protocol.smtp.client_events import (
    Extensions,
    OutgoingMessage,
    OutgoingRecipient,
    Result,
)
from restante.status import Reply

BAD_SENDER = Reply(553, "1.7", "The sender's address cannot be written in SMTP")
BAD_RECIPIENT = Reply(553, "1.3", "The address cannot be written in SMTP")
NO_UTF8_ADDRESS = Reply(553, "6.7", "The receiving host takes no addresses beyond ASCII")
NO_UTF8_HEADER = Reply(550, "6.7", "The receiving host takes no headers in UTF-8")
NO_EIGHT_BIT = Reply(554, "6.3", "The receiving host takes no 8-bit content")

TOO_MANY_TOPICS = frozenset({"", "5.3"})
"""What a reply to RCPT that means too many recipients has for a status (RFC 3463 §3.6), if any."""


class OutOfSync(Exception):
    """A reply that cannot be the answer to its command; the text is fit for a log."""


class _Stage(Enum):
    ENVELOPE = auto()
    DATA_SENT = auto()
    CONTENT = auto()
    ENDED = auto()
    """The whole content is sent, or nobody is left who would get it."""


class Transaction:
    """From MAIL to the answer to the content.

    Ask for ``next_command`` as long as the peer may be sent one, and give every answer
    in the order of the commands. It is over when it has no command, none is
    unanswered, and it does not want content.
    """

    def __init__(
        self, message: OutgoingMessage, extensions: Extensions, *, reset: bool = False
    ) -> None:
        """``reset``: the peer still holds an earlier transaction open."""
        self._chunking = extensions.chunking
        self._encoder = ChunkEncoder() if extensions.chunking else DataEncoder()
        self._results = _foreseen(message, extensions)
        self._undecided = self._results.count(None)
        self._unanswered = self._undecided
        """Recipients whose RCPT has no answer yet."""
        self._unsent: deque[Command] = deque()
        if self._undecided:
            self._unsent.extend([commands.RSET] if reset else [])
            self._unsent.extend(self._envelope(message, extensions))
        self._stage = _Stage.ENVELOPE
        self.needs_reset = reset
        """Whether the peer holds the transaction open, so that RSET must come before the next."""

    def _envelope(self, message: OutgoingMessage, extensions: Extensions) -> list[Command]:
        left = [
            (number, recipient)
            for number, recipient in enumerate(message.recipients)
            if self._results[number] is None
        ]
        beyond_ascii = not all(recipient.address.is_ascii for _, recipient in left)
        smtputf8 = beyond_ascii or _needs_smtputf8(message)
        return [
            commands.mail(message, extensions, smtputf8=smtputf8),
            *(commands.rcpt(number, recipient, extensions) for number, recipient in left),
        ]

    @property
    def results(self) -> tuple[Result, ...]:
        """One result a recipient, in their order; complete once the transaction is over."""
        return tuple(result for result in self._results if result is not None)

    @property
    def wants_content(self) -> bool:
        """Whether somebody would get the content, and it has not all been given."""
        return self._stage is _Stage.CONTENT

    # Out

    def next_command(self) -> Command | None:
        """What may be sent without waiting for any answer, if the peer takes pipelining."""
        if self._unsent:
            return self._unsent.popleft()
        if self._stage is _Stage.ENVELOPE and self._undecided and not self._chunking:
            self._stage = _Stage.DATA_SENT
            return commands.DATA
        return None

    def content(self, text: bytes) -> Command | None:
        """The next octets of the content, with LF line ends, as they are to be sent."""
        wire = self._encoder.feed(text)
        if not wire:
            return None
        return commands.chunk(wire) if self._chunking else commands.block(wire)

    def end_content(self) -> Command:
        """The end of the content."""
        self._stage = _Stage.ENDED
        return commands.end_of_data(self._encoder.finish())

    # In

    def answer(self, command: Command, reply: Reply) -> None:
        """Draw the consequences of the peer's answer to ``command``; raises OutOfSync."""
        if reply.is_success and (reply.code >= 300) != (command.kind is Kind.DATA):
            raise OutOfSync(f"{reply.code} is no answer to {command.name}")
        match command.kind:
            case Kind.RSET if not reply.is_success:
                # What it holds open would take the commands that follow.
                raise OutOfSync(f"{reply.code} is no answer to {command.name}")
            case Kind.MAIL:
                self._mail_answered(command, reply)
            case Kind.RCPT:
                self._rcpt_answered(command, reply)
            case Kind.DATA:
                self._data_answered(command, reply)
            case Kind.CHUNK if not reply.is_success:
                self.decide(reply, command.name)
            case Kind.END:
                self.decide(reply, command.name)
                self.needs_reset = self._chunking and not reply.is_success

    def decide(self, reply: Reply, command: str, *, local: bool = False) -> None:
        """The fate of all recipients that have none yet."""
        result = Result(reply, command, local)
        self._results = [each or result for each in self._results]
        self._undecided = 0
        self._unsent.clear()
        self._stage = _Stage.ENDED

    def _mail_answered(self, command: Command, reply: Reply) -> None:
        self.needs_reset = reply.is_success
        if not reply.is_success:
            self.decide(reply, command.name)

    def _rcpt_answered(self, command: Command, reply: Reply) -> None:
        self._unanswered -= 1
        if not reply.is_success and self._results[command.recipient] is None:
            self._results[command.recipient] = Result(_too_many(reply), command.name)
            self._undecided -= 1
        if self._chunking and not self._unanswered and self._undecided:
            self._stage = _Stage.CONTENT

    def _data_answered(self, command: Command, reply: Reply) -> None:
        if not reply.is_success:
            self.decide(reply, command.name)
        elif self._undecided:
            self._stage = _Stage.CONTENT
        else:
            # All recipients were refused while DATA was on its way (RFC 2920 §3.1).
            self._unsent.append(commands.end_of_data(DataEncoder().finish()))


def _too_many(reply: Reply) -> Reply:
    """A 552 to RCPT means too many recipients, now (RFC 5321 §4.5.3.1.10).

    Unless it says that it means something else: a mailbox that is full (5.2.2) is for good.
    """
    if reply.code == 552 and reply.topic in TOO_MANY_TOPICS:
        return Reply(452, reply.topic, reply.text)
    return reply


# What the client need not ask the peer


def _foreseen(message: OutgoingMessage, extensions: Extensions) -> list[Result | None]:
    """The results that are known from what the peer offers."""
    refusal = _refusal_of_message(message, extensions)
    if refusal is not None:
        name = commands.mail_name(message.reverse_path)
        return [Result(refusal, name, local=True)] * len(message.recipients)
    return [_refusal_of_recipient(recipient, extensions) for recipient in message.recipients]


def _refusal_of_message(message: OutgoingMessage, extensions: Extensions) -> Reply | None:
    if not message.reverse_path.to_path().isprintable():
        return BAD_SENDER
    if extensions.size and message.size > extensions.size:
        text = f"The message has {message.size} octets, the receiving host takes {extensions.size}"
        return Reply(552, "3.4", text)
    if _needs_smtputf8(message) and not extensions.smtputf8:
        return NO_UTF8_HEADER if message.reverse_path.to_path().isascii() else NO_UTF8_ADDRESS
    if message.eight_bit and not extensions.eight_bit:
        return NO_EIGHT_BIT
    return None


def _refusal_of_recipient(recipient: OutgoingRecipient, extensions: Extensions) -> Result | None:
    if not recipient.address.to_path().isprintable():
        reply = BAD_RECIPIENT
    elif not recipient.address.is_ascii and not extensions.smtputf8:
        reply = NO_UTF8_ADDRESS
    else:
        return None
    return Result(reply, commands.rcpt_name(recipient.address), local=True)


def _needs_smtputf8(message: OutgoingMessage) -> bool:
    return message.smtputf8 or not message.reverse_path.to_path().isascii()

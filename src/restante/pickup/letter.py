"""Reads a dropped file, which any user of the host may have written, into a message."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

from restante.address import (
    NULL_REVERSE_PATH,
    VERP,
    Address,
    AddressSyntaxError,
    NullReversePath,
    ReversePath,
    sender_for,
)
from restante.drop.record import (
    HEAD_SIZE,
    BadRecord,
    Head,
    Recipient,
    Record,
    decode,
    decode_head,
)
from restante.envelope import Content, Envelope, Notify, RecipientDsn, invocation_field
from restante.protocol.smtp.dsn import (
    MAX_ENVID,
    MAX_ORCPT,
    DsnSyntaxError,
    encode_orcpt,
    encode_xtext,
    parse_envid,
    parse_orcpt,
)
from restante.queue import Target
from restante.spool import Spool
from restante.status import PermanentFailure, Reply
from restante.threads import in_thread

BLOCK = 256 * 1024
"""Octets that are read at a time."""

_LOWERED = "a limit was lowered after it was dropped"
TOO_LARGE = PermanentFailure(
    Reply(552, "3.4", "the message is larger than is allowed by now"), _LOWERED
)
HEADER_TOO_LARGE = PermanentFailure(
    Reply(552, "3.4", "the message header is larger than is allowed by now"), _LOWERED
)
LOOPING = PermanentFailure(
    Reply(554, "4.6", "too many Received fields: the message is looping"), _LOWERED
)
NO_ADDRESS = PermanentFailure(
    Reply(553, "1.3", "what was given as this recipient, before the last @, is no address")
)

_NOTIFY = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}
_NO_FILE = frozenset({errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.EAGAIN})
"""What opening a symbolic link, a file without rights, a socket, or a file on which its owner
holds a lease says."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Qualified = Callable[[Address], Address]
"""The address with a domain, as routing completes one without."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a dropped message may be; they are those of a message that comes by SMTP."""

    databytes: int
    """Octets of its content with LF line ends; 0: no limit."""
    max_received: int


class DroppedFile:
    """An open file that its owner may still be writing to: nothing is read twice."""

    def __init__(self, path: str) -> None:
        """Raises BadRecord for a link and the like, and OSError."""
        try:
            self._file = os.open(path, _FLAGS)
        except OSError as error:
            if error.errno in _NO_FILE:
                raise BadRecord(f"it cannot be opened: {error.strerror}") from error
            raise
        try:
            self._facts = os.fstat(self._file)
        except OSError:
            self.close()
            raise

    def check(self) -> None:
        """Raise BadRecord unless it is a plain file that has this name only."""
        if not stat.S_ISREG(self._facts.st_mode):
            raise BadRecord("it is no plain file")
        # Under its other name it may be a file that whoever linked it may not read.
        if self._facts.st_nlink != 1:
            raise BadRecord("it has other names")

    @property
    def uid(self) -> int:
        """Whose it is."""
        return self._facts.st_uid

    @property
    def modified_at(self) -> float:
        """When its owner says that it was written, in seconds since the epoch."""
        return self._facts.st_mtime

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._file)

    async def read_record(self) -> tuple[Head, Record]:
        """Sizes and envelope; raises BadRecord and NewerRecord."""
        head = decode_head(await self._read(HEAD_SIZE))
        if head.file_size != self._facts.st_size:
            raise BadRecord(f"it has {self._facts.st_size} octets instead of {head.file_size}")
        return head, decode(await self._read(head.envelope))

    async def read_content(self, size: int) -> AsyncIterator[bytes]:
        """Blocks of so many octets together, which come next; raises BadRecord."""
        while size:
            block = await self._read(min(size, BLOCK))
            if b"\r" in block:
                raise BadRecord("its content has a CR")
            size -= len(block)
            yield block

    async def _read(self, size: int) -> bytes:
        """Exactly so many octets; raises BadRecord where the file ends before, and OSError."""
        octets = b""
        while len(octets) < size:
            # Less may come before the end, too: a disk that cannot read on gives what it could
            # read, and its error the next time.
            more = await in_thread(os.read, self._file, size - len(octets))
            if not more:
                raise BadRecord("it has become shorter")
            octets += more
        return octets


@dataclass(frozen=True, slots=True)
class Letter:
    """A dropped message, ready for the queue."""

    envelope: Envelope
    content: Content
    targets: tuple[Target, ...]
    failure: PermanentFailure | None = None
    """What its sender is told where nobody can be sent it, or where it exceeds a limit, which may
    have been higher when the program that left it was told that all is well."""


async def read_letter(
    file: DroppedFile,
    spool: Spool,
    limits: Limits,
    host: str,
    queue_id: str,
    now: float,
    qualified: Qualified,
) -> Letter:
    """The message in ``file``, its content in ``spool``.

    Of one that is too large only the beginning: its sender gets the header back, and the rest may
    be a hole in a file, which would fill the disk. Raises BadRecord, TemporaryError and OSError.
    """
    file.check()
    head, record = await file.read_record()
    is_too_large = 0 < limits.databytes < head.content
    eight_bit, last = False, b"\n"
    async for block in file.read_content(
        min(head.content, BLOCK) if is_too_large else head.content
    ):
        eight_bit = eight_bit or not block.isascii()
        last = block[-1:]
        await spool.write(block)
    if last != b"\n" and not is_too_large:
        raise BadRecord("its last line does not end in LF")
    envelope = _envelope(record, queue_id, now, eight_bit=eight_bit)
    targets = _targets(record, envelope, qualified)
    if spool.is_large:
        await spool.spill()
    content = spool.finish(invocation_field(file.uid, host, queue_id, envelope.recipients, now))
    if is_too_large:
        return Letter(replace(envelope, ret="HDRS"), content, targets, TOO_LARGE)
    if spool.header_too_large:
        return Letter(envelope, content, targets, HEADER_TOO_LARGE)
    if content.facts.received > limits.max_received:
        return Letter(envelope, content, targets, LOOPING)
    return Letter(envelope, content, targets, NO_ADDRESS if record.no_addresses else None)


def _envelope(record: Record, queue_id: str, now: float, *, eight_bit: bool) -> Envelope:
    """As the record has it; raises BadRecord."""
    addresses = tuple(_address(recipient.address) for recipient in record.recipients)
    sender = _sender(record.sender.removesuffix(VERP))
    is_ascii = all(
        isinstance(each, NullReversePath) or each.is_ascii for each in (sender, *addresses)
    )
    return Envelope(
        queue_id,
        sender,
        addresses,
        now,
        eight_bit=eight_bit,
        smtputf8=record.smtputf8 or not is_ascii,
        ret=_ret(record.ret),
        envid=_envid(record.envid),
    )


def _targets(record: Record, envelope: Envelope, qualified: Qualified) -> tuple[Target, ...]:
    """The recipients, each with a sender of its own if the record asks for that (VERP).

    Reports and senders name addresses, and those have a domain.
    """
    each_its_own = f"{envelope.reverse_path}{VERP}" if record.sender.endswith(VERP) else None
    return tuple(
        Target(
            str(whole),
            dsn=_dsn(recipient),
            reverse_path=each_its_own and sender_for(each_its_own, member),
        )
        for address, recipient in zip(envelope.recipients, record.recipients, strict=True)
        for whole in [qualified(address)]
        for member in [Address.from_stored(address.local) if record.no_addresses else whole]
    )


def _sender(text: str) -> ReversePath:
    if not text:
        return NULL_REVERSE_PATH
    address = _address(text)
    if not address.domain:
        raise BadRecord(f"{text[:100]!r} has no domain")
    return address


def _address(text: str) -> Address:
    """The address, which may have no domain."""
    try:
        return Address.parse(text)
    except (AddressSyntaxError, UnicodeEncodeError) as error:
        raise BadRecord(f"{text[:100]!r} is no address: {error}") from None


def _ret(text: str) -> Literal["", "FULL", "HDRS"]:
    if text not in {"", "FULL", "HDRS"}:
        raise BadRecord(f"{text[:100]!r} is no RET")
    return cast("Literal['', 'FULL', 'HDRS']", text)


def _dsn(recipient: Recipient) -> RecipientDsn:
    orcpt = _orcpt(recipient.orcpt)
    if not recipient.notify:
        return RecipientDsn(orcpt=orcpt)
    if recipient.notify == "NEVER":
        return RecipientDsn(Notify.NEVER, orcpt)
    notify = Notify.NEVER
    for word in recipient.notify.split(","):
        if word not in _NOTIFY:
            raise BadRecord(f"{word[:100]!r} is no NOTIFY")
        notify |= _NOTIFY[word]
    return RecipientDsn(notify, orcpt)


def _envid(text: str) -> str:
    return _reread("ENVID", text, MAX_ENVID, encode_xtext, parse_envid)


def _orcpt(text: str) -> str:
    return _reread("ORCPT", text, MAX_ORCPT, encode_orcpt, partial(parse_orcpt, smtputf8=False))


def _reread(
    name: str, text: str, longest: int, encode: Callable[[str], str], parse: Callable[[str], str]
) -> str:
    """``text`` if the next host can read it; empty where it is too long as SMTP writes it.

    Any program may write a file, and measure it as it is: it was told that all is well.
    """
    value = encode(text[: longest + 1])  # which makes nothing shorter
    if not text or len(value) > longest:
        return ""
    try:
        return parse(value)
    except DsnSyntaxError:
        raise BadRecord(f"{text[:100]!r} is no {name}") from None

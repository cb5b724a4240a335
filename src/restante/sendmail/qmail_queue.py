"""qmail-queue: a message on descriptor 0, its envelope on descriptor 1 (qmail-queue(8)).

What qmail's own programs send by, and others that were written for it: qmail-inject, forward,
fastforward, ezmlm. They go on as they are, with this in the place of qmail's.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import BinaryIO

from restante.address_syntax import (
    DOUBLE_BOUNCE,
    MAX_LOCAL_PART,
    VERP,
    AddressSyntaxError,
    join_mailbox,
    split_mailbox,
)
from restante.completion import split_header
from restante.drop.record import MAX_ENVELOPE, MAX_RECIPIENTS, Recipient, Record
from restante.sendmail import NO_INSTANCE, Refusal
from restante.sendmail.message import Home, check_header, leave
from restante.sendmail.program import home_of
from restante.sendmail.source import BLOCK, Source, body_text, header_text, standard_input

ENVELOPE = 1
"""The descriptor on which the envelope comes, once the message was read to its end."""
_END = b"\0\0"

TOO_LONG, REFUSED = 11, 31
"""Exit codes of failures for good; 11 to 40 are."""
WRITE_ERROR, READ_ERROR, NO_CONFIGURATION, BUG, BAD_ENVELOPE = 53, 54, 55, 81, 91
"""Exit codes of those that may be gone at the next try."""
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_CODES = {
    os.EX_DATAERR: REFUSED,
    os.EX_IOERR: READ_ERROR,
    NO_INSTANCE: NO_CONFIGURATION,
}
"""What the sendmail program's statuses are here; of all others, WRITE_ERROR."""


class _Failed(Exception):
    """The program ends here, with an exit code and a word about it."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def main() -> None:
    """Take the message and end the process with an exit code of qmail-queue(8).

    A failure is told of on descriptor 2, if the caller has left it open: those that qmail's own
    programs have for the codes do not say much, and none which address it is about.
    """
    try:
        _run(os.environ)
        code = 0
    except _Failed as failed:
        code = failed.code
        _say(failed)
    except Refusal as refusal:
        code = _CODES.get(refusal.status, WRITE_ERROR)
        _say(refusal)
    except OSError as error:
        code = WRITE_ERROR
        _say(error)
    except Exception as error:  # noqa: BLE001 - a bug is a failure for now
        code = BUG
        _say(error)
    # Not sys.exit: at its end the interpreter would flush standard output, which is no output.
    os._exit(code)


def _say(error: Exception) -> None:
    text = f"qmail-queue: {error}"
    plain = text if text.isprintable() else text.encode("unicode_escape").decode()
    with contextlib.suppress(OSError):
        os.write(2, f"{plain}\n".encode())


def _run(environ: Mapping[str, str]) -> None:
    home = home_of(environ)
    with tempfile.TemporaryFile() as spool:
        # Whoever sends writes all of the message before the envelope, and would wait for ever.
        for block in _message(home):
            spool.write(block)
        records = _records(_envelope(), home)
        leave(home, records, lambda: _blocks(spool))


def _message(home: Home) -> Iterator[bytes]:
    """The message as it came, but for CRs; raises Refusal."""
    source = Source(standard_input(), home.site, ends_with_dot=False)
    start = source.start()
    _, end = split_header(start)
    octets = header_text(start[:end]) + body_text(start[end:])
    header = _header_of(octets)
    check_header(len(_RECEIVED.findall(header)), len(header), home.site)
    yield octets
    for block in source.rest():
        yield body_text(block)


def _header_of(octets: bytes) -> bytes:
    """All up to the first empty line, fields or not: to the server they are the header."""
    end = (b"\n" + octets).find(b"\n\n")
    return octets[:end] if end >= 0 else octets


def _blocks(spool: BinaryIO) -> Iterator[bytes]:
    spool.seek(0)
    while block := spool.read(BLOCK):
        yield block


def _envelope() -> list[bytes]:
    """``F``, the sender, and a ``T`` and a recipient each."""
    octets = b""
    while _END not in octets:
        try:
            block = os.read(ENVELOPE, BLOCK)
        except OSError as error:
            raise _Failed(READ_ERROR, f"the envelope cannot be read: {error.strerror}") from None
        if not block:
            raise _Failed(READ_ERROR, "the envelope ends before its end")
        octets += block
        if len(octets) > MAX_ENVELOPE:
            raise _Failed(TOO_LONG, f"the envelope is larger than {MAX_ENVELOPE} octets")
    return octets[: octets.index(_END)].split(b"\0")


def _records(parts: list[bytes], home: Home) -> list[Record]:
    """The envelopes: a message has so many recipients at most, and some of them may be none.

    qmail-queue takes whatever is given to it, and one address that was misspelt years ago must
    not keep a list's mail from all the others: it comes back alone. It does so, too, where nobody
    else is named: ezmlm-warn writes to one member at a time, and a failure ends it for all others.
    """
    sender, *recipients = parts
    if not sender.startswith(b"F") or not all(part.startswith(b"T") for part in recipients):
        raise _Failed(BAD_ENVELOPE, "the envelope is none")
    reverse_path = _sender(sender[1:], home)
    good: dict[str, None] = {}
    bad: dict[str, None] = {}
    for part in dict.fromkeys(recipients):
        try:
            good[_mailbox(part[1:])] = None
        except AddressSyntaxError:
            bad[_shown(part[1:])] = None
    return [
        *(Record(reverse_path, some) for some in _parted(good)),
        *(
            Record(reverse_path, some, no_addresses=True)
            for some in _parted(join_mailbox(text, home.site.me) for text in bad)
        ),
    ]


def _parted(addresses: Iterable[str]) -> Iterator[tuple[Recipient, ...]]:
    left = map(Recipient, addresses)
    while some := tuple(islice(left, MAX_RECIPIENTS)):
        yield some


def _shown(octets: bytes) -> str:
    """What is no address as a local part can hold it, for its sender to know it again."""
    text = octets.decode("utf-8", "backslashreplace")
    plain = text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
    return plain[:MAX_LOCAL_PART] or "''"


def _sender(octets: bytes, home: Home) -> str:
    if octets in {b"", DOUBLE_BOUNCE.encode()}:
        return ""
    own = octets.removesuffix(VERP.encode())
    try:
        if own != octets and b"@" in own:
            return _mailbox(own) + VERP
        return _mailbox(octets if b"@" in octets else octets + f"@{home.hosts.whole('')}".encode())
    except AddressSyntaxError:
        raise _Failed(REFUSED, f"the sender {_shown(octets)!r} is no address") from None


def _mailbox(octets: bytes) -> str:
    """The address, which comes without quoting, as SMTP writes it; raises AddressSyntaxError."""
    try:
        local, at, domain = octets.decode().rpartition("@")
    except UnicodeDecodeError as error:
        raise AddressSyntaxError(str(error)) from None
    if at and not domain:
        raise AddressSyntaxError("the domain is empty")
    mailbox = join_mailbox(local, domain) if at else join_mailbox(domain, "")
    split_mailbox(mailbox)
    return mailbox


if __name__ == "__main__":
    main()

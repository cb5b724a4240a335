"""qmail-queue: a message on descriptor 0, its envelope on descriptor 1 (qmail-queue(8)).

What qmail's own programs send by, and others that were written for it: qmail-inject, forward,
fastforward, ezmlm. They go on as they are, with this in the place of qmail's.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from restante.address_syntax import (
    DOUBLE_BOUNCE,
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
    """The program ends here; the argument is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main() -> None:
    """Take the message and end the process with an exit code of qmail-queue(8), without a word.

    Whoever called it may have no descriptor for words: standard output is the envelope.
    """
    try:
        code = _run(os.environ)
    except _Failed as failed:
        code = failed.code
    except Refusal as refusal:
        code = _CODES.get(refusal.status, WRITE_ERROR)
    except OSError:
        code = WRITE_ERROR
    except Exception:  # noqa: BLE001 - a bug is a failure for now
        code = BUG
    # Not sys.exit: at its end the interpreter would flush standard output, which is no output.
    os._exit(code)


def _run(environ: Mapping[str, str]) -> int:
    home = home_of(environ)
    with tempfile.TemporaryFile() as spool:
        # Whoever sends writes all of the message before the envelope, and would wait for ever.
        for block in _message(home):
            spool.write(block)
        record = _record(_envelope(), home)
        if record.recipients:
            spool.seek(0)
            leave(home, record, _blocks(spool))
    return 0


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
    while block := spool.read(BLOCK):
        yield block


def _envelope() -> list[bytes]:
    """``F``, the sender, and a ``T`` and a recipient each."""
    octets = b""
    while _END not in octets:
        try:
            block = os.read(ENVELOPE, BLOCK)
        except OSError:
            raise _Failed(READ_ERROR) from None
        if not block:
            raise _Failed(READ_ERROR)
        octets += block
        if len(octets) > MAX_ENVELOPE:
            raise _Failed(TOO_LONG)
    return octets[: octets.index(_END)].split(b"\0")


def _record(parts: list[bytes], home: Home) -> Record:
    sender, *recipients = parts
    if not sender.startswith(b"F") or not all(part.startswith(b"T") for part in recipients):
        raise _Failed(BAD_ENVELOPE)
    if len(recipients) > MAX_RECIPIENTS:
        raise _Failed(REFUSED)
    distinct = dict.fromkeys(_mailbox(_text(part)) for part in recipients)
    return Record(_sender(_text(sender), home), tuple(map(Recipient, distinct)))


def _text(part: bytes) -> str:
    try:
        return part[1:].decode()
    except UnicodeDecodeError:
        raise _Failed(REFUSED) from None


def _sender(text: str, home: Home) -> str:
    if text in {"", DOUBLE_BOUNCE}:
        return ""
    if text.endswith(VERP) and "@" in (own := text.removesuffix(VERP)):
        return _mailbox(own) + VERP
    return _mailbox(text if "@" in text else f"{text}@{home.hosts.whole('')}")


def _mailbox(text: str) -> str:
    """The address, which comes without quoting, as SMTP writes it."""
    local, at, domain = text.rpartition("@")
    if at and not domain:
        raise _Failed(REFUSED)
    mailbox = join_mailbox(local, domain) if at else join_mailbox(domain, "")
    try:
        split_mailbox(mailbox)
    except AddressSyntaxError:
        raise _Failed(REFUSED) from None
    return mailbox


if __name__ == "__main__":
    main()

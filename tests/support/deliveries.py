"""Messages and mailboxes for the tests of final delivery."""

from __future__ import annotations

import os
import time
from pathlib import Path

from restante.address import Address
from restante.directory import Account
from restante.envelope import Envelope, HeaderFacts, memory_content
from restante.mda import Delivery

HOST = "mx.example.com"
OWNER = 12345 if os.geteuid() == 0 else os.geteuid()
GROUP = 12345 if os.geteuid() == 0 else os.getegid()
TRACE = b"Received: from localhost\n\tby mx.example.com\n"
BODY = b"Subject: hello\n\nHello.\n"
CONTENT = memory_content(TRACE, BODY, HeaderFacts(received=1))


def envelope(number: int = 0) -> Envelope:
    """An envelope of its own for each number."""
    sender = Address("paul", "example.org")
    return Envelope(f"queue{number:010}", sender, (), 1_700_000_000.0)


def account(name: str = "iain", home: str = "/", uid: int = OWNER, gid: int = GROUP) -> Account:
    """Somebody whose files this process may write."""
    return Account(name, uid, gid, home)


def delivery(root: Path, name: str = "iain", *via: str, uid: int = OWNER) -> Delivery:
    """One for ``name@example.com``, whose home is ``root/example.com/name``."""
    home = str(root / "example.com" / name)
    return Delivery(f"{home}/Maildir", account(name, home, uid), (f"{name}@example.com", *via))


def settle(*deliveries: Delivery) -> None:
    """Let the Maildirs look as if they had been made long ago."""
    long_ago = time.time() - 3600
    for each in deliveries:
        os.utime(each.maildir, (long_ago, long_ago))


def messages(each: Delivery, part: str = "new") -> dict[str, bytes]:
    """The files that a reader would see, by name."""
    directory = Path(each.maildir, part)
    return {path.name: path.read_bytes() for path in directory.glob("*")}


def expected(each: Delivery, trace_and_body: bytes = TRACE + BODY) -> bytes:
    """The file that a delivery of CONTENT must leave."""
    fields = "".join(f"Delivered-To: {value}\n" for value in each.delivered_to)
    return f"Return-Path: <paul@example.org>\n{fields}".encode() + trace_and_body

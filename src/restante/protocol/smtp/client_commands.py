"""The commands of an SMTP client, and how long their answers may take."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from restante.address import Address, ReversePath
from restante.envelope import Notify, RecipientDsn
from restante.protocol.smtp.client_events import Extensions, OutgoingMessage, OutgoingRecipient
from restante.protocol.smtp.dsn import encode_orcpt, encode_xtext

COMMAND_TIMEOUT = 300.0
"""Seconds; for the greeting, MAIL, RCPT and what has none of its own (RFC 5321 §4.5.3.2.1-3)."""
DATA_TIMEOUT = 120.0
"""Seconds until the answer to DATA (RFC 5321 §4.5.3.2.4)."""
BLOCK_TIMEOUT = 180.0
"""Seconds until the peer has taken one block of content (RFC 5321 §4.5.3.2.5)."""
END_TIMEOUT = 600.0
"""Seconds until a content is answered (RFC 5321 §4.5.3.2.6)."""
QUIT_TIMEOUT = 10.0
"""Seconds until the answer to QUIT: nothing hangs on it any more."""

MAX_COMMAND = 512
"""Octets in a command line with its CRLF (RFC 5321 §4.5.3.1.4)."""

_SIZE = re.compile(r"[0-9]{1,20}")
"""The limit of SIZE (RFC 1870 §5)."""


class Kind(Enum):
    """What an answer answers."""

    GREETING = auto()
    """The opening of the connection."""
    EHLO = auto()
    HELO = auto()
    STARTTLS = auto()
    AUTH = auto()
    RSET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    BLOCK = auto()
    """A piece of the content after DATA, which has no answer."""
    CHUNK = auto()
    """A BDAT that is not the last."""
    END = auto()
    """The end of data, the last BDAT."""
    QUIT = auto()


_TIMEOUTS: Mapping[Kind, float] = {
    Kind.DATA: DATA_TIMEOUT,
    Kind.CHUNK: END_TIMEOUT,
    Kind.END: END_TIMEOUT,
    Kind.QUIT: QUIT_TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Command:
    """Octets that the peer answers with one reply, a BLOCK aside."""

    kind: Kind
    wire: bytes
    name: str
    """The command as logs and reports write it, without parameters and passwords."""
    recipient: int = -1
    """Which recipient a RCPT names, counted from 0."""

    @property
    def timeout(self) -> float:
        """Seconds that the answer may take."""
        return _TIMEOUTS.get(self.kind, COMMAND_TIMEOUT)


GREETING = Command(Kind.GREETING, b"", "greeting")
STARTTLS = Command(Kind.STARTTLS, b"STARTTLS\r\n", "STARTTLS")
RSET = Command(Kind.RSET, b"RSET\r\n", "RSET")
DATA = Command(Kind.DATA, b"DATA\r\n", "DATA")
QUIT = Command(Kind.QUIT, b"QUIT\r\n", "QUIT")


def hello(kind: Kind, name: str) -> Command:
    """EHLO or HELO."""
    line = f"{kind.name} {name}"
    return Command(kind, f"{line}\r\n".encode(), line)


def auth(mechanism: str, wire: bytes) -> Command:
    """A line of an authentication, without CRLF."""
    return Command(Kind.AUTH, wire + b"\r\n", f"AUTH {mechanism}")


def block(wire: bytes) -> Command:
    """A piece of the content after DATA."""
    return Command(Kind.BLOCK, wire, "content")


def end_of_data(wire: bytes) -> Command:
    """The last octets of a content."""
    return Command(Kind.END, wire, "end of data")


def chunk(wire: bytes) -> Command:
    """A BDAT that is not the last."""
    return Command(Kind.CHUNK, wire, "BDAT")


def mail_name(path: ReversePath) -> str:
    """How MAIL is written in logs and reports."""
    return _printable(f"MAIL FROM:{path.to_path()}")


def rcpt_name(address: Address) -> str:
    """How RCPT is written in logs and reports."""
    return _printable(f"RCPT TO:{address.to_path()}")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def mail(message: OutgoingMessage, extensions: Extensions, *, smtputf8: bool) -> Command:
    """MAIL with the parameters that the peer has offered."""
    name = mail_name(message.reverse_path)
    words = [name]
    if extensions.size is not None:
        words.append(f"SIZE={message.size}")
    if message.eight_bit and extensions.eight_bit:
        words.append("BODY=8BITMIME")
    if smtputf8:
        words.append("SMTPUTF8")
    if extensions.dsn and message.ret:
        words.append(f"RET={message.ret}")
    if extensions.dsn and message.envid:
        words.append(f"ENVID={encode_xtext(message.envid)}")
    return Command(Kind.MAIL, f"{' '.join(words)}\r\n".encode(), name)


def rcpt(number: int, recipient: OutgoingRecipient, extensions: Extensions) -> Command:
    """RCPT for the recipient of this number, with the parameters that the peer has offered."""
    name = rcpt_name(recipient.address)
    words = [name, *(_dsn_words(recipient.dsn) if extensions.dsn else [])]
    return Command(Kind.RCPT, f"{' '.join(words)}\r\n".encode(), name, number)


def _dsn_words(dsn: RecipientDsn) -> list[str]:
    words = []
    if dsn.notify is not None:
        kinds = [kind.name or "" for kind in Notify if kind in dsn.notify]
        words.append(f"NOTIFY={','.join(kinds) or 'NEVER'}")
    if dsn.orcpt:
        words.append(f"ORCPT={encode_orcpt(dsn.orcpt)}")
    return words


def sasl_responses(mechanism: str, login: str, password: str) -> list[bytes]:
    """The client's lines in an exchange, without CRLF; raises ValueError for another mechanism."""
    match mechanism:
        case "PLAIN":
            return [_base64(f"\0{login}\0{password}")]  # RFC 4616 §2
        case "LOGIN":
            return [_base64(login), _base64(password)]
    raise ValueError(f"no mechanism of this client: {mechanism}")


def _base64(text: str) -> bytes:
    return base64.b64encode(text.encode())


def parse_extensions(text: str) -> Extensions:
    """What the reply to EHLO offers; ``text`` is all of it, its first line a name."""
    offered: dict[str, list[str]] = {}
    for line in text.upper().split("\n")[1:]:
        # AUTH=PLAIN is how servers wrote it before RFC 2554, some to this day.
        keyword, *words = line.replace("AUTH=", "AUTH ", 1).split() or [""]
        offered.setdefault(keyword, []).extend(words)
    return Extensions(
        extended=True,
        pipelining="PIPELINING" in offered,
        size=_size(offered["SIZE"]) if "SIZE" in offered else None,
        eight_bit="8BITMIME" in offered,
        smtputf8="SMTPUTF8" in offered,
        chunking="CHUNKING" in offered,
        dsn="DSN" in offered,
        starttls="STARTTLS" in offered,
        auth=frozenset(offered.get("AUTH", ())),
    )


def _size(words: list[str]) -> int:
    """The limit named; 0 if none is, or none that can be read (RFC 1870 §3)."""
    word = words[0] if words else ""
    return int(word) if _SIZE.fullmatch(word) else 0

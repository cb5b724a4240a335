"""Replies, enhanced status codes, and what becomes of a recipient.

A status is one value: its class is the first digit of the reply code, stored
once, so that basic and enhanced codes cannot disagree (RFC 3463, RFC 2034).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from restante.records import record

MAX_REPLY_LINE = 512
"""Octets in one reply line with its CRLF (RFC 5321 §4.5.3.1.5)."""
CHALLENGE = 334
"""The server's part of an authentication follows (RFC 4954 §4)."""
MAX_CHALLENGE_LINE = 12_288
"""Octets in the line of a challenge with its CRLF: what is cut is no base64 (RFC 4954 §4)."""


@record
class Reply:
    """An SMTP reply: its code, its enhanced status without the class, and its text.

    ``Reply(550, "1.1", "no such user")`` is ``550 5.1.1 no such user``. A reply
    without an enhanced status has an empty ``topic`` (greeting, EHLO, 354: RFC 2034 §4).
    ``text`` may hold several lines, parted by ``\\n``.
    """

    code: int
    topic: str
    text: str
    _wire: bytes | None = field(default=None, init=False, repr=False, compare=False)
    """What ``encode`` has found: most replies are given many times."""

    @property
    def enhanced(self) -> str:
        """The enhanced status code, ``5.1.1``, or an empty string (RFC 3463 §2)."""
        return f"{self.code // 100}.{self.topic}" if self.topic else ""

    @property
    def is_success(self) -> bool:
        """Whether the command did what it asked for (2xx or 3xx)."""
        return self.code < 400

    @property
    def is_temporary(self) -> bool:
        """Whether the same command may work later (4xx)."""
        return 400 <= self.code < 500

    def __str__(self) -> str:
        """The reply as one line, for logs and reports."""
        parts = (str(self.code), self.enhanced, self.text.replace("\n", " / "))
        return " ".join(part for part in parts if part)

    def encode(self) -> bytes:
        """The reply as it goes to the peer, every line within RFC 5321 §4.5.3.1.5.

        But for a challenge, which has more room.
        """
        wire = self._wire
        if wire is None:
            wire = self._encoded()
            object.__setattr__(self, "_wire", wire)
        return wire

    def _encoded(self) -> bytes:
        code = str(self.code)
        status = f" {code[0]}.{self.topic}" if self.topic else ""
        wire = f"{code}{status} {self.text}\r\n".encode()
        longest = MAX_CHALLENGE_LINE if self.code == CHALLENGE else MAX_REPLY_LINE
        if len(wire) <= longest and "\n" not in self.text:
            return wire
        return self._encode_lines()

    def _encode_lines(self) -> bytes:
        prefix = f"{self.enhanced} " if self.topic else ""
        lines = self.text.split("\n")
        room = MAX_REPLY_LINE - len("250-\r\n") - len(prefix)
        wire = []
        for number, line in enumerate(lines, start=1):
            mark = " " if number == len(lines) else "-"
            text = line.encode("utf-8")[:room].decode("utf-8", "ignore")
            wire.append(f"{self.code}{mark}{prefix}{text}\r\n")
        return "".join(wire).encode("utf-8")


@dataclass(frozen=True, slots=True)
class Peer:
    """The other host that had the last word on a recipient, and what it was answering."""

    host: str
    """Its name: the MX, the smarthost."""
    address: str
    """Its IP address, with the port where that is not 25; empty if none was reached."""
    command: str
    """The command that was answered, as it was sent: ``RCPT TO:<x@example.com>``, ``end of data``,
    ``connect``, ``greeting``, ``STARTTLS``."""
    tls: str = ""
    """Version and cipher, as in ``TLSv1.3 TLS_AES_256_GCM_SHA384``; empty: clear text."""
    dsn: bool = False
    """It takes part in RFC 3461: notifications of success are its duty now."""
    silent: bool = False
    """It did not say what stands with it: those are this host's words about it."""

    @property
    def place(self) -> str:
        """Name and address in one, for people; an address once where there is no name."""
        if not self.address:
            return self.host
        place = self.address if self.address.startswith("[") else f"[{self.address}]"
        return place if self.host.startswith("[") else f"{self.host} {place}"


@record
class Delivered:
    """The message is durably where this recipient's mail belongs."""

    detail: str
    """Where it is, for the log: a path, a remote's reply."""
    peer: Peer | None = None
    """The host that accepted it; None for a mailbox here."""


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """Not now; the recipient is tried again until the queue lifetime is over."""

    reply: Reply
    """What a peer or a delay report is told: where ``peer`` is set, that host's own words,
    unless it was silent."""
    detail: str = ""
    """What only the log is told."""
    peer: Peer | None = None
    at_once: bool = False
    """Others got the message, and this recipient was one too many for the same transaction
    (RFC 5321 §4.5.3.1.10): the next is its own."""
    pause: float = 0.0
    """Seconds until it is tried again, though its time be up: it had to stand back for others, and
    that is no answer. 0: by its age."""


@dataclass(frozen=True, slots=True)
class PermanentFailure:
    """Never; the sender gets a bounce."""

    reply: Reply
    detail: str = ""
    peer: Peer | None = None


Outcome = Delivered | TemporaryFailure | PermanentFailure
"""Every delivery ends in exactly one of the three, per recipient."""

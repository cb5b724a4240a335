"""What a server has promised in a period of a campaign, and what is there at its end."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_TOKEN = re.compile(rb"^X-Token: (\d+)\r?\nX-Sum: (\d+)\r?\n", re.MULTILINE)
_ID = re.compile(rb"\bid ([0-9a-z]+)")
_DELIVERED = re.compile(r" event=message_accepted .* id=(\S+) .* how=delivered ")

Pair = tuple[int, str]
"""A message's token and a mailbox that has it, or is to have it."""


class TornError(Exception):
    """A message is not what was sent."""


@dataclass(frozen=True)
class Copy:
    """A message that somebody has got."""

    token: int
    """Which one it is."""
    queue_id: str
    """What the server calls it."""


def content(token: int, octets: int) -> bytes:
    """A message of about ``octets`` octets by which it can be told whether it is whole."""
    line = b"%012d " % token + b"x" * 57 + b"\r\n"
    body = line * max(1, octets // len(line))
    return b"X-Token: %d\r\nX-Sum: %d\r\nSubject: endurance\r\n\r\n" % (token, _sum(body)) + body


def read_copy(message: bytes) -> Copy:
    """What came.

    Raises TornError if it is not, octet by octet, what was sent.
    """
    header, _, body = message.replace(b"\r\n", b"\n").partition(b"\n\n")
    match = _TOKEN.search(header + b"\n")
    queue_id = _ID.search(header)
    if match is None or queue_id is None or _sum(body) != int(match[2]):
        raise TornError(message[:400])
    return Copy(int(match[1]), queue_id[1].decode())


def _sum(body: bytes) -> int:
    return zlib.crc32(body.replace(b"\r\n", b"\n"))


@dataclass(frozen=True)
class Verdict:
    """What became of the messages of a period."""

    faults: list[str]
    """Every broken promise, in words."""
    repeated: int
    """Copies that came again after their reader had deleted them: of messages that waited in the
    queue, when the server was killed between a delivery and its record (docs/internals.md)."""


@dataclass
class Ledger:
    """One period. Tokens grow, so that a message of a former one is known by its token."""

    first: int
    """The first token of this period."""
    acknowledged: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """The mailboxes of each message that was answered with 250."""
    fetched: dict[Pair, list[Copy]] = field(default_factory=lambda: defaultdict(list))
    """Read, and deleted by a QUIT that was answered with +OK."""
    perhaps: set[Pair] = field(default_factory=set)
    """Read, and deleted by a QUIT whose answer never came, or was not +OK."""
    found: dict[Pair, list[Copy]] = field(default_factory=lambda: defaultdict(list))
    """In a Maildir when the server had been stopped."""
    torn: list[str] = field(default_factory=list)

    def harvest(self, mailbox: str, maildir: Path) -> None:
        """Take all messages out of a Maildir that nobody delivers into."""
        for part in ("new", "cur"):
            if (maildir / part).is_dir():
                for path in (maildir / part).iterdir():
                    self._take(mailbox, path)
                    path.unlink()

    def _take(self, mailbox: str, path: Path) -> None:
        try:
            copy = read_copy(path.read_bytes())
        except TornError as error:
            self.torn.append(f"{path}: {error}")
        else:
            self.found[copy.token, mailbox].append(copy)

    def judge(self, log: str) -> Verdict:
        """What became of it all; ``log`` is what the server said in this period."""
        at_once = set(_DELIVERED.findall(log))
        faults = [f"torn: {each}" for each in self.torn]
        faults += [f"lost: {token} for {mailbox}" for token, mailbox in self._missing()]
        repeated = 0
        for pair in self.found.keys() | self.fetched.keys():
            token, mailbox = pair
            found, fetched = self.found.get(pair, []), self.fetched.get(pair, [])
            if token < self.first:
                faults.append(f"came back: {token} in {mailbox}")
            elif len(found) > 1 or len(found) + len(fetched) > 1:
                if len(found) > 1 or fetched[0].queue_id in at_once:
                    faults.append(f"doubled: {token} in {mailbox}: {found} and {fetched}")
                repeated += 1
        return Verdict(faults, repeated)

    def _missing(self) -> Iterator[Pair]:
        for token, mailboxes in self.acknowledged.items():
            for pair in ((token, mailbox) for mailbox in mailboxes):
                if not (pair in self.found or pair in self.fetched or pair in self.perhaps):
                    yield pair

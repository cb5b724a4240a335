"""What a batch of deliveries is to make: messages, and their copies with how far each has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from restante.envelope import Content, Envelope, delivered_to_field, return_path_field
from restante.mda import Delivery
from restante.mda.answers import unplanned_failure
from restante.mda.maildir import KnownMaildir
from restante.mda.names import NO_NAME, DeliveryName, delivery_name
from restante.status import Outcome


class Place(Enum):
    """Where the file of a copy is."""

    NOWHERE = "nowhere"
    UNNAMED = "unnamed"
    """In no directory: it is gone when it is closed."""
    TMP = "tmp"
    NEW = "new"
    FOUND = "found"
    """An earlier attempt had delivered it."""


@dataclass(slots=True)
class Copy:
    """One file to be: a delivery and how far it has come."""

    delivery: Delivery
    maildir: KnownMaildir | None = None
    """As it was found last."""
    place: Place = Place.NOWHERE
    device: int = 0
    """On which its file was made."""
    system: int = 0
    """The file system of that (``Disk.file_system``)."""
    needs_name: bool = True
    """It is made in ``tmp``, as enough others are held open without a name."""
    fd: int = -1
    """Of a file without a name, which is kept open until it has one; or of one that waits for its
    sync."""
    directory: int = -1
    """That in which it gets its name, held open until it is synced for itself. It is the same one
    then, though its Maildir may have moved."""
    is_durable: bool = False
    """It is, with its name, and needs no sync any more."""
    header: bytes = b""
    name: DeliveryName = NO_NAME
    outcome: Outcome | None = None

    def head(self, job: Job, host: str) -> None:
        """Find the fields that the file begins with, and its name."""
        first, octets, lines = job.common()
        self.header = first + b"".join(map(delivered_to_field, self.delivery.delivered_to))
        size = len(self.header) + octets
        wire_size = size + len(self.delivery.delivered_to) + lines
        self.name = delivery_name(job.envelope, self.delivery, host, size, wire_size)


@dataclass(slots=True)
class Job:
    """One call of the writer: a message and its copies."""

    envelope: Envelope
    content: Content
    deliveries: Sequence[Delivery]
    together: bool
    """All copies or none."""
    again: bool
    withdraws: bool = False
    """What it had put into ``new`` earlier is taken back, where it still is."""
    copies: list[Copy] = field(init=False)
    """One for each pair of Maildir and final address, however often it was asked for."""
    _asked: list[Copy] = field(init=False)
    """The copy of each delivery."""
    _common: tuple[bytes, int, int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if len(self.deliveries) == 1:
            self.copies = self._asked = [Copy(self.deliveries[0])]
            return
        found: dict[tuple[str, str], Copy] = {}
        self._asked = [
            found.setdefault((each.maildir, each.delivered_to[0]), Copy(each))
            for each in self.deliveries
        ]
        self.copies = list(found.values())

    def common(self) -> tuple[bytes, int, int]:
        """The field that each copy begins with; the octets of the content; the lines of both."""
        if self._common is None:
            first = return_path_field(self.envelope.reverse_path)
            self._common = first, self.content.size, 1 + self.content.lines
        return self._common

    def outcomes(self) -> tuple[Outcome, ...]:
        """One for each delivery asked for, in that order."""
        return tuple([copy.outcome or unplanned_failure() for copy in self._asked])

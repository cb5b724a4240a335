"""File names of deliveries: derived from the message and the mailbox, never drawn.

A name serves as the message's UIDL, so it stays within RFC 1939 §7 wherever it can.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from restante.envelope import Envelope
from restante.mda import Delivery
from restante.records import record

MAX_NAME = 70
"""Characters in a name (RFC 1939 §7: a unique-id has 1 to 70)."""
_HOST_DIGEST = 3
"""Characters. The host is there for people: it is the queue id that no other host draws."""
_SHORTEST_HOST = _HOST_DIGEST + 1
_GRAPHIC = re.compile(r"[!-~]+")


@record
class DeliveryName:
    """A name in parts; ``stem`` alone tells deliveries apart."""

    stem: str
    """``seconds.unique_hash``: the same for every attempt to make this delivery."""
    full: str
    """The stem, the host and the sizes (maildir(5), and Maildir++ for ``S`` and ``W``)."""

    def is_borne_by(self, file_name: str) -> bool:
        """Whether a file in ``new`` or ``cur`` is this delivery, whatever its flags."""
        return file_name.startswith(self.stem + ".")


NO_NAME = DeliveryName("", "")
"""Of what has none yet."""


def delivery_name(
    envelope: Envelope, delivery: Delivery, host: str, size: int, wire_size: int
) -> DeliveryName:
    """The name of one copy: ``size`` in octets as it lies in the file, ``wire_size`` with CRLF."""
    mailbox = f"{delivery.delivered_to[0]}\0{delivery.maildir}"
    if envelope.by_list:
        mailbox += f"\0{envelope.reverse_path}"
    stem = f"{int(envelope.received_at)}.{envelope.queue_id}_{_digest(mailbox, 8)}"
    sizes = f",S={size},W={wire_size}"
    room = MAX_NAME - len(stem) - len(".") - len(sizes)
    return DeliveryName(stem, f"{stem}.{_host_part(host, room)}{sizes}")


@lru_cache(maxsize=16)
def _host_part(host: str, room: int) -> str:
    """The host as maildir(5) escapes it; one that is too long ends in a digest of itself."""
    escaped = host.replace("/", r"\057").replace(":", r"\072").replace(",", r"\054")
    if len(escaped) <= room and _GRAPHIC.fullmatch(escaped):
        return escaped
    keep = max(room, _SHORTEST_HOST) - _SHORTEST_HOST
    visible = "".join(c for c in host if c.isascii() and (c.isalnum() or c in ".-"))
    return f"{visible[:keep]}~{_digest(host, _HOST_DIGEST)}"


def _digest(text: str, length: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape")).hexdigest()[:length]

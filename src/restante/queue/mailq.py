"""The queue as ``mailq`` has shown it since sendmail(8), for tools that read that.

Monitoring looks at the last line (``-- 12 Kbytes in 3 Requests.``), or counts lines that begin
with an id; so the form is kept, with ids as long as they are here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from restante.address import shown
from restante.queue.reader import QueueEntry, QueueReader

EMPTY = "Mail queue is empty"
_HEAD = "-Queue ID----------- --Size-- ----Arrival Time---- -Sender/Recipient-------"
_INDENT = " " * 51


def mailq(reader: QueueReader) -> Iterator[str]:
    """The lines, a message at a time; ``!`` marks what is held.

    Raises QueueUnusable where there is nothing, but in queues that cannot be read.
    """
    messages = octets = 0
    for entry in reader.messages():
        if not messages:
            yield _HEAD
        messages += 1
        octets += entry.size
        yield from _entry(entry)
        yield ""
    if not messages:
        reader.failures.check()
        yield EMPTY
        return
    yield f"-- {-(-octets // 1024)} Kbytes in {messages} Request{'' if messages == 1 else 's'}."


def _entry(entry: QueueEntry) -> Iterator[str]:
    envelope, pending = entry.envelope, (*entry.waiting, *entry.held)
    mark = "!" if entry.held and not entry.waiting else " "
    arrival = time.strftime("%a %b %e %H:%M:%S", time.localtime(envelope.received_at))
    sender = shown(str(envelope.reverse_path)) or "MAILER-DAEMON"
    yield f"{envelope.queue_id}{mark} {entry.size:>8} {arrival}  {sender}"
    for recipient in pending:
        why = entry.reason(recipient)
        if why:
            yield f"({why})".rjust(len(_INDENT))
        yield f"{_INDENT}{shown(recipient.target.address)}"

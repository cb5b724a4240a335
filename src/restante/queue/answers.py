"""A recipient's last answer as the text of its row: bounded, and nothing that UTF-8 cannot say."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from restante.queue import LastAnswer
from restante.status import Peer, Reply

MAX_REPLY_TEXT = 2000
"""Characters of a reply, and of its detail, that are kept with the recipient."""
MAX_COMMAND = 500
"""Characters of the command that was answered; RCPT has 512 octets at most with a path of the
longest kind (RFC 5321 §4.5.3.1.4)."""


def encode(last: LastAnswer | None) -> str:
    """The text for the row; empty for None."""
    if last is None:
        return ""
    reply, peer = last.reply, last.peer
    fields: dict[str, Any] = {
        "code": reply.code,
        "topic": reply.topic,
        "text": _kept(reply.text),
        "detail": _kept(last.detail),
        "at": last.at,
        "put_off": last.put_off,
    }
    if peer is not None:
        fields["peer"] = asdict(peer) | {"command": _kept(peer.command, MAX_COMMAND)}
    return json.dumps(fields, ensure_ascii=False)


def decode(text: str) -> LastAnswer | None:
    """What ``encode`` wrote."""
    if not text:
        return None
    fields = json.loads(text)
    peer = fields.get("peer")
    return LastAnswer(
        Reply(fields["code"], fields["topic"], fields["text"]),
        fields["detail"],
        None if peer is None else Peer(**peer),
        fields["at"],
        fields["put_off"],
    )


def _kept(text: str, most: int = MAX_REPLY_TEXT) -> str:
    return text[:most].encode("utf-8", "replace").decode("utf-8")

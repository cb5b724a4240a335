"""A queued message as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from restante.address import shown
from restante.cli.output import timestamp
from restante.cli.queues.selecting import lane_name

if TYPE_CHECKING:
    from restante.envelope import Notify
    from restante.queue import LastAnswer, QueuedRecipient
    from restante.queue.reader import LaneAlone, QueueEntry


def entry_record(entry: QueueEntry) -> dict[str, Any]:
    """The message without its content."""
    envelope = entry.envelope
    return {
        "id": envelope.queue_id,
        "queue": entry.slot,
        "sender": shown(str(envelope.reverse_path)),
        "received": timestamp(envelope.received_at),
        "size": entry.size,
        "ret": envelope.ret or None,
        "envid": envelope.envid or None,
        "next_attempt": _moment(entry.next_attempt),
        "recipients": [_recipient_record(entry, recipient) for recipient in entry.recipients],
    }


def _recipient_record(entry: QueueEntry, recipient: QueuedRecipient) -> dict[str, Any]:
    target = recipient.target
    return {
        "address": shown(target.address),
        # Of a user's file, so that there may be octets in it that are no UTF-8.
        "instruction": target.instruction.encode(errors="backslashreplace").decode() or None,
        "reverse_path": None if target.reverse_path is None else shown(target.reverse_path),
        "via": list(map(shown, target.via)),
        "trail": list(map(shown, recipient.trail)),
        "state": recipient.state.value,
        "selected": recipient.id in entry.selected,
        "attempts": recipient.attempts,
        "next_attempt": _moment(entry.due(recipient) if recipient.state == "waiting" else None),
        "last_reply": str(recipient.last) if recipient.last else None,
        "last": _answer_record(recipient.last) if recipient.last else None,
        "lane": lane_name(target.lane),
        "left_alone": alone_record(entry.alone.get(target.lane)),
        "notify": None if target.dsn.notify is None else notify_names(target.dsn.notify),
        "orcpt": target.dsn.orcpt or None,
    }


def _answer_record(last: LastAnswer) -> dict[str, Any]:
    return {
        "at": timestamp(last.at),
        "code": last.reply.code,
        "enhanced": last.reply.enhanced or None,
        "text": last.reply.text,
        "detail": last.detail or None,
        "peer": asdict(last.peer) if last.peer else None,
    }


def alone_record(lane: LaneAlone | None) -> dict[str, Any] | None:
    """Why a lane is left alone, and until when."""
    return None if lane is None else asdict(lane) | {"until": timestamp(lane.until)}


def notify_names(asked: Notify) -> list[str]:
    """As RCPT writes them (RFC 3461 §4.1)."""
    return [flag.name for flag in asked if flag.name] or ["NEVER"]


def _moment(at: float | None) -> str | None:
    return None if at is None else timestamp(at)

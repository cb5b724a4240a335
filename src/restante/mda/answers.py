"""What is answered where nothing was delivered, and to whom nothing is delivered at all."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from restante import maillog
from restante.address import fold
from restante.config.tree import Programs
from restante.directory import Account, objection_to_ids
from restante.envelope import Content
from restante.errors import TemporaryError
from restante.mda import Delivery, MboxDelivery, ProgramDelivery
from restante.status import PermanentFailure, Reply, TemporaryFailure

LOOPING = Reply(554, "4.6", "The message is looping: it already bears Delivered-To {}")
DISK_FULL = Reply(452, "3.1", "Mail system storage full, please try again later")
QUOTA_FULL = Reply(452, "2.2", "Mailbox full, please try again later")
NOT_NOW = Reply(451, "3.0", "Temporary failure, please try again later")
MISCONFIGURED = Reply(451, "3.5", "Temporary failure, please try again later")
CLOSING = Reply(451, "3.2", "The system is shutting down, please try again later")
_REPLIES = {errno.ENOSPC: DISK_FULL, errno.EFBIG: DISK_FULL, errno.EDQUOT: QUOTA_FULL}
MAX_SHOWN = 1000
"""Characters of a command that the log repeats: of the longer ones, what they do stands behind."""

AnyDelivery = Delivery | MboxDelivery | ProgramDelivery


@dataclass(frozen=True, slots=True)
class Policy:
    """Whose files may be written, and how they are named."""

    host: str
    minimum_uid: int
    minimum_gid: int
    instance: str = ""
    """The instance directory, by which programs find this server; empty: they are not told."""

    def objection(self, account: Account, own: int | None = None) -> str:
        """Why nothing is delivered to this account, or an empty string.

        ``own``: the uid of the process that would do it; None: this one.
        """
        own = os.geteuid() if own is None else own
        if own != 0:
            if account.uid == own:
                return ""
            return f"the account's uid is {account.uid}, the server runs as {own}"
        why = objection_to_ids(account.uid, account.gid, self.minimum_uid, self.minimum_gid)
        return f"the account's {why}" if why else ""


def objection_to_programs(programs: Programs, account: Account, server_uid: int) -> str:
    """Why the server, whose uid is this, runs no command of the account, or an empty string."""
    if programs.run_as_server_user or account.uid != server_uid:
        return ""
    return f"its uid {account.uid} is the server's own, and programs.run_as_server_user is not set"


def refusal(
    policy: Policy, content: Content, delivery: AnyDelivery
) -> PermanentFailure | TemporaryFailure | None:
    """Why the message is not delivered there, whatever the disk would say; None: it may be."""
    final = delivery.delivered_to[0]
    looped = content.facts.delivered_to
    if looped and fold(final) in looped:
        return PermanentFailure(Reply(LOOPING.code, LOOPING.topic, LOOPING.text.format(final)))
    if not "".join(delivery.delivered_to).isprintable():
        detail = f"a delivery address holds control characters: {delivery.delivered_to!r}"
        return TemporaryFailure(MISCONFIGURED, detail)
    objection = policy.objection(delivery.account)
    return TemporaryFailure(MISCONFIGURED, objection) if objection else None


def failure(place: str, error: Exception) -> TemporaryFailure:
    """What is answered after an exception; ``place`` is where it was to be delivered."""
    if isinstance(error, TemporaryError):
        return TemporaryFailure(MISCONFIGURED, shown(str(error)))
    if not isinstance(error, OSError):
        maillog.unplanned("mailbox writer", error)
        return unplanned_failure()
    reply = _REPLIES.get(error.errno or 0, NOT_NOW)
    return TemporaryFailure(reply, shown(f"{place}: {error}"))


def shown(text: str) -> str:
    """A path or a command, which may hold any octets, as the log and the queue can have it."""
    return text.encode("utf-8", "backslashreplace").decode()


def shown_command(command: str) -> str:
    """The beginning of it, with which a line of the log says how it ended."""
    text = command if len(command) <= MAX_SHOWN else f"{command[:MAX_SHOWN]}..."
    return shown(f"|{text}")


def unplanned_failure() -> TemporaryFailure:
    """What is answered for a bug; its text is in the log alone."""
    return TemporaryFailure(NOT_NOW, "an unplanned exception, see the log")

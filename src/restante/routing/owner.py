"""Senders of lists: reports about what a list sends on go to its owner (dot-qmail(5))."""

from __future__ import annotations

from restante.address import Address, NullReversePath, ReversePath

VERP = "-@[]"
"""The end of a sender that is made anew for each recipient: a variable envelope return path."""
DOUBLE_BOUNCE = Address("#", "[]")
"""qmail's sender of reports about reports, which nobody is to answer."""


def sender_of_list(new_sender: str, sender: ReversePath) -> str:
    """The sender of what a list sends on, as NEWSENDER has it; empty: the sender as it was.

    Reports stay reports: whatever comes from nobody goes on as from nobody.
    """
    if isinstance(sender, NullReversePath) or sender == DOUBLE_BOUNCE:
        return ""
    return new_sender


def sender_for(new_sender: str, recipient: Address) -> str:
    """The sender of the copy for one recipient of the list (qmail-send(8)).

    ``list-owner-@example.com-@[]`` is for ann@example.net
    ``list-owner-ann=example.net@example.com``.
    """
    if not new_sender.endswith(VERP):
        return new_sender
    local, at, domain = new_sender.removesuffix(VERP).rpartition("@")
    return f"{local}{recipient.local}={recipient.domain}{at}{domain}"

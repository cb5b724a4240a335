"""Senders of lists: reports about what a list sends on go to its owner (dot-qmail(5))."""

from __future__ import annotations

from restante.address import Address, NullReversePath, ReversePath

DOUBLE_BOUNCE = Address("#", "[]")
"""qmail's sender of reports about reports, which nobody is to answer."""


def sender_of_list(new_sender: str, sender: ReversePath) -> str:
    """The sender of what a list sends on, as NEWSENDER has it; empty: the sender as it was.

    Reports stay reports: whatever comes from nobody goes on as from nobody.
    """
    if isinstance(sender, NullReversePath) or sender == DOUBLE_BOUNCE:
        return ""
    return new_sender

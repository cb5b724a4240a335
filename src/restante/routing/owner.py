"""Senders of lists: reports about what a list sends on go to its owner (dot-qmail(5))."""

from __future__ import annotations

from restante.address import NullReversePath, ReversePath


def sender_of_list(new_sender: str, sender: ReversePath) -> str:
    """The sender of what a list sends on, as NEWSENDER has it; empty: the sender as it was.

    Reports stay reports: whatever comes from nobody goes on as from nobody.
    """
    return "" if isinstance(sender, NullReversePath) else new_sender

"""What the settings say about peers and senders, without anybody's being asked."""

from __future__ import annotations

import ipaddress

from restante.address import ReversePath, fold
from restante.config.tree import Receiver as ReceiverSettings
from restante.labels import name_in_a_labels
from restante.receiver import Refusal
from restante.status import Reply

BAD_SENDER = Refusal(Reply(553, "1.8", "this sender is not welcome here"), "receiver.badmailfrom")
"""What is answered to MAIL with a sender that is bad."""


class Policy:
    """``receiver.*`` settings, made ready for fast questions."""

    def __init__(self, settings: ReceiverSettings) -> None:
        self._networks = [
            ipaddress.ip_network(each, strict=False) for each in settings.relay_networks
        ]
        self._bad_senders = frozenset(map(_key, settings.badmailfrom))

    def may_relay(self, address: str) -> bool:
        """Whether a peer at this IP address may send anywhere."""
        if not self._networks or not address:  # empty: the peer was gone before it was asked for
            return False
        peer = ipaddress.ip_address(address)
        return any(peer in network for network in self._networks)

    def is_bad_sender(self, reverse_path: ReversePath) -> bool:
        """Whether the reverse-path or its domain is listed (qmail-control(5), badmailfrom)."""
        if not self._bad_senders:
            return False
        sender = _key(str(reverse_path))
        domain = sender.rpartition("@")[2]
        return bool(sender) and (sender in self._bad_senders or f"@{domain}" in self._bad_senders)


def _key(sender: str) -> str:
    """The same for all forms of one address."""
    return name_in_a_labels(fold(sender))

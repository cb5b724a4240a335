"""What this host has none left of is not the fault of another."""

from __future__ import annotations

import errno
import os

from restante.config.tree import HostPort
from restante.status import Delivered, TemporaryFailure
from tests.support.no_descriptors import no_descriptors
from tests.support.relaying import only, parcel, relay
from tests.support.smtp_peer import SmtpPeer, smtp_peer

NOBODY = HostPort("127.0.0.1", 9)
"""Is asked nothing: the lane is an address."""


async def test_a_host_that_could_not_even_be_asked_is_not_left_alone() -> None:
    with smtp_peer(SmtpPeer(), "127.0.0.2") as peer:
        lane = f"[127.0.0.2]:{peer.port}"
        async with relay(NOBODY, peer.port) as made:
            with no_descriptors():
                outcome = only(await made.send(lane, parcel()))
            assert isinstance(outcome, TemporaryFailure)
            assert os.strerror(errno.EMFILE) in str(outcome.reply)
            assert isinstance(only(await made.send(lane, parcel())), Delivered)

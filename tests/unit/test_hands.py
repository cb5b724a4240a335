"""Who works with mail where there is no office, and so no helper: the process does it itself."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from restante.config import Settings
from restante.config.tree import Server
from restante.service.hands import own_hands
from restante.store.maildir import MaildirStore
from restante.store.recollection import SETTLED
from tests.support.deliveries import GROUP, OWNER
from tests.support.maildrop_box import Box
from tests.support.owner import as_owner, owner, owners_home


def is_remembered(home: Path) -> bool:
    """Whether a second session finds what the first has read."""

    async def sessions() -> bool:
        hands = own_hands(Settings(str(home), server=Server(me="mx.example.com")))
        store = hands.store
        assert isinstance(store, MaildirStore)
        store._clock = lambda: time.time() + 2 * SETTLED
        (await store.open(owner(home))).close()
        again = store.at_once(owner(home))
        if again is not None:
            again.close()
        await hands.close()
        return again is not None

    return asyncio.run(sessions())


def test_a_server_of_an_ordinary_user_remembers_maildrops() -> None:
    def as_a_user(home: Path) -> bool:
        Box(home).put("new/1.a,S=13,W=16")
        return is_remembered(home)

    with owners_home() as home:
        assert as_owner(lambda: as_a_user(home))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root takes others' rights")
def test_root_works_in_threads_with_the_rights_of_owners() -> None:
    with owners_home() as home:
        Box(home).put("new/1.a,S=13,W=16")
        for place in (home / "Maildir", *(home / "Maildir").iterdir()):
            os.chown(place, OWNER, GROUP)
        assert not is_remembered(home)
        assert (home / "Maildir" / "restante.lock").stat().st_uid == OWNER

"""Who works with mail where there is no office, and so no helper: the process does it itself."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from restante.config import Settings
from restante.config.tree import Server
from restante.directory import Account
from restante.errors import TemporaryError
from restante.mda import Delivery, ProgramDelivery
from restante.service.hands import helping_hands, own_hands
from restante.status import TemporaryFailure
from restante.store.maildir import MaildirStore
from restante.store.recollection import SETTLED
from tests.support.deliveries import CONTENT, GROUP, OWNER, envelope
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


class Nobody:
    """A supervisor that is asked for no helper, and makes no home."""

    async def ask(self, kind: str, name: str) -> tuple[dict[str, object], list[int]]:
        assert kind == "home"
        raise TemporaryError(f"none for {name}")


@pytest.mark.parametrize(
    ("uid", "gid", "why"),
    [(1, 1000, "uid 1 is below the minimum 100"), (1000, 0, "gid 0 is below the minimum 1")],
)
async def test_ids_that_nobody_has_a_helper_for_are_a_fault_of_the_settings(
    uid: int, gid: int, why: str
) -> None:
    hands = helping_hands(Settings("/", server=Server(me="mx.example.com")), Nobody())
    account = Account("eve", uid, gid, "/home/eve")
    box = Delivery("/home/eve/Maildir", account, ("eve@example.com",))
    program = ProgramDelivery("true", account, ("eve@example.com",), "eve")
    failures = [
        await hands.writer.deliver_all(envelope(), CONTENT, [box]),
        (await hands.writer.run(envelope(), CONTENT, program)).outcome,
    ]
    for each in failures:
        assert isinstance(each, TemporaryFailure)
        assert each.reply.enhanced == "4.3.5"
        assert why in each.detail
    await hands.close()

"""What root gives to those who work with it: its own trees, and nothing that lies elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from restante.config.tree import Mail, Settings
from restante.service.ownership import give, hand_over
from restante.service.user import ServerUser
from tests.support.serving import NOBODY
from tests.support.small_disk import small_disk

UID, GID = 12345, 12346
USER = ServerUser("restante", UID, GID, (GID,))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives anything away")


def owners(*paths: Path) -> list[int]:
    return [path.stat().st_uid for path in paths]


@pytest.mark.parametrize("former", [0, UID], ids=["a tree", "what is new in a tree"])
def test_no_other_file_system_is_given_away(tmp_path: Path, former: int) -> None:
    tree = tmp_path / "queue"
    own, other = tree / "0", tree / "1"
    own.mkdir(parents=True)
    os.chown(tree, former, -1)
    with small_disk(other) as disk:
        (disk.directory / "root's").touch()
        give(str(tree), UID, GID)
        assert owners(tree, own) == [UID, UID]
        assert owners(other, other / "root's") == [0, 0]


def test_no_other_file_system_is_given_to_whom_mail_belongs(tmp_path: Path) -> None:
    own, other = tmp_path / "mail" / "example.com", tmp_path / "mail" / "example.org"
    own.mkdir(parents=True)
    with small_disk(other):
        hand_over(Settings(str(tmp_path), mail=Mail(user="nobody")), USER)
        assert owners(own.parent, own, other) == [NOBODY, NOBODY, 0]

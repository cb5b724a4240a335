"""With whose rights root looks at what others may have laid traps in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from restante.tally.owner import as_owner
from tests.support.serving import NOBODY

ITS_GROUP, ANOTHER = 40_001, 40_002


def test_an_owner_passes_directories_by_all_his_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "closed/own"
    own.mkdir(parents=True, mode=0o700)
    (tmp_path / "closed").chmod(0o710)
    if os.geteuid() == 0:
        os.chown(tmp_path / "closed", 0, ANOTHER)
        os.chown(own, NOBODY, ITS_GROUP)
    before = os.geteuid(), os.getegid(), os.getgroups()
    monkeypatch.setattr(os, "getgrouplist", lambda _name, group: [group, ANOTHER])
    with as_owner(str(own)):
        assert os.listdir(own) == []
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before

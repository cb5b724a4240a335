"""Whoever serves a maildrop, its owner gets no further with it than as himself.

As root these tests have an owner of his own; as anybody else the owner is whoever runs them,
and what is closed to him has mode 0.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from restante.directory import Account
from restante.rights import RightsRefused, owners_rights
from restante.store import MaildropUnavailable
from restante.store.lock import LOCK, STALE_AFTER
from restante.store.maildir import MaildirStore
from tests.support.deliveries import GROUP, OWNER

AS_OWNER = owners_rights(1, 1)
LATER = STALE_AFTER + 3600


def later() -> float:
    return time.time() + LATER


def make(path: Path) -> Path:
    path.mkdir()
    os.chown(path, OWNER, GROUP)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Below a directory that the owner may not pass where he is not the one who tests."""
    above = tmp_path / "closed"
    above.mkdir(mode=0o700)
    made = make(above / "home")
    make(made / "Maildir")
    return made


@pytest.fixture
def account(home: Path) -> Account:
    return Account("eve", OWNER, GROUP, str(home))


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    directory.mkdir()
    (directory / "shadow").write_bytes(b"root:x\n")
    directory.chmod(0)
    return directory


def become_link(home: Path, target: Path) -> None:
    (home / "Maildir").rmdir()
    home.rmdir()
    home.symlink_to(target)


def unlocked(secrets: Path) -> list[str]:
    secrets.chmod(0o700)
    return os.listdir(secrets)


async def test_mail_is_read_and_removed_as_the_owner(home: Path, account: Account) -> None:
    for folder in ("tmp", "new", "cur"):
        make(home / "Maildir" / folder)
    for name in ("1.a", "2.b"):
        (home / "Maildir" / "new" / name).write_bytes(b"A: b\n\nHello\n")
        os.chown(home / "Maildir" / "new" / name, OWNER, GROUP)
    drop = await MaildirStore(AS_OWNER).open(account)
    assert [piece async for piece in drop.read(1)] == [b"A: b\n\nHello\n"]
    await drop.remove([0])
    drop.close()
    assert os.listdir(home / "Maildir" / "new") == ["2.b"]
    assert os.stat(home / "Maildir" / LOCK).st_uid == OWNER


async def test_nothing_is_remembered_of_what_the_owner_alone_may_see(
    home: Path, account: Account
) -> None:
    store = MaildirStore(AS_OWNER, clock=later)
    (await store.open(account)).close()
    assert store._recollection is None


async def test_a_link_leads_to_no_mail_of_others(
    home: Path, account: Account, secrets: Path
) -> None:
    (home / "Maildir" / "new").symlink_to(secrets)
    with pytest.raises(MaildropUnavailable, match=f"cannot read {home}/Maildir: Permission"):
        await MaildirStore(AS_OWNER).open(account)


async def test_a_home_that_is_a_link_leads_to_no_mail_of_others(
    home: Path, account: Account, secrets: Path
) -> None:
    become_link(home, secrets)
    with pytest.raises(MaildropUnavailable, match="Permission denied"):
        await MaildirStore(AS_OWNER).open(account)


async def test_a_link_makes_nobody_remove_files_of_others(
    home: Path, account: Account, secrets: Path
) -> None:
    (home / "Maildir" / "tmp").symlink_to(secrets)
    drop = await MaildirStore(AS_OWNER, clock=later).open(account)
    drop.close()
    assert unlocked(secrets) == ["shadow"]


async def test_a_link_makes_nobody_write_where_others_are(
    home: Path, account: Account, secrets: Path
) -> None:
    (home / "Maildir").rmdir()
    (home / "Maildir").symlink_to(secrets)
    with pytest.raises(MaildropUnavailable, match="Permission denied"):
        await MaildirStore(AS_OWNER).open(account)
    assert unlocked(secrets) == ["shadow"]


def test_the_rights_end_with_the_work(account: Account, tmp_path: Path) -> None:
    way = AS_OWNER(account)
    with pytest.raises(ZeroDivisionError), way.rights():
        raise ZeroDivisionError
    way.close()
    (tmp_path / "mine").write_bytes(b"")
    assert os.stat(tmp_path / "mine").st_uid == os.geteuid()


@pytest.mark.parametrize(("uid", "gid"), [(0, 1000), (99, 1000), (1000, 0)])
def test_root_serves_no_account_below_the_minimum(
    monkeypatch: pytest.MonkeyPatch, uid: int, gid: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(RightsRefused, match="is below the minimum"):
        owners_rights(100, 1)(Account("eve", uid, gid, "/"))


async def test_a_home_that_does_not_exist_is_an_empty_maildrop(tmp_path: Path) -> None:
    drop = await MaildirStore(AS_OWNER).open(Account("eve", OWNER, GROUP, str(tmp_path / "none")))
    assert len(drop.messages) == 0
    drop.close()

"""Files that root opens where others may have put something else in their place."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.config.tree import Log
from restante.logsetup import LogUnusable, setup_logging
from restante.paths import directories_to, is_roots_alone
from restante.service.user import ServerUser, open_pem_for
from restante.tls import CertificateRefused
from tests.support.helpers import passable_directory
from tests.support.owner import only_root

USER = ServerUser("restante", 12345, 12345, (12345,))


@pytest.fixture
def root() -> Iterator[Path]:
    with passable_directory() as path:
        yield path


@pytest.fixture
def users(root: Path) -> Path:
    """A directory of the server's user."""
    path = root / "users"
    path.mkdir()
    os.chown(path, USER.uid, USER.gid)
    return path


@pytest.fixture
def secret(root: Path) -> Path:
    path = root / "secret"
    path.write_text("root's")
    path.chmod(0o600)
    return path


def log_to(path: Path) -> None:
    setup_logging(Log(target=str(path)), "/").close()


@only_root
def test_the_way_through_links(root: Path, users: Path) -> None:
    (root / "own").mkdir()
    os.symlink("../users/x", root / "own" / "link")
    assert all(map(is_roots_alone, directories_to(f"{root}/own/file")))
    assert not all(map(is_roots_alone, directories_to(f"{root}/own/link/file")))
    assert not all(map(is_roots_alone, directories_to(f"{users}/missing/file")))
    os.symlink("loop", root / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        list(directories_to(f"{root}/loop"))


@only_root
@pytest.mark.parametrize("what", ["link", "hard link", "fifo", "dangling"])
def test_a_log_that_was_replaced(root: Path, users: Path, secret: Path, what: str) -> None:
    log = users / "mail.log"
    if what == "link":
        os.symlink(secret, log)
    elif what == "hard link":
        os.link(secret, log)
    elif what == "fifo":
        os.mkfifo(log)
    else:
        os.symlink(root / "made", log)
    with pytest.raises(LogUnusable):
        log_to(log)
    assert sorted(os.listdir(root)) == ["secret", "users"]
    assert secret.read_text() == "root's"


@only_root
def test_logs_that_root_opens(root: Path, users: Path) -> None:
    log_to(users / "mail.log")
    log_to(users / "mail.log")
    (root / "data").mkdir()
    os.symlink("data/mail.log", root / "mail.log")
    log_to(root / "mail.log")
    assert (root / "data" / "mail.log").exists()


@only_root
def test_certificates_of_roots_are_handed_over(root: Path, secret: Path) -> None:
    (root / "live").mkdir()
    os.symlink("../secret", root / "live" / "key.pem")
    os.close(open_pem_for(USER, str(root / "live" / "key.pem")))
    os.close(open_pem_for(USER, str(secret)))
    assert os.geteuid() == 0


@only_root
@pytest.mark.parametrize("what", ["link", "hard link", "directory"])
def test_what_the_user_has_linked_to_is_not(
    root: Path, users: Path, secret: Path, what: str
) -> None:
    key = users / "key.pem"
    if what == "link":
        os.symlink(secret, key)
    elif what == "hard link":
        os.link(secret, key)
    else:
        os.symlink(root, users / "tls")
        key = users / "tls" / "secret"
    with pytest.raises(CertificateRefused, match="Permission denied"):
        open_pem_for(USER, str(key))
    assert os.geteuid() == 0


@only_root
def test_a_key_of_the_users(users: Path) -> None:
    key = users / "key.pem"
    key.write_text("key")
    os.chown(key, USER.uid, USER.gid)
    key.chmod(0o600)
    os.close(open_pem_for(USER, str(key)))


@only_root
@pytest.mark.parametrize("has_acl", [False, True])
def test_a_group_may_write_where_the_user_is_in_it_or_an_acl_names_others(
    root: Path, *, has_acl: bool
) -> None:
    """The mask of an ACL is in the group's bits, whoever it lets write."""
    place, settings = root / "tls", root / "restante.toml"
    place.mkdir()
    settings.touch()
    for path, mode in ((place, 0o2775), (settings, 0o664)):
        os.chown(path, 0, 50)
        path.chmod(mode)
        if has_acl:
            let_write(path, USER.uid)
        assert path.stat().st_mode & 0o777 == mode & 0o777

    assert USER.decides(str(place / "mx.key")) == has_acl
    assert USER.can_change(str(settings)) == has_acl
    os.chown(place, 0, USER.gid)
    assert USER.decides(str(place / "mx.key"))


def let_write(path: Path, uid: int) -> None:
    """As setfacl -m u:UID:rwx."""
    nobody = 0xFFFFFFFF
    entries = (
        (0x01, 7, nobody), (0x02, 7, uid), (0x04, 7, nobody), (0x10, 7, nobody),
        (0x20, 5, nobody),
    )  # fmt: skip
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
    mode = path.stat().st_mode
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("this file system has no ACLs")
    path.chmod(mode)

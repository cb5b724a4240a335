"""Whose .qmail files are obeyed, with whose rights they are read, and how far.

As root the owner is somebody else; as anybody else the owner is whoever runs the tests. Which
file serves which extension, and what its lines mean, stands in the decision tables.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.directory import Account, BadFile, NoHome
from restante.directory.dotqmail import MAX_LINES, MAX_SIZE, file_names, read_dot_qmail
from restante.directory.system import HostFiles
from restante.errors import CannotKnow
from tests.support.deliveries import GROUP, OWNER

STRANGER = OWNER + 1
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def home() -> Iterator[Path]:
    """The owner's, below a directory that the owner may not pass where root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="restante-") as above:
        made = Path(above) / "home"
        made.mkdir()
        os.chown(made, OWNER, GROUP)
        yield made


@pytest.fixture
def account(home: Path) -> Account:
    return Account("ann", OWNER, GROUP, str(home))


@pytest.fixture
def files() -> HostFiles:
    return HostFiles(1, 1)


def write(home: Path, name: str, text: str = "&a@far.org\n", uid: int = OWNER) -> Path:
    path = home / name
    path.write_text(text)
    path.chmod(0o644)
    os.chown(path, uid, GROUP)
    return path


async def test_a_file_is_found_with_its_lines(
    home: Path, account: Account, files: HostFiles
) -> None:
    write(home, ".qmail-list", "# of friends\n\n&a@far.org\n")
    found = await files.dot_qmail(account, "list")
    assert found is not None
    assert found.path == f"{home}/.qmail-list"
    assert found.lines == ("# of friends", "", "&a@far.org")
    assert (found.default, found.has_owner, found.has_owner_default) == ("", False, False)


async def test_nothing_is_found(account: Account, files: HostFiles) -> None:
    assert await files.dot_qmail(account, "") is None
    assert await files.dot_qmail(account, "a-b-c") is None


async def test_what_an_address_may_name(account: Account, home: Path, files: HostFiles) -> None:
    """Nothing in an extension leads out of the home, and no file name is too long to ask for."""
    (home.parent / "above").write_text("&above@far.org\n")
    (home / ".qmail-sub").mkdir()
    write(home / ".qmail-sub", "inner")
    for extension in (
        "sub/inner",
        "sub/../../above",
        "../above",
        "\0",
        "x" * 300,
        "-" * 300,
        "\udcff",
    ):
        assert await files.dot_qmail(account, extension) is None, extension
    write(home, ".qmail-default")
    for extension in ("sub/inner", "sub/../../above", "\0", "x" * 300, "\udcff"):
        found = await files.dot_qmail(account, extension)
        assert found is not None, extension
        assert found.path == f"{home}/.qmail-default"
        assert found.default == extension


def test_the_names_of_an_extension() -> None:
    assert list(file_names("")) == [(".qmail", "")]
    assert list(file_names("a-B.c")) == [
        (".qmail-a-b:c", ""),
        (".qmail-a-default", "B.c"),
        (".qmail-default", "a-B.c"),
    ]
    assert list(file_names("a-")) == [
        (".qmail-a-", ""),
        (".qmail-a-default", ""),
        (".qmail-default", "a-"),
    ]


async def test_sizes_have_bounds(home: Path, account: Account, files: HostFiles) -> None:
    write(home, ".qmail-most", "#" + "x" * (MAX_SIZE - 2) + "\n")
    write(home, ".qmail-more", "#" + "x" * (MAX_SIZE - 1) + "\n")
    write(home, ".qmail-lines", "#\n" * MAX_LINES)
    write(home, ".qmail-more-lines", "#\n" * (MAX_LINES + 1))
    assert await files.dot_qmail(account, "most") is not None
    assert await files.dot_qmail(account, "lines") is not None
    with pytest.raises(BadFile, match=f"longer than {MAX_SIZE} octets"):
        await files.dot_qmail(account, "more")
    with pytest.raises(BadFile, match=f"more than {MAX_LINES} lines"):
        await files.dot_qmail(account, "more-lines")
    with (home / ".qmail-huge").open("wb") as huge:
        huge.truncate(1 << 40)
    os.chown(home / ".qmail-huge", OWNER, GROUP)
    with pytest.raises(BadFile, match="longer than"):
        await files.dot_qmail(account, "huge")


async def test_nothing_holds_the_reader_up(home: Path, account: Account, files: HostFiles) -> None:
    os.mkfifo(home / ".qmail-fifo")
    os.chown(home / ".qmail-fifo", OWNER, GROUP)
    with pytest.raises(BadFile, match="is no regular file"):
        await files.dot_qmail(account, "fifo")


async def test_a_file_that_is_closed_to_its_owner_defers(
    home: Path, account: Account, files: HostFiles
) -> None:
    """As root too: it reads as the owner."""
    write(home, ".qmail-closed").chmod(0)
    with pytest.raises(BadFile, match=r"cannot read .*/\.qmail-closed: Permission denied"):
        await files.dot_qmail(account, "closed")
    (home / "closed").mkdir(mode=0)
    (home / ".qmail-in").symlink_to("closed/file")
    with pytest.raises(BadFile, match="Permission denied"):
        await files.dot_qmail(account, "in")


async def test_a_missing_home(home: Path, files: HostFiles) -> None:
    account = Account("ann", OWNER, GROUP, f"{home}/none/at/all")
    assert await files.dot_qmail(account, "") is None
    with pytest.raises(NoHome, match="is missing"):
        await files.dot_qmail(account, "list")
    assert read_dot_qmail(account, "") is None


async def test_a_home_that_is_no_directory(home: Path, files: HostFiles) -> None:
    account = Account("ann", OWNER, GROUP, str(write(home, "file")))
    with pytest.raises((BadFile, CannotKnow), match=r"(is no|Not a) directory"):
        await files.dot_qmail(account, "")


async def test_a_home_that_is_a_link(home: Path, files: HostFiles) -> None:
    write(home, ".qmail")
    (home.parent / "link").symlink_to(home)
    found = await files.dot_qmail(Account("ann", OWNER, GROUP, f"{home.parent}/link"), "")
    assert found is not None
    assert found.path == f"{home.parent}/link/.qmail"


def owners(account: Account, extension: str) -> tuple[bool, bool]:
    found = read_dot_qmail(account, extension)
    assert found is not None
    return found.has_owner, found.has_owner_default


def test_owners_of_a_list(home: Path, account: Account) -> None:
    write(home, ".qmail-list")
    write(home, ".qmail-list-owner-default")
    assert owners(account, "list") == (False, False)
    (home / ".qmail-list-owner").symlink_to("nowhere")
    assert owners(account, "list") == (False, False)
    (home / ".qmail-list-owner").unlink()
    write(home, ".qmail-list-owner")
    assert owners(account, "list") == (True, True)


def test_the_user_too_may_have_an_owner(home: Path, account: Account) -> None:
    write(home, ".qmail")
    write(home, ".qmail-owner")
    assert owners(account, "") == (True, False)


def test_a_file_of_another_uid_defers(home: Path, account: Account) -> None:
    """Whoever owns it may write to it, whatever its mode says."""
    write(home, ".qmail")
    other = Account("ann", STRANGER, GROUP, str(home))
    with pytest.raises(BadFile, match=f"the home {home} belongs to uid {OWNER}, not to {STRANGER}"):
        read_dot_qmail(other, "")
    if IS_ROOT:
        os.chown(home / ".qmail", STRANGER, GROUP)
        with pytest.raises(BadFile, match=rf"\.qmail belongs to uid {STRANGER}, not to {OWNER}"):
            read_dot_qmail(account, "")


def test_another_group_may_not_write(home: Path, account: Account) -> None:
    write(home, ".qmail").chmod(0o664)
    assert read_dot_qmail(account, "") is not None
    other = Account("ann", OWNER, GROUP + 1, str(home))
    with pytest.raises(BadFile, match=rf"\.qmail can be written to by another group, gid {GROUP}"):
        read_dot_qmail(other, "")
    home.chmod(0o775)
    with pytest.raises(BadFile, match=f"the home {home} can be written to by another group"):
        read_dot_qmail(other, "")


async def test_a_home_of_another_uid(home: Path, files: HostFiles) -> None:
    """As root it takes the rights of the uid, and finds a home that is not that one's."""
    os.chmod(home.parent, 0o755)
    write(home, ".qmail")
    account = Account("ann", STRANGER, GROUP, str(home))
    with pytest.raises((CannotKnow, BadFile), match=f"{STRANGER}"):
        await files.dot_qmail(account, "")


async def test_root_and_its_files(home: Path, account: Account, files: HostFiles) -> None:
    """Root's own file may be obeyed, root's rights are not used, and root has no mail."""
    if not IS_ROOT:
        assert read_dot_qmail(Account("ann", OWNER, GROUP, "/"), "") is None
        return
    write(home, ".qmail", uid=0)
    assert await files.dot_qmail(account, "") is not None
    secret = home.parent / "secret"
    secret.mkdir(mode=0o700)
    write(secret, "shadow", uid=0)
    (home / ".qmail-leak").symlink_to(secret / "shadow")
    with pytest.raises(BadFile, match="Permission denied"):
        await files.dot_qmail(account, "leak")
    for uid, gid in ((0, GROUP), (OWNER, 0), (99, GROUP)):
        with pytest.raises(BadFile, match="is below the minimum"):
            await HostFiles(100, 1).dot_qmail(Account("ann", uid, gid, str(home)), "")

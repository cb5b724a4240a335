"""Where and for whom nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from restante.mda import Delivery, MailboxWriter
from restante.mda.writer import BatchWriter
from restante.status import Delivered, TemporaryFailure
from tests.support.deliveries import (
    CONTENT,
    GROUP,
    HOST,
    OWNER,
    account,
    delivery,
    envelope,
    messages,
)
from tests.support.faulty_disk import FaultyDisk
from tests.support.mailbox_writers import reply_of, writer_at_work
from tests.support.owner import AS_ROOT, only_root


@pytest.mark.parametrize("path", ["relative/Maildir", "/tmp/../Maildir"])
async def test_paths_that_are_refused(writer: MailboxWriter, path: str) -> None:
    one = Delivery(path, account(), ("iain@example.com",))
    assert reply_of(await writer.deliver_all(envelope(), CONTENT, [one])) == "451 4.3.5"


async def test_an_address_with_a_line_end_is_refused(tmp_path: Path, writer: MailboxWriter) -> None:
    one = delivery(tmp_path, "iain", "x@example.com\nBcc: y@example.com")
    assert reply_of(await writer.deliver_all(envelope(), CONTENT, [one])) == "451 4.3.5"


async def test_a_file_in_the_way(tmp_path: Path, writer: MailboxWriter) -> None:
    (tmp_path / "example.com").write_text("")
    outcome = await writer.deliver_all(envelope(), CONTENT, [delivery(tmp_path)])
    assert isinstance(outcome, TemporaryFailure)
    assert "example.com is not a directory" in outcome.detail


async def test_another_uid_than_the_accounts(tmp_path: Path, writer: MailboxWriter) -> None:
    outcome = await writer.deliver_all(
        envelope(), CONTENT, [delivery(tmp_path, uid=7 if AS_ROOT else OWNER + 1)]
    )
    assert isinstance(outcome, TemporaryFailure)
    assert reply_of(outcome) == "451 4.3.5"
    assert outcome.detail.startswith("the account's uid ")
    assert os.listdir(tmp_path) == []


class AsRoot:
    """What only root meets: homes under other people's control. Collected by its subclass."""

    @pytest.fixture(params=["here", "by a helper"])
    async def writer(
        self, disk: FaultyDisk, request: pytest.FixtureRequest
    ) -> AsyncIterator[MailboxWriter]:
        async with writer_at_work(disk, request.param) as writer:
            yield writer

    async def test_a_maildir_of_somebody_else(self, tmp_path: Path, writer: MailboxWriter) -> None:
        one = delivery(tmp_path)
        os.makedirs(one.maildir)
        os.chown(one.maildir, 54321, 54321)
        outcome = await writer.deliver_all(envelope(), CONTENT, [one])
        assert isinstance(outcome, TemporaryFailure)
        assert outcome.detail == (
            f"{one.maildir} belongs to uid 54321, the account's uid is {OWNER}"
        )

    @pytest.mark.parametrize("link", ["Maildir", "Maildir/tmp", "Maildir/new", "."])
    async def test_a_link_elsewhere_is_not_followed(
        self, tmp_path: Path, writer: MailboxWriter, disk: FaultyDisk, link: str
    ) -> None:
        home, elsewhere = tmp_path / "homes" / "iain", tmp_path / "elsewhere"
        for directory in (home.parent, elsewhere, elsewhere / "Maildir"):
            directory.mkdir()
            os.chown(directory, OWNER, GROUP)
        one = Delivery(str(home / "Maildir"), account(), ("iain@example.com",))
        if link != ".":
            await writer.deliver_all(envelope(0), CONTENT, [one])
            shutil.rmtree(home / link)
        (home / link).symlink_to(elsewhere)
        outcome = await writer.deliver_all(envelope(1), CONTENT, [one])
        is_used = link != "Maildir/tmp" or disk.named_only
        assert isinstance(outcome, TemporaryFailure if is_used else Delivered)
        assert [path for path in elsewhere.rglob("*") if path.is_file()] == []

    async def test_roots_own_link_is_followed(self, tmp_path: Path, writer: MailboxWriter) -> None:
        (tmp_path / "disk2").mkdir()
        (tmp_path / "homes").symlink_to("disk2")
        one = delivery(tmp_path / "homes")
        assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
        assert len(messages(delivery(tmp_path / "disk2"))) == 1

    @pytest.mark.parametrize("left", [".", "Maildir", "Maildir/new"])
    async def test_what_root_cannot_give_away_costs_no_descriptor(
        self, tmp_path: Path, writer: MailboxWriter, left: str
    ) -> None:
        one = delivery(tmp_path)
        await writer.deliver_all(envelope(0), CONTENT, [one])
        await writer.close()
        directory = Path(one.account.home) / left
        (directory / "something").touch()
        os.chown(directory, 0, 0)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(1, 4):
            again = BatchWriter(HOST, 1, 1)
            outcome = await again.deliver_all(envelope(number), CONTENT, [one])
            await again.close()
            assert reply_of(outcome) == "451 4.3.5"
        assert len(os.listdir("/proc/self/fd")) <= before

    async def test_nothing_is_made_in_a_strangers_directory(
        self, tmp_path: Path, writer: MailboxWriter
    ) -> None:
        stranger = tmp_path / "example.com"
        stranger.mkdir()
        os.chown(stranger, 54321, 54321)
        outcome = await writer.deliver_all(envelope(), CONTENT, [delivery(tmp_path)])
        assert reply_of(outcome) == "451 4.3.5"
        assert list(stranger.iterdir()) == []

    async def test_what_was_made_and_not_given_away_is_given_away(
        self, tmp_path: Path, writer: MailboxWriter
    ) -> None:
        one = delivery(tmp_path)
        os.makedirs(os.path.dirname(one.maildir))
        os.mkdir(one.maildir, 0o700)
        assert isinstance(await writer.deliver_all(envelope(), CONTENT, [one]), Delivered)
        assert os.stat(one.maildir).st_uid == OWNER

    async def test_a_gid_below_the_minimum(self, tmp_path: Path, writer: MailboxWriter) -> None:
        one = Delivery(str(tmp_path / "Maildir"), account(gid=0), ("iain@example.com",))
        outcome = await writer.deliver_all(envelope(), CONTENT, [one])
        assert isinstance(outcome, TemporaryFailure)
        assert "gid 0 is below the minimum 1" in outcome.detail


@only_root
class TestAsRoot(AsRoot):
    """Root alone can make the directories of strangers that these need."""

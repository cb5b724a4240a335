"""Lists of instructions by way of a real queue: what is done of them, and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from restante.config.tree import DAY, Routing
from restante.courier import MailCourier, WaysOut
from restante.envelope import Notify, RecipientDsn
from restante.queue import Attempted, Target
from restante.queue.reader import QueueReader
from restante.queue.retry import RetryPolicy
from restante.queue.traffic import Limits
from restante.relay import Parcel
from restante.relay.routes import Routes
from restante.routing.router import Router
from restante.routing.strangers import Strangers
from restante.status import Delivered, PermanentFailure, Reply
from tests.support.desk import Desk, at_work
from tests.support.jumping_clock import JumpingClock, until
from tests.support.memory_directory import MemoryDirectory, Tables, account
from tests.support.queued import SENDER, content, envelope, limits
from tests.support.report import ReadReport, read_report
from tests.support.scripted_writer import NOT_NOW, ScriptedWriter, name_of

HOUR = 3600.0
HOME = "/home/iain@example.com"
NO_SUCH_USER = PermanentFailure(Reply(550, "1.1", "no such user"))


@dataclass
class Site:
    """Two accounts, lists of theirs, and a world that has nobody called gone."""

    lists: dict[str, Sequence[str]]
    """Address to instructions: of iain or ann for addresses that begin so, else of alias."""
    routing: Routing = field(default_factory=Routing)
    writer: ScriptedWriter = field(default_factory=ScriptedWriter)
    sent: list[tuple[str, str]] = field(default_factory=list)
    """Sender and recipient of what went to other hosts."""

    def courier(self) -> MailCourier:
        names = ["iain", "ann", *self.lists, "sender"]
        rows = []
        for name, lines in self.lists.items():
            user, _, extension = name.partition("-")
            key = (f"{user}@example.com", extension)
            if user not in ("iain", "ann"):
                key = ("alias", f"{name}@example.com")
            rows += [(*key, line, "") for line in lines]
        directory = MemoryDirectory(
            Tables(
                mailbox=[account(f"{name}@example.com") for name in ("iain", "ann", "sender")],
                virtual=[
                    *((f"{name}@example.com", name, "example.com") for name in names),
                    ("iain@example.com", "", "example.com"),
                ],
                alias=rows,
            )
        )
        router = Router(self.routing, "mx.example.com")
        return MailCourier(router, directory, self.writer, WaysOut(Routes({}), self), Strangers())

    async def send(self, lane: str, parcel: Parcel) -> Attempted:
        sender = str(parcel.envelope.reverse_path)
        self.sent += [(sender, str(each.address)) for each in parcel.recipients]
        return Attempted(
            [
                NO_SUCH_USER if each.address.local.startswith("gone") else Delivered("sent")
                for each in parcel.recipients
            ]
        )

    def to(self, place: str) -> list[tuple[str, bytes]]:
        """What came to a place, and from whom."""
        return [
            (str(sent.reverse_path), octets)
            for (sent, work), octets in zip(self.writer.work, self.writer.contents, strict=True)
            if name_of(work) == place
        ]

    def reports(self, maildir: str) -> list[ReadReport]:
        """The reports that came to a Maildir, all of them from nobody."""
        found = [(sender, octets) for sender, octets in self.to(maildir) if b"report" in octets]
        assert all(sender == "" for sender, _ in found)
        return [read_report(octets) for _, octets in found]


def fates(report: ReadReport) -> dict[str, str]:
    return {
        block["Final-Recipient"].removeprefix("rfc822; "): block["Action"]
        for block in report.recipients
    }


@asynccontextmanager
async def serving(
    root: Path, site: Site, clock: JumpingClock, most: Limits | None = None
) -> AsyncIterator[Desk]:
    async with at_work(root, clock, site.courier(), most=most) as desk:
        yield desk


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


async def test_a_retry_does_what_is_missing(tmp_path: Path, clock: JumpingClock) -> None:
    site = Site({"iain-x": ["|a", "./Maildir/", "|b", "&bob@x.org", "./mbox"]})
    site.writer.end("|b", NOT_NOW, NOT_NOW)
    site.writer.end("/home/iain@example.com/mbox", NOT_NOW)
    async with serving(tmp_path, site, clock) as desk:
        queue_id = await desk.queue(envelope("iain-x@example.com"))
        await desk.rest()
        entry = QueueReader(str(tmp_path)).message(queue_id)
        assert entry is not None
        (waiting,) = entry.recipients
        assert waiting.target.instruction == "|b\n&bob@x.org\n./mbox"
        assert waiting.target.account == "iain@example.com"
        assert str(waiting.last) == "451 4.3.0 not now"
        await desk.pass_time(2 * HOUR)
        assert desk.store.waiting == 0
    assert site.writer.done == ["|a", f"{HOME}/Maildir/", "|b", f"{HOME}/mbox"]
    assert site.sent == [(str(SENDER), "bob@x.org")]


async def test_what_one_attempt_has_no_room_for_comes_in_the_next(
    tmp_path: Path, clock: JumpingClock
) -> None:
    """Nobody is left out, or has two copies: lists of lists, and one list by many names."""
    people = [f"p{number}@x.org" for number in range(9)]
    halves = {"first": [f"&{each}" for each in people[:5]], "second": people[4:]}
    site = Site(
        {"all": ["first@example.com", "second@example.com"], **halves},
        Routing(max_alias_targets=5),
    )
    named = [f"{name}+{number}@example.com" for number in range(3) for name in ("all", *halves)]
    async with serving(tmp_path, site, clock) as desk:
        await desk.queue(envelope(*named, "iain@example.com"))
        await desk.rest()
        assert desk.store.waiting == 0
    assert sorted(site.sent) == [(str(SENDER), each) for each in people]
    assert site.writer.done == [f"{HOME}/Maildir/"]


async def test_the_next_life_does_what_is_missing(tmp_path: Path, clock: JumpingClock) -> None:
    site = Site({"iain-x": ["|a", "|b", "|c"]})
    site.writer.end("|b", NOT_NOW)
    async with serving(tmp_path, site, clock) as desk:
        await desk.queue(envelope("iain-x@example.com"))
        await desk.rest()
    assert site.writer.done == ["|a"]
    async with serving(tmp_path, site, clock) as desk:
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0
    assert site.writer.done == ["|a", "|b", "|c"]


async def test_nobody_waits_for_a_program_that_hangs(tmp_path: Path, clock: JumpingClock) -> None:
    site = Site(
        {
            "iain-x": ["|hang", "&late@x.org"],
            "ann-x": ["|a"],
            "all": ["&bob@x.org", "&ann@example.com"],
        }
    )
    hanging = site.writer.hanging["|hang"] = asyncio.Event()
    async with serving(tmp_path, site, clock) as desk:
        for _ in range(10):
            everybody = [f"{name}@example.com" for name in ("iain-x", "iain", "ann-x", "all")]
            await desk.queue(envelope(*everybody))
        await until(lambda: len(site.sent) == 10 and len(site.writer.done) == 30)
        assert site.writer.done.count("|a") == 10
        assert site.writer.done.count("/home/iain@example.com/Maildir/") == 10
        assert site.sent == [(str(SENDER), "bob@x.org")] * 10
        await until(lambda: desk.scheduler.moving == 10)  # only what hangs
        hanging.set()
        await desk.pass_time(1)
        assert desk.store.waiting == 0
    assert site.sent.count((str(SENDER), "late@x.org")) == 10


async def test_one_account_leaves_room_for_the_programs_of_others(
    tmp_path: Path, clock: JumpingClock
) -> None:
    site = Site({"iain-x": ["|hang"], "ann-x": ["|a"]})
    hanging = site.writer.hanging["|hang"] = asyncio.Event()
    async with serving(tmp_path, site, clock, limits(programs=4)) as desk:
        for _ in range(9):
            await desk.queue(envelope("iain-x@example.com"))
        for _ in range(3):
            await desk.queue(envelope("ann-x@example.com"))
        await until(lambda: site.writer.done == ["|a"] * 3)
        await until(lambda: desk.scheduler.moving == 1)  # a quarter of four
        hanging.set()
        await desk.pass_time(1)
        assert desk.store.waiting == 0
    assert site.writer.done.count("|hang") == 9


async def test_who_is_told_of_a_list(tmp_path: Path, clock: JumpingClock) -> None:
    """The sender that the list has the message, and what became of it the owner."""
    site = Site(
        {
            "iain-l": ["&bob@x.org", "&gone1@x.org", "&gone2@y.org", "./Archive/"],
            "iain-l-owner": ["&ann@example.com"],
        }
    )
    asked = RecipientDsn(Notify.SUCCESS | Notify.FAILURE, "rfc822;iain-l@example.com")
    async with serving(tmp_path, site, clock) as desk:
        sent = replace(envelope("iain-l@example.com"), envid="QQ314")
        await desk.store.add(sent, content(), [Target("iain-l@example.com", dsn=asked)])
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0
    owner = "iain-l-owner@example.com"
    assert sorted(site.sent) == [
        (owner, "bob@x.org"),
        (owner, "gone1@x.org"),
        (owner, "gone2@y.org"),
    ]
    (archived,) = site.to(f"{HOME}/Archive/")
    assert archived == (str(SENDER), content().read()), "here, it is from whom it was"
    (told,) = site.reports("/home/sender@example.com/Maildir/")
    assert told.message["Original-Envelope-Id"] == "QQ314"
    assert fates(told) == {"iain-l@example.com": "delivered"}
    (told,) = site.reports("/home/ann@example.com/Maildir/")
    assert "Original-Envelope-Id" not in told.message
    assert told.header["Subject"] == "Mail of your list could not be delivered"
    assert "about a message of your list:" in " ".join(told.text.split())
    assert "<iain-l@example.com>\n      (which leads to <gone1@x.org>)" in told.text
    assert fates(told) == {"gone1@x.org": "failed", "gone2@y.org": "failed"}


async def test_a_variable_sender_has_a_report_of_its_own(
    tmp_path: Path, clock: JumpingClock
) -> None:
    site = Site(
        {
            "iain-l": ["&bob@x.org", "&gone1@x.org", "&gone2@y.org"],
            "iain-l-owner": ["&iain@example.com"],
            "iain-l-owner-default": ["&iain@example.com"],
        },
    )
    async with serving(tmp_path, site, clock) as desk:
        await desk.queue(envelope("iain-l@example.com"))
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0
    assert sorted(site.sent) == [
        (f"iain-l-owner-{name}={host}@example.com", f"{name}@{host}")
        for name, host in (("bob", "x.org"), ("gone1", "x.org"), ("gone2", "y.org"))
    ]
    told = site.reports(f"{HOME}/Maildir/")
    assert sorted((each.header["To"], *fates(each)) for each in told) == [
        ("iain-l-owner-gone1=x.org@example.com", "gone1@x.org"),
        ("iain-l-owner-gone2=y.org@example.com", "gone2@y.org"),
    ]
    assert site.reports("/home/sender@example.com/Maildir/") == []


async def test_an_owner_is_told_of_a_delay(tmp_path: Path, clock: JumpingClock) -> None:
    site = Site(
        {"iain-l": ["&ann-x@example.com"], "iain-l-owner": ["&iain@example.com"], "ann-x": ["|a"]}
    )
    site.writer.end("|a", *[NOT_NOW] * 1000)
    policy = RetryPolicy(DAY, lambda: 0.0, delay_notice=HOUR)
    async with at_work(tmp_path, clock, site.courier(), policy=policy) as desk:
        await desk.queue(envelope("iain-l@example.com"))
        await desk.pass_time(2 * HOUR)
        (told,) = site.reports(f"{HOME}/Maildir/")
        assert fates(told) == {"ann-x@example.com": "delayed"}
        assert told.header["Subject"] == "Mail of your list is delayed"
        await desk.pass_time(DAY)
        assert desk.store.waiting == 0
    assert [fates(each) for each in site.reports(f"{HOME}/Maildir/")] == [
        {"ann-x@example.com": "delayed"},
        {"ann-x@example.com": "failed"},
    ]
    assert site.reports("/home/sender@example.com/Maildir/") == []


async def test_a_circle_of_aliases_is_named_in_its_bounce(
    tmp_path: Path, clock: JumpingClock
) -> None:
    site = Site(
        {
            "one": ["&two@example.com"],
            "two": ["&three@example.com", "&iain@example.com"],
            "three": ["&one@example.com"],
        }
    )
    async with serving(tmp_path, site, clock) as desk:
        await desk.queue(envelope("one@example.com"))
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0
    (told,) = site.reports("/home/sender@example.com/Maildir/")
    assert fates(told) == {"one@example.com": "failed"}
    circle = "one@example.com > two@example.com > three@example.com > one@example.com"
    assert f"the alias leads back to itself: {circle}" in " ".join(told.text.split())
    assert len(site.to(f"{HOME}/Maildir/")) == 1, "whoever is beside the circle has a copy"


async def test_who_forwards_to_himself_gets_a_bounce(tmp_path: Path, clock: JumpingClock) -> None:
    site = Site({"iain": ["&iain@example.com", "./Maildir/"]})
    async with serving(tmp_path, site, clock) as desk:
        await desk.queue(envelope("iain@example.com"))
        await desk.pass_time(HOUR)
        assert desk.store.waiting == 0
    (told,) = site.reports("/home/sender@example.com/Maildir/")
    assert "iain@example.com > iain@example.com" in " ".join(told.text.split())
    assert len(site.to(f"{HOME}/Maildir/")) == 1

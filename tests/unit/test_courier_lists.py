"""Lists of instructions: what is done of them, in which order, how often and from whom."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante import mda
from restante.address import NULL_REVERSE_PATH, Address, ReversePath
from restante.config.tree import Routing
from restante.courier import FIRST_PORTION, MailCourier, WaysOut, lane_here
from restante.directory import Lookups
from restante.envelope import HeaderFacts, memory_content
from restante.mda import MboxDelivery, ProgramDelivery, Ran
from restante.queue import (
    LOCAL_LANE,
    Answer,
    Attempted,
    Expanded,
    Moved,
    Partly,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Target,
    Untried,
)
from restante.relay import Parcel
from restante.relay.routes import Routes
from restante.routing.decision import Decision, Instructions
from restante.routing.router import Router
from restante.routing.sequence import MOST_STEPS
from restante.routing.strangers import Strangers
from restante.routing.trace import NO_NOTES, Notes
from restante.status import Delivered, PermanentFailure, TemporaryFailure
from tests.support.memory_directory import MemoryDirectory, Tables, account
from tests.support.queued import SENDER, envelope
from tests.support.scripted_writer import DONE, LAST, NEVER, NOT_NOW, ScriptedWriter, name_of

IAIN = "iain@example.com"
LANE = f"|{IAIN}"
HOME = f"/home/{IAIN}"
HELLO = b"Subject: hello\n\nHello.\n"


class RouterWithOwners(Router):
    """Finds an owner for the lists that a test names."""

    def __init__(self, settings: Routing, owners: dict[str, str]) -> None:
        super().__init__(settings, "mx.example.com")
        self._owners = owners

    async def route(self, address: Address, lookups: Lookups, notes: Notes = NO_NOTES) -> Decision:
        decision = await super().route(address, lookups, notes)
        if not isinstance(decision, Instructions):
            return decision
        served = replace(decision.destination, new_sender=self._owners.get(str(address), ""))
        return replace(decision, destination=served)


@dataclass
class Site:
    """A courier in a small world, and a queue of one recipient that does what it says."""

    lists: dict[str, Sequence[str]] = field(default_factory=dict)
    """Extensions of iain's, and their instructions."""
    owners: dict[str, str] = field(default_factory=dict)
    routing: Routing = field(default_factory=Routing)
    writer: ScriptedWriter = field(default_factory=ScriptedWriter)
    parcels: list[Parcel] = field(default_factory=list)
    bears: frozenset[str] = frozenset()
    sender: ReversePath = SENDER

    def __post_init__(self) -> None:
        rows = [(IAIN, name, line, "") for name, lines in self.lists.items() for line in lines]
        names = [f"iain-{name}" for name in self.lists if name]
        self.directory = MemoryDirectory(
            Tables(
                rcpthosts=["example.com"],
                mailbox=[account(IAIN)],
                virtual=[
                    *((f"{name}@example.com", name, "example.com") for name in names),
                    (IAIN, "", "example.com"),
                ],
                alias=rows,
            )
        )

    async def send(self, lane: str, parcel: Parcel) -> Attempted:
        self.parcels.append(parcel)
        return Attempted([Delivered("sent")] * len(parcel.recipients))

    async def attempt(self, *targets: Target, lane: str = LOCAL_LANE) -> list[Answer]:
        router = RouterWithOwners(self.routing, self.owners)
        courier = MailCourier(
            router, self.directory, self.writer, WaysOut(Routes({}), self), Strangers()
        )
        recipients = tuple(
            QueuedRecipient(number, target, RecipientState.WAITING, 0, 0.0, 0.0, None)
            for number, target in enumerate(targets)
        )
        sent = replace(envelope("x@example.com", sender=self.sender), ret="FULL", envid="Q")
        facts = HeaderFacts(0, self.bears)
        message = QueuedMessage(sent, memory_content(b"", HELLO, facts), recipients, False, lane)
        return list((await courier.attempt(message)).answers)

    def looked_up(self) -> list[int]:
        """How many addresses each bulk look-up was for."""
        bulk = [key[1:] for key in self.directory.asked if key[0] == "prefetch"]
        return [len([each for each in addresses if "+" in each]) for addresses in bulk]

    async def play(self, target: Target, attempts: int = 100) -> tuple[Answer, Target]:
        """Try until it ends, or so often; the last answer and what was left to be tried then."""
        lane = LOCAL_LANE
        answer: Answer = Untried()
        for _ in range(attempts):
            (answer,) = await self.attempt(target, lane=lane)
            match answer:
                case Moved():
                    lane = answer.lane
                case Partly(instruction, owner):
                    target = replace(target, instruction=instruction, account=owner)
                case Expanded() | Delivered() | PermanentFailure():
                    break
        return answer, target


def ends(answer: Answer) -> str:
    match answer:
        case Expanded(targets):
            return " ".join(target.instruction or target.address for target in targets)
        case Delivered():
            return "delivered"
        case PermanentFailure():
            return "failed"
    return "waits"


@pytest.mark.parametrize(
    ("lines", "script", "done", "end"),
    [
        (["|a"], {}, ["|a"], "delivered"),
        (["|a"], {"|a": [LAST]}, ["|a"], "delivered"),
        (["|a", "|b"], {}, ["|a", "|b"], "delivered"),
        (["|a", "|b"], {"|a": [LAST]}, ["|a"], "delivered"),
        (["|a", "|b"], {"|a": [NEVER]}, [], "failed"),
        (["|a", "|b"], {"|b": [NEVER]}, ["|a"], "failed"),
        (["|a", "|b"], {"|a": [NOT_NOW]}, ["|a", "|b"], "delivered"),
        (["|a", "|b", "|c"], {"|b": [NOT_NOW, NOT_NOW]}, ["|a", "|b", "|c"], "delivered"),
        (["|a", "./Maildir/"], {}, ["|a", f"{HOME}/Maildir/"], "delivered"),
        (["./Maildir/", "|a"], {}, [f"{HOME}/Maildir/", "|a"], "delivered"),
        (["./Maildir/", "|a"], {"|a": [NOT_NOW]}, [f"{HOME}/Maildir/", "|a"], "delivered"),
        (
            ["./Maildir/", "|a"],
            {f"{HOME}/Maildir/": [NOT_NOW]},
            [f"{HOME}/Maildir/", "|a"],
            "delivered",
        ),
        (["./Maildir/", "|a"], {f"{HOME}/Maildir/": [NEVER]}, [], "failed"),
        (["./mbox", "|a", "/srv/x"], {}, [f"{HOME}/mbox", "|a", "/srv/x"], "delivered"),
        (["&ann@x.org", "|a"], {}, ["|a"], "ann@x.org"),
        (["|a", "&ann@x.org", "bob@x.org"], {}, ["|a"], "ann@x.org bob@x.org"),
        (["&ann@x.org", "|a", "bob@x.org"], {"|a": [LAST]}, ["|a"], "ann@x.org"),
        (["&ann@x.org", "|a", "bob@x.org"], {"|a": [NEVER]}, [], "failed"),
        (["&ann@x.org", "|a", "|b", "c@x.org"], {"|b": [LAST]}, ["|a", "|b"], "ann@x.org"),
        (
            ["&ann@x.org", "|a", "|b", "c@x.org"],
            {"|b": [NOT_NOW]},
            ["|a", "|b"],
            "ann@x.org c@x.org",
        ),
        (["|a", "|b", "&ann@x.org"], {"|a": [LAST]}, ["|a"], "delivered"),
        (["# nothing", "|a"], {}, ["|a"], "delivered"),
        # Without a program, each instruction has a fate of its own.
        (["./Maildir/", "&ann@x.org"], {}, [], "./Maildir/ ann@x.org"),
        (["./mbox", "./Maildir/"], {}, [], "./mbox ./Maildir/"),
        (["&ann@x.org"], {}, [], "ann@x.org"),
        (["# nothing"], {}, [], "delivered"),
    ],
)
async def test_what_is_done_of_a_list(
    lines: list[str], script: dict[str, list[Ran]], done: list[str], end: str
) -> None:
    site = Site({"x": lines})
    for name, attempts in script.items():
        site.writer.end(name, *attempts)
    answer, _ = await site.play(Target("iain-x@example.com"))
    assert (site.writer.done, ends(answer)) == (done, end)


WORDS = ("|a", "|b", "./Maildir/", "./mbox", "&ann@x.org", "&bob@x.org", "/srv/x/")
PLACES = {"./Maildir/": f"{HOME}/Maildir/", "./mbox": f"{HOME}/mbox"}
RANS = {"done": DONE, "last": LAST, "never": NEVER, "not now": NOT_NOW}


@given(
    st.lists(st.sampled_from(WORDS), min_size=1, unique=True).filter(
        lambda lines: any(line.startswith("|") for line in lines)
    ),
    st.dictionaries(st.sampled_from(WORDS), st.lists(st.sampled_from([*RANS]), max_size=4)),
)
def test_each_instruction_is_done_once_and_in_its_order(
    lines: list[str], script: dict[str, list[str]]
) -> None:
    """Whatever fails how often; nothing after a 99 or a failure for good, and there is an end."""
    site = Site({"x": lines})
    for line, names in script.items():
        rans = [RANS[name] for name in names]
        if not line.startswith("|"):  # only a program can say so
            rans = [DONE if ran is LAST else ran for ran in rans]
        site.writer.end(PLACES.get(line, line), *rans)
    answer, _ = asyncio.run(site.play(Target("iain-x@example.com")))
    done, forwards, end = [], [], ""
    for line in lines:
        if line.startswith("&"):
            forwards.append(line[1:])
            continue
        fate = next((name for name in script.get(line, []) if name != "not now"), "done")
        if fate == "never":
            end = "failed"
            break
        done.append(PLACES.get(line, line))
        if fate == "last" and line.startswith("|"):
            break
    assert site.writer.done == done
    assert ends(answer) == (end or " ".join(forwards) or "delivered")


async def test_a_list_with_more_than_there_may_be_waits() -> None:
    """What is written twice counts once."""
    lists: dict[str, Sequence[str]] = {"x": ["a@x.org", "b@x.org", "&b@x.org"]}
    x = Target("iain-x@example.com")
    (answer,) = await Site(lists, routing=Routing(max_alias_targets=2)).attempt(x)
    assert ends(answer) == "a@x.org b@x.org"
    (answer,) = await Site(lists, routing=Routing(max_alias_targets=1)).attempt(x)
    assert isinstance(answer, TemporaryFailure)
    assert answer.detail == "more than 1 instructions (routing.max_alias_targets)"


async def test_lists_are_expanded_as_far_as_one_attempt_has_room() -> None:
    lists: dict[str, Sequence[str]] = {
        name: [f"&{name}{n}@x.org" for n in (0, 1)] for name in "abc"
    }
    site = Site(lists, routing=Routing(max_alias_targets=4))
    targets = [Target(f"iain-{name}@example.com") for name in lists]
    answers = await site.attempt(*targets, Target("iain@example.com"))
    assert [ends(each) for each in answers[:2]] == ["a0@x.org a1@x.org", "b0@x.org b1@x.org"]
    assert answers[2:] == [Untried(), DONE.outcome]
    (answer,) = await site.attempt(targets[2])
    assert ends(answer) == "c0@x.org c1@x.org"


async def test_who_is_behind_those_without_room_is_not_looked_up() -> None:
    """Or a message that names a list a thousand times is a thousand times looked up as a whole."""
    site = Site({"list": ["&a@x.org", "&b@x.org"]}, routing=Routing(max_alias_targets=2))
    targets = [Target(f"iain-list+{number}@example.com") for number in range(3 * FIRST_PORTION)]
    first, *others = await site.attempt(*targets)
    assert ends(first) == "a@x.org b@x.org"
    assert others == [Untried()] * (len(targets) - 1)
    assert site.looked_up() == [FIRST_PORTION]


async def test_a_large_message_is_copied_as_often_as_one_attempt_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mda, "MAX_OCTETS", 2 * len(HELLO))
    site = Site({"list": ["&a@x.org"]})
    to = [Target(f"iain+{number}@example.com") for number in range(3 * FIRST_PORTION)]
    alias = Target("iain-list@example.com")
    first, listed, second, *others = await site.attempt(to[0], alias, *to[1:])
    assert ends(listed) == "a@x.org"
    assert [first, second] == [DONE.outcome] * 2
    assert others == [Untried()] * (len(to) - 2)
    assert site.looked_up() == [FIRST_PORTION - 1]
    monkeypatch.setattr(mda, "MAX_OCTETS", 1)
    assert await site.attempt(*to[:2]) == [DONE.outcome, Untried()], "one in any case"


async def test_many_mailboxes_take_a_few_look_ups() -> None:
    site = Site()
    for count, portions in ((FIRST_PORTION, [16]), (200, [16, 16, 32, 64, 72])):
        targets = [Target(f"iain+{number}@example.com") for number in range(count)]
        assert await site.attempt(*targets) == [DONE.outcome] * count
        assert site.looked_up() == portions
        site.directory.asked.clear()


async def test_nothing_is_kept_before_something_was_done() -> None:
    """So that the list is read anew: it may have been mended."""
    site = Site({"x": ["|a", "|b"]})
    site.writer.end("|a", NOT_NOW, NOT_NOW)
    answer, left = await site.play(Target("iain-x@example.com"), attempts=3)
    assert isinstance(answer, TemporaryFailure)
    assert left.instruction == ""


async def test_what_is_left_is_obeyed_with_the_rights_of_now() -> None:
    site = Site({"x": ["|a", "./mbox", "&ann@x.org"]})
    _, left = await site.play(Target("iain-x@example.com"), attempts=2)
    assert left.instruction == "./mbox\n&ann@x.org"
    site.directory.tables.mailbox[:] = [account(IAIN, "/elsewhere", uid=2000, gid=3000)]
    site.directory.tables.alias[:] = [(IAIN, "x", "|other", "")]
    answer, _ = await site.play(left)
    assert ends(answer) == "ann@x.org"
    _, mbox = site.writer.work[-1]
    assert isinstance(mbox, MboxDelivery)
    assert (mbox.path, mbox.account.uid, mbox.account.gid) == ("/elsewhere/mbox", 2000, 3000)
    assert site.writer.done == ["|a", "/elsewhere/mbox"], "what the rows say now is for others"


async def test_what_is_left_is_obeyed_where_the_list_has_gone() -> None:
    site = Site({"": ["|a", "./mbox", "|b"]})
    _, left = await site.play(Target(IAIN), attempts=2)
    site.directory.tables.alias.clear()
    answer, _ = await site.play(left)
    assert isinstance(answer, Delivered)
    assert site.writer.done == ["|a", f"{HOME}/mbox", "|b"]


async def test_nobody_runs_what_the_former_owner_of_an_address_wrote() -> None:
    site = Site({"x": ["|a", "|b", "./mbox"]})
    site.writer.end("|b", NOT_NOW)
    answer, left = await site.play(Target("iain-x@example.com"), attempts=3)
    assert left.instruction == "|b\n./mbox"
    site.directory.tables.mailbox.append(account("ann@example.com", uid=2000))
    site.directory.tables.virtual[:] = [("ann@example.com", "iain-x", "example.com")]
    for rest in ("|b\n./mbox", "./mbox", "/home/ann/.ssh/authorized_keys"):
        (answer,) = await site.attempt(replace(left, instruction=rest), lane=LANE)
        assert isinstance(answer, Delivered)
        assert site.writer.done[-1] == "/home/ann@example.com/Maildir/", "where ann has her mail"
    site.directory.tables.alias.append(("ann@example.com", "", "|c", ""))
    site.directory.tables.alias.append(("ann@example.com", "", "./box", ""))
    answer, _ = await site.play(left)
    assert site.writer.done[-2:] == ["|c", "/home/ann@example.com/box"]
    assert not {"|b", f"{HOME}/mbox"} & set(site.writer.done)


async def test_of_a_list_without_a_program_whose_each_line_is_is_known_as_well() -> None:
    site = Site({"x": ["./mbox", "&ann@x.org"]})
    (answer,) = await site.attempt(Target("iain-x@example.com"))
    assert isinstance(answer, Expanded)
    mbox, forward = answer.targets
    assert (mbox.account, forward.account) == (IAIN, "")
    site.directory.tables.mailbox.append(account("ann@example.com", uid=2000))
    site.directory.tables.virtual[:] = [("ann@example.com", "iain-x", "example.com")]
    (answer,) = await site.attempt(mbox)
    assert isinstance(answer, Delivered)
    assert site.writer.done == ["/home/ann@example.com/Maildir/"]


async def test_what_is_left_fails_with_its_account() -> None:
    site = Site()
    site.directory.tables.mailbox.clear()
    answer, _ = await site.play(Target("iain@example.com", "|a"))
    assert isinstance(answer, PermanentFailure)
    site = Site()
    site.directory.away = True
    answer, _ = await site.play(Target("iain@example.com", "|a"), attempts=2)
    assert isinstance(answer, TemporaryFailure)


@pytest.mark.parametrize("stored", ["./mbox\0", "|", "&no address"])
async def test_what_is_left_and_cannot_be_read_waits_for_an_operator(stored: str) -> None:
    (answer,) = await Site().attempt(Target(IAIN, stored), lane=LANE)
    assert isinstance(answer, TemporaryFailure)


async def test_a_default_delivery_may_be_a_list() -> None:
    site = Site(routing=Routing(defaultdelivery="|filter\n./Mail/\n"))
    site.writer.end("|filter", NOT_NOW)
    answer, _ = await site.play(Target(IAIN))
    assert isinstance(answer, Delivered)
    assert site.writer.done == ["|filter", f"{HOME}/Mail/"]


async def test_what_a_program_is_told() -> None:
    site = Site({"x": ["|a"]}, {"iain-x@example.com": "iain-x-owner@example.com"})
    await site.play(Target("iain-x@example.com", via=("all@example.com",)))
    ((sent, program),) = site.writer.work
    assert program == ProgramDelivery(
        "a",
        account(IAIN),
        (f"{IAIN[:4]}-x@example.com", "all@example.com"),
        IAIN,
        "x",
        "",
        "iain-x-owner@example.com",
    )
    assert sent.reverse_path == SENDER, "the owner is whom the program may send on from"


# Lanes


async def test_programs_and_mboxes_wait_in_the_lane_of_their_account() -> None:
    site = Site({"x": ["|a"], "y": ["./mbox", "&ann@x.org"]})
    answers = await site.attempt(
        Target("iain-x@example.com"), Target("iain@example.com", "./mbox"), Target(IAIN)
    )
    assert answers == [Moved(LANE), Moved(LANE), Delivered("done")]
    assert site.writer.done == [f"{HOME}/Maildir/"]
    answers = await site.attempt(Target("iain-x@example.com"), lane="|other")
    assert answers == [Moved(LANE)]
    answers = await site.attempt(Target("iain-x@example.com"), lane="example.net")
    assert answers == [Moved(LOCAL_LANE)]


async def test_a_target_that_needs_no_program_any_more_is_delivered_where_it_is() -> None:
    (answer,) = await Site().attempt(Target(IAIN), lane=LANE)
    assert answer == Delivered("done")
    (answer,) = await Site().attempt(Target("ann@example.net"), lane=LANE)
    assert answer == Moved("example.net")


async def test_the_lane_that_is_known_beforehand_is_the_right_one() -> None:
    site = Site({"x": ["|a"], "y": ["./mbox", "&ann@x.org"]})
    router = RouterWithOwners(site.routing, {})
    addresses = [Address.parse(f"{name}@example.com") for name in ("iain-x", "iain-y", "iain")]
    decisions = await router.route_many(addresses, site.directory)
    assert [lane_here(each) for each in decisions] == [LANE, LOCAL_LANE, LOCAL_LANE]


# Owners


OWNER = "iain-x-owner@example.com"
VERP = "iain-x-owner-@example.com-@[]"


async def expanded(site: Site, target: Target | None = None) -> list[tuple[str, str | None]]:
    answer, _ = await site.play(target or Target("iain-x@example.com"))
    assert isinstance(answer, Expanded)
    return [(each.instruction or each.address, each.reverse_path) for each in answer.targets]


LINES = ["&ann@x.org", "./Maildir/", "bob@x.org"]


async def test_what_a_list_sends_on_is_from_its_owner() -> None:
    site = Site({"x": LINES}, {"iain-x@example.com": OWNER})
    assert await expanded(site) == [
        ("ann@x.org", OWNER),
        ("./Maildir/", None),
        ("bob@x.org", OWNER),
    ]
    site = Site({"x": [*LINES, "|a"]}, {"iain-x@example.com": OWNER})
    assert await expanded(site) == [("ann@x.org", OWNER), ("bob@x.org", OWNER)]
    assert [sent.reverse_path for sent, _ in site.writer.work] == [SENDER, SENDER]


async def test_an_owner_of_many_names_has_one_for_each_recipient() -> None:
    lines = ["&ann@x.org", "&carol"]
    site = Site({"x": lines}, {"iain-x@example.com": VERP})
    assert await expanded(site) == [
        ("ann@x.org", "iain-x-owner-ann=x.org@example.com"),
        ("carol@mx.example.com", "iain-x-owner-carol=mx.example.com@example.com"),
    ]


async def test_a_forward_without_a_domain_is_queued_with_it() -> None:
    """A report about it names an address; a second copy by the whole one is known as one."""
    assert await expanded(Site({"x": ["&carol"]})) == [("carol@mx.example.com", None)]


async def test_a_list_without_an_owner_keeps_the_sender() -> None:
    site = Site({"x": LINES})
    assert {sender for _, sender in await expanded(site)} == {None}
    inside = Target("iain-x@example.com", reverse_path="other@list")
    assert {sender for _, sender in await expanded(site, inside)} == {"other@list"}


async def test_a_list_inside_a_list_has_its_own_owner() -> None:
    site = Site({"x": LINES}, {"iain-x@example.com": OWNER})
    inside = Target("iain-x@example.com", reverse_path="other@list")
    assert await expanded(site, inside) == [
        ("ann@x.org", OWNER),
        ("./Maildir/", "other@list"),
        ("bob@x.org", OWNER),
    ]


async def test_reports_stay_reports() -> None:
    site = Site({"x": [*LINES, "|a"]}, {"iain-x@example.com": OWNER}, sender=NULL_REVERSE_PATH)
    assert {sender for _, sender in await expanded(site)} == {None}
    _, program = site.writer.work[-1]
    assert isinstance(program, ProgramDelivery)
    assert program.new_sender == ""


async def test_every_copy_is_written_with_its_own_sender() -> None:
    site = Site()
    targets = [
        Target(IAIN),
        Target("b@example.com", "./b/", reverse_path=OWNER),
        Target("c@example.com", "./c/", reverse_path=OWNER),
        Target("d@example.com", "./d/", reverse_path=""),
    ]
    assert await site.attempt(*targets) == [Delivered("done")] * 4
    senders = {name_of(work): sent.reverse_path for sent, work in site.writer.work}
    assert {name: str(sender) for name, sender in senders.items()} == {
        f"{HOME}/Maildir/": str(SENDER),
        f"{HOME}/b/": OWNER,
        f"{HOME}/c/": OWNER,
        f"{HOME}/d/": "",
    }


async def test_a_transaction_has_one_sender() -> None:
    site = Site()
    targets = [
        Target("a@example.net", reverse_path=OWNER),
        Target("b@example.net"),
        Target("c@example.net", reverse_path=OWNER),
    ]
    answers = await site.attempt(*targets, lane="example.net")
    assert answers == [Delivered("sent"), Untried(), Delivered("sent")]
    (parcel,) = site.parcels
    assert site.directory.asked == [("prefetch", "a@example.net", "c@example.net")], (
        "b's turn comes"
    )
    assert str(parcel.envelope.reverse_path) == OWNER
    assert (parcel.envelope.ret, parcel.envelope.envid) == ("", ""), "wishes of the sender's"
    await site.attempt(targets[1], lane="example.net")
    own = site.parcels[1].envelope
    assert (own.reverse_path, own.ret, own.envid) == (SENDER, "FULL", "Q")


# Loops


@pytest.mark.parametrize("lines", [["|a"], ["&ann@x.org"], ["./mbox", "./b/"]])
async def test_a_list_that_the_message_came_by_is_not_obeyed(lines: list[str]) -> None:
    site = Site({"x": lines}, bears=frozenset({"iain-x@example.com"}))
    answer, _ = await site.play(Target("iain-x@example.com"))
    assert isinstance(answer, PermanentFailure)
    said = "554 5.4.6 The message is looping: it came by iain-x@example.com before"
    assert str(answer.reply) == said
    site = Site({"x": lines})
    way = ("c@example.com", "Iain-X@example.com", "a@example.com")
    answer, _ = await site.play(Target("iain-x@example.com", via=way))
    assert isinstance(answer, PermanentFailure)
    circle = "Iain-X@example.com > c@example.com > iain-x@example.com"
    assert str(answer.reply) == f"{said}, and then by {circle}"
    assert site.writer.tried == []


async def test_aliases_without_end_are_given_up_by_name() -> None:
    site = Site({"x": ["&ann@x.org"]}, routing=Routing(max_alias_depth=2))
    way = ("b@example.com", "a@example.com")
    answer, _ = await site.play(Target("iain-x@example.com", via=way))
    assert isinstance(answer, PermanentFailure)
    assert str(answer.reply) == (
        "554 5.4.6 The message went by too many aliases:"
        " a@example.com > b@example.com > iain-x@example.com"
    )


async def test_nobody_keeps_the_queue_busy_with_a_list_of_programs_without_end() -> None:
    forwards = [f"&{number}@x.org" for number in range(MOST_STEPS)]
    programs = [f"|{number}" for number in range(MOST_STEPS)]
    site = Site({"x": [*programs, *forwards], "y": [*programs, "./mbox"]})
    answer, _ = await site.play(Target("iain-x@example.com"), attempts=2 * MOST_STEPS)
    assert isinstance(answer, Expanded)
    assert site.writer.done == programs
    answer, _ = await site.play(Target("iain-y@example.com"), attempts=2)
    assert isinstance(answer, TemporaryFailure)
    assert "101 programs and mailboxes" in answer.detail
    assert site.writer.done == programs

"""Decisions 1 to 4 as tables: (tables, settings, address) to what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from restante.address import Address
from restante.config.tree import Routing
from restante.directory import BadRow
from restante.routing.decision import (
    Decision,
    Instructions,
    Mailbox,
    Misconfigured,
    NoSuchUser,
    Remote,
    Unknown,
)
from restante.routing.instructions import instruction_line
from restante.routing.reply import RELAYING_DENIED, reply_to, reply_to_stranger
from restante.routing.router import Router
from tests.support.memory_directory import MemoryDirectory, Tables, account

VIRTUAL = Tables(
    rcpthosts=["example.com", "backup.org"],
    mailbox=[
        account("iain"),
        account("sales@example.com"),
        account("ann@example.com"),
        account("web"),
        account("a-b"),
        account("Mixed@Example.com"),
    ],
    virtual=[
        ("iain", "iain", "example.com"),
        ("iain", "iain", "example.com"),
        ("ann@example.com", "ann", "example.com"),
        ("ann@example.com", "a+b", "example.com"),
        ("sales-eu@example.com", "eu", "example.com"),
        ("sales-us-west@example.com", "west", "example.com"),
        ("sales-xx@example.com", "xx", "example.com"),
        ("team@example.com", "team", "example.com"),
        ("team@example.com", "team", "example.com"),
        ("nowhere@example.com", "nowhere", "example.com"),
        ("ghost", "ghost", "example.com"),
        ("iain-list", "list", "example.com"),
        ("a-b-c", "abc", "example.com"),
        ("a-b", "ab", "example.com"),
        ("zoe", "two", "example.com"),
        ("iain", "two", "example.com"),
        ("mixed@example.com", "mixed", "example.com"),
        ("web", "", "catch.net"),
        ("ann@example.com", "ann", "catch.net"),
        ("web-all", "", "ext.net"),
        ("files@example.com", "files", "example.com"),
        ("blank@example.com", "blank", "example.com"),
        ("quiet@example.com", "quiet", "example.com"),
        ("broken@example.com", "broken", "example.com"),
        ("evil\nX: y", "evil", "example.com"),
    ],
    alias=[
        ("sales@example.com", "eu", "ann", "example.com"),
        ("sales@example.com", "us-west", "bob", "far.org"),
        ("alias", "team@example.com", "iain", "example.com"),
        ("alias", "team@example.com", "ann", "example.com"),
        ("alias", "team@example.com", "ann", "example.com"),
        ("iain", "list", "./Lists/", ""),
        ("iain", "tag", "/srv/tag/", ""),
        ("a-b", "c", "|run it", ""),
        ("web", "all", "./Mailbox", ""),
        ("alias", "files@example.com", "# only a comment", ""),
        ("alias", "files@example.com", "&x@far.org", ""),
        ("alias", "blank@example.com", " ", ""),
        ("alias", "evil\nX: y", "&x@far.org", ""),
        ("alias", "quiet@example.com", "# nothing is done", ""),
        ("alias", "broken@example.com", "&not an address", ""),
    ],
)
LOCALS = Tables(
    rcpthosts=["iain.cx"],
    mailbox=[account("iain"), account("ann"), account("a-b"), account("pre-bob"), account("pre")],
    virtual=[
        ("iain", "example", "babasse.com"),
        ("ann", "sold", "iain.cx"),
        ("ann", "", "all.cx"),
        ("ann", "ann", "all.cx"),
        ("iain", "own", "other.org"),
    ],
    alias=[
        ("iain", "list", "&x@far.org", ""),
        ("ann", "", "./Other/", ""),
        ("alias", "info", "&iain@iain.cx", ""),
        ("pre", "info", "&ann@iain.cx", ""),
    ],
)
LOCAL_RULES = Routing(
    locals=("iain.cx", "all.cx", "own.cx"),
    envnoathost="babasse.com",
    envnoathosts={"own.cx": "other.org"},
    rcpthosts=("listed.org", ".sub.org"),
    virtualdomains={
        "v.org": "pre",
        ".w.org": "pre",
        "x.w.org": "",
        "one@z.org": "pre",
        "babasse.com": "",
    },
)
CATCHALL_USER = Tables(
    mailbox=[account("iain")],
    virtual=[("nobody", "who", "example.com"), ("iain", "iain", "example.com")],
    alias=[("alias", "", "&iain@example.com", ""), ("iain", "", "&out@far.org", "")],
)


def _told(decision: Decision) -> str:
    match decision:
        case Mailbox(found, delivered_to, maildir):
            assert maildir == f"{found.home}/Maildir"
            return f"{found.name} {delivered_to}"
        case Instructions(found, delivered_to, actions):
            lines = " ".join(map(instruction_line, actions))
            return f"{found.name if found else 'alias'} {delivered_to}: {lines}".rstrip()
        case Remote(address):
            return f"remote {address}"
    return type(decision).__name__


NONE = NoSuchUser.__name__
BAD = Misconfigured.__name__
ANN = "ann@example.com ann@example.com"
TEAM = "alias team@example.com: &iain@example.com &ann@example.com"
EU = "sales@example.com sales-eu@example.com: &ann@example.com"

PLAIN = Routing()
NO_TAGS = Routing(subaddress_delimiter="")
DASH = Routing(subaddress_delimiter="-")
HERE = Routing(envnoathost="example.com")
RULES: list[tuple[Tables, Routing, str, str]] = [
    # virtual: exact, case, owners with and without an at sign
    (VIRTUAL, PLAIN, "iain@example.com", "iain iain@example.com"),
    (VIRTUAL, PLAIN, "IAIN@EXAMPLE.COM", "iain iain@example.com"),
    (VIRTUAL, PLAIN, "Iain@Example.Com", "iain iain@example.com"),
    (VIRTUAL, PLAIN, '"iain"@example.com', "iain iain@example.com"),
    (VIRTUAL, PLAIN, "ann@example.com", ANN),
    (VIRTUAL, PLAIN, "mixed@example.com", "Mixed@Example.com mixed@example.com"),
    (VIRTUAL, PLAIN, "ab@example.com", "a-b a-b@example.com"),
    (VIRTUAL, PLAIN, "two@example.com", "iain iain@example.com"),
    (VIRTUAL, PLAIN, "two+x@example.com", "iain iain@example.com"),
    (VIRTUAL, PLAIN, "îain@example.com", NONE),
    # a name in mailbox alone is no address outside locals
    (VIRTUAL, PLAIN, "web@example.com", NONE),
    (VIRTUAL, PLAIN, "sales@example.com", NONE),
    (VIRTUAL, PLAIN, "iain@catch.net", "web web@catch.net"),
    # extensions of owners
    (VIRTUAL, PLAIN, "eu@example.com", EU),
    (VIRTUAL, PLAIN, "EU@example.com", EU),
    (
        VIRTUAL,
        PLAIN,
        "west@example.com",
        "sales@example.com sales-us-west@example.com: &bob@far.org",
    ),
    (VIRTUAL, PLAIN, "xx@example.com", NONE),
    (VIRTUAL, PLAIN, "list@example.com", "iain iain-list@example.com: ./Lists/"),
    (VIRTUAL, PLAIN, "abc@example.com", "a-b a-b-c@example.com: |run it"),
    (VIRTUAL, PLAIN, "iain-list@example.com", NONE),
    # the alias user
    (VIRTUAL, PLAIN, "team@example.com", TEAM),
    (VIRTUAL, PLAIN, "TEAM@example.com", TEAM),
    (VIRTUAL, PLAIN, "team+x@example.com", TEAM),
    (VIRTUAL, PLAIN, "nowhere@example.com", NONE),
    (VIRTUAL, PLAIN, "nowhere+team@example.com", NONE),
    (VIRTUAL, PLAIN, "ghost@example.com", NONE),
    (VIRTUAL, PLAIN, "files@example.com", "alias files@example.com: &x@far.org"),
    (VIRTUAL, PLAIN, "quiet@example.com", "alias quiet@example.com:"),
    (VIRTUAL, PLAIN, "blank@example.com", BAD),
    (VIRTUAL, PLAIN, "broken@example.com", BAD),
    (VIRTUAL, PLAIN, "evil@example.com", BAD),
    (CATCHALL_USER, PLAIN, "who@example.com", "alias nobody@example.com: &iain@example.com"),
    (CATCHALL_USER, PLAIN, "iain@example.com", "iain iain@example.com: &out@far.org"),
    (CATCHALL_USER, PLAIN, "iain+t@example.com", "iain iain@example.com: &out@far.org"),
    # subaddresses
    (VIRTUAL, PLAIN, "iain+x@example.com", "iain iain@example.com"),
    (VIRTUAL, PLAIN, "iain+tag@example.com", "iain iain+tag@example.com: /srv/tag/"),
    (VIRTUAL, PLAIN, "Iain+TAG@example.com", "iain iain+TAG@example.com: /srv/tag/"),
    (VIRTUAL, PLAIN, "iain+@example.com", "iain iain@example.com"),
    (VIRTUAL, PLAIN, "iain+tag+x@example.com", "iain iain@example.com"),
    (VIRTUAL, PLAIN, "+iain@example.com", NONE),
    (VIRTUAL, PLAIN, "ann+x@example.com", ANN),
    (VIRTUAL, PLAIN, "a+b@example.com", ANN),
    (VIRTUAL, PLAIN, "a+c@example.com", NONE),
    (VIRTUAL, PLAIN, "eu+x@example.com", EU),
    (VIRTUAL, PLAIN, "ann+x@catch.net", ANN),
    (VIRTUAL, PLAIN, "bob+x@catch.net", "web web@catch.net"),
    (VIRTUAL, NO_TAGS, "iain+x@example.com", NONE),
    (VIRTUAL, NO_TAGS, "ann+x@catch.net", "web web@catch.net"),
    (VIRTUAL, DASH, "iain-tag@example.com", "iain iain-tag@example.com: /srv/tag/"),
    (VIRTUAL, DASH, "ann-x@catch.net", ANN),
    # catch-alls
    (VIRTUAL, PLAIN, "any@catch.net", "web web@catch.net"),
    (VIRTUAL, PLAIN, "any@CATCH.net", "web web@catch.net"),
    (VIRTUAL, PLAIN, "ann@catch.net", ANN),
    (VIRTUAL, PLAIN, "any@ext.net", "web web-all@ext.net: ./Mailbox"),
    (VIRTUAL, PLAIN, "any@sub.catch.net", "remote any@sub.catch.net"),
    # steps 6 and 7
    (VIRTUAL, PLAIN, "bob@example.com", NONE),
    (VIRTUAL, PLAIN, "postmaster@example.com", NONE),
    (VIRTUAL, PLAIN, "bob@far.org", "remote bob@far.org"),
    (VIRTUAL, PLAIN, "bob@backup.org", "remote bob@backup.org"),
    (VIRTUAL, PLAIN, "Bob@FAR.org", "remote Bob@far.org"),
    (VIRTUAL, PLAIN, "iain@[192.0.2.1]", "remote iain@[192.0.2.1]"),
    # step 1
    (VIRTUAL, PLAIN, "iain", "remote iain@mail.host"),
    (VIRTUAL, HERE, "iain", "iain iain@example.com"),
    (VIRTUAL, HERE, "postmaster", NONE),
    (VIRTUAL, HERE, "iain+x", "iain iain@example.com"),
    # the overview's own example, under both configurations
    (LOCALS, LOCAL_RULES, "example@iain.cx", "iain iain@babasse.com"),
    (LOCALS, Routing(envnoathost="babasse.com"), "example@iain.cx", NONE),
    # locals: steps 2a, 2b, 2c, 5
    (LOCALS, LOCAL_RULES, "iain@iain.cx", "iain iain@iain.cx"),
    (LOCALS, LOCAL_RULES, "IAIN@Iain.CX", "iain iain@iain.cx"),
    (LOCALS, LOCAL_RULES, "iain+x@iain.cx", "iain iain@iain.cx"),
    (LOCALS, LOCAL_RULES, "iain+list@iain.cx", "iain iain+list@iain.cx: &x@far.org"),
    (LOCALS, LOCAL_RULES, "iain-list@iain.cx", "iain iain-list@babasse.com: &x@far.org"),
    (LOCALS, LOCAL_RULES, "iain-none@iain.cx", NONE),
    (LOCALS, LOCAL_RULES, "ann@iain.cx", "ann ann@iain.cx: ./Other/"),
    (LOCALS, LOCAL_RULES, "ann-any@iain.cx", "ann ann-any@babasse.com: ./Other/"),
    (LOCALS, LOCAL_RULES, "sold@iain.cx", "ann ann@iain.cx: ./Other/"),
    (LOCALS, LOCAL_RULES, "sold+x@iain.cx", "ann ann@iain.cx: ./Other/"),
    (LOCALS, LOCAL_RULES, "a-b@iain.cx", "a-b a-b@iain.cx"),
    (LOCALS, LOCAL_RULES, "a-b-c@iain.cx", NONE),
    (LOCALS, LOCAL_RULES, "a@iain.cx", NONE),
    (LOCALS, LOCAL_RULES, "-@iain.cx", NONE),
    (LOCALS, LOCAL_RULES, "info@iain.cx", "alias info@babasse.com: &iain@iain.cx"),
    (LOCALS, LOCAL_RULES, "INFO@iain.cx", "alias INFO@babasse.com: &iain@iain.cx"),
    (LOCALS, LOCAL_RULES, "nobody@iain.cx", NONE),
    (LOCALS, LOCAL_RULES, "example+x@iain.cx", "iain iain@babasse.com"),
    (LOCALS, LOCAL_RULES, "anything@all.cx", "ann ann@all.cx: ./Other/"),
    (LOCALS, LOCAL_RULES, "iain@all.cx", "iain iain@all.cx"),
    (LOCALS, LOCAL_RULES, "iain+x@all.cx", "iain iain@all.cx"),
    (LOCALS, LOCAL_RULES, "example@all.cx", "ann ann@all.cx: ./Other/"),
    (LOCALS, LOCAL_RULES, "own@own.cx", "iain iain@other.org"),
    (LOCALS, LOCAL_RULES, "example@own.cx", NONE),
    (LOCALS, LOCAL_RULES, "info@own.cx", "alias info@other.org: &iain@iain.cx"),
    (LOCALS, LOCAL_RULES, "example", "iain iain@babasse.com"),
    (LOCALS, LOCAL_RULES, "example@babasse.com", "iain iain@babasse.com"),
    (LOCALS, LOCAL_RULES, "info@babasse.com", NONE),
    (LOCALS, Routing(locals=("iain.cx",)), "info@iain.cx", "alias info@mail.host: &iain@iain.cx"),
    (LOCALS, Routing(locals=("IAIN.cx",)), "iain@iain.cx", "iain iain@iain.cx"),
    # step 4: virtualdomains
    (LOCALS, LOCAL_RULES, "bob@v.org", "pre-bob pre-bob@v.org"),
    (LOCALS, LOCAL_RULES, "BOB@V.ORG", "pre-bob pre-BOB@v.org"),
    (LOCALS, LOCAL_RULES, "info@v.org", "pre pre-info@v.org: &ann@iain.cx"),
    (LOCALS, LOCAL_RULES, "nobody@v.org", NONE),
    (LOCALS, LOCAL_RULES, "bob@sub.v.org", "remote bob@sub.v.org"),
    (LOCALS, LOCAL_RULES, "bob@a.w.org", "pre-bob pre-bob@a.w.org"),
    (LOCALS, LOCAL_RULES, "bob@a.b.w.org", "pre-bob pre-bob@a.b.w.org"),
    (LOCALS, LOCAL_RULES, "bob@w.org", "remote bob@w.org"),
    (LOCALS, LOCAL_RULES, "bob@x.w.org", "remote bob@x.w.org"),
    (LOCALS, LOCAL_RULES, "one@z.org", NONE),
    (LOCALS, LOCAL_RULES, "two@z.org", "remote two@z.org"),
    (LOCALS, Routing(virtualdomains={"": "pre"}), "bob@far.org", "pre-bob pre-bob@far.org"),
    (LOCALS, Routing(virtualdomains={"": "pre"}), "own@other.org", "iain iain@other.org"),
    (
        LOCALS,
        Routing(virtualdomains={"": "pre"}),
        "info@other.org",
        "pre pre-info@other.org: &ann@iain.cx",
    ),
    # the default delivery
    (
        LOCALS,
        Routing(locals=("iain.cx",), defaultdelivery="./Mailbox"),
        "iain@iain.cx",
        "iain iain@iain.cx: ./Mailbox",
    ),
    (
        LOCALS,
        Routing(locals=("iain.cx",), defaultdelivery="|x"),
        "iain@iain.cx",
        "iain iain@iain.cx: |x",
    ),
    (
        LOCALS,
        Routing(locals=("iain.cx",), defaultdelivery="./Mailbox"),
        "ann@iain.cx",
        "ann ann@iain.cx: ./Other/",
    ),
    (
        LOCALS,
        Routing(locals=("iain.cx",), defaultdelivery="./Maildir/\n&c@far.org"),
        "iain@iain.cx",
        "iain iain@iain.cx: ./Maildir/ &c@far.org",
    ),
    # nothing at all
    (Tables(), PLAIN, "a@example.com", "remote a@example.com"),
    (Tables(), Routing(locals=("example.com",)), "a@example.com", NONE),
    (
        Tables(),
        Routing(locals=("example.com",), envnoathost="example.com"),
        "a+b@example.com",
        NONE,
    ),
]
CASES = [pytest.param(*rule, id=f"{number}:{rule[2]}") for number, rule in enumerate(RULES)]


@pytest.mark.parametrize(("tables", "settings", "address", "expected"), CASES)
async def test_decision(tables: Tables, settings: Routing, address: str, expected: str) -> None:
    router, parsed = Router(settings, "mail.host"), Address.parse(address)
    assert _told(await router.route(parsed, MemoryDirectory(tables))) == expected
    directory = MemoryDirectory(tables)
    (bulk,) = await router.route_many((parsed,), directory)
    assert _told(bulk) == expected


@pytest.mark.parametrize(("tables", "settings", "address", "expected"), CASES)
async def test_a_question_without_an_answer_is_never_no_such_user(
    tables: Tables, settings: Routing, address: str, expected: str
) -> None:
    router, parsed = Router(settings, "mail.host"), Address.parse(address)
    whole = MemoryDirectory(tables)
    await router.route(parsed, whole)
    assert whole.asked
    for number in range(len(whole.asked)):
        failing = MemoryDirectory(tables)
        failing.fail_at = number
        assert isinstance(await router.route(parsed, failing), Unknown)
        mending = MemoryDirectory(tables)
        mending.fail_at, mending.failure = number, BadRow("mailbox iain: uid")
        assert isinstance(await router.route(parsed, mending), Misconfigured)


@pytest.mark.parametrize(
    ("domain", "accepted"),
    [
        ("iain.cx", True),
        ("IAIN.cx", True),
        ("listed.org", True),
        ("a.listed.org", False),
        ("a.sub.org", True),
        ("a.b.sub.org", True),
        ("sub.org", False),
        ("babasse.com", False),
        ("all.cx", False),
        ("far.org", False),
        ("", True),
    ],
)
async def test_decision_1(domain: str, accepted: bool) -> None:
    address = Address.parse(f"a@{domain}" if domain else "a")
    router = Router(LOCAL_RULES, "mail.host")
    assert await router.accepts(address.domain, MemoryDirectory(LOCALS)) is accepted


async def test_an_ordinary_address_costs_one_statement() -> None:
    for tables, settings, text in (
        (VIRTUAL, PLAIN, "iain@example.com"),
        (VIRTUAL, PLAIN, "ann+tagless@catch.net"),
        (VIRTUAL, PLAIN, "team@example.com"),
        (VIRTUAL, PLAIN, "any@catch.net"),
        (LOCALS, LOCAL_RULES, "example@iain.cx"),
        (LOCALS, LOCAL_RULES, "iain@iain.cx"),
    ):
        directory = MemoryDirectory(tables)
        await Router(settings, "mail.host").route_many((Address.parse(text),), directory)
        expected = 2 if "+" in text else 1
        assert len(directory.asked) == expected, directory.asked


async def test_with_system_files_it_costs_one_look_at_the_home_as_well() -> None:
    files, local_files = (replace(each, system_files=True) for each in (PLAIN, LOCAL_RULES))
    for tables, settings, text, more in (
        (VIRTUAL, PLAIN, "iain@example.com", []),
        (VIRTUAL, files, "iain@example.com", [".qmail"]),
        (VIRTUAL, files, "iain+none@example.com", ["alias", ".qmail", ".qmail"]),
        (VIRTUAL, files, "team@example.com", ["passwd"]),
        (VIRTUAL, files, "bob@far.org", []),
        (LOCALS, local_files, "example@iain.cx", [".qmail"]),
        (LOCALS, local_files, "ann@iain.cx", []),
    ):
        directory = MemoryDirectory(tables)
        await Router(settings, "mail.host").route_many((Address.parse(text),), directory)
        assert [key[0] for key in directory.asked] == ["prefetch", *more], text


async def test_the_first_table_asked_is_virtual_outside_locals() -> None:
    directory = MemoryDirectory(LOCALS)
    router = Router(Routing(envnoathost="babasse.com"), "mail.host")
    await router.route(Address.parse("example@iain.cx"), directory)
    assert directory.asked[0] == ("virtual", "example", "iain.cx")


def test_replies() -> None:
    address = Address("a", "b.org")
    codes = [
        str(reply_to(decision, verify=True))[:9]
        for decision in (
            Remote(address),
            NoSuchUser(address, ""),
            Unknown(address, ""),
            Misconfigured(address, ""),
        )
    ]
    assert codes == ["250 2.1.5", "550 5.1.1", "451 4.3.0", "451 4.3.5"]
    assert reply_to_stranger(Remote(address), accepted=False, verify=True) == RELAYING_DENIED

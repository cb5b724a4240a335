"""Who may send as whom, as a table: the same over plain tables, SQLite and MariaDB."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import pytest

from restante.address import Address
from restante.config import Settings
from restante.config.tree import Routing, Server, Submission
from restante.directory import BadRow, Directory
from restante.directory.engine import Statement
from restante.directory.lookups import SqlDirectory
from restante.errors import CannotKnow
from restante.receiver.senders import Senders
from restante.routing import reach
from restante.routing.router import Router
from tests.support.directory import Rows, directory_with, engine_with
from tests.support.memory_directory import MemoryDirectory, Tables, account

Allowed = Literal["own", "domains", "any"]

SITE = Tables(
    rcpthosts=["example.com", "caught.example"],
    mailbox=[
        account("ann@example.com"),
        account("bob@example.com"),
        account("unlisted@example.com"),
        account("iain"),
        account("uwe@müller.example"),
    ],
    virtual=[
        ("uwe@müller.example", "uwe", "müller.example"),
        ("uwe@müller.example", "team", "büro.test"),
        ("ann@example.com", "ann", "example.com"),
        ("bob@example.com", "bob", "example.com"),
        ("ann@example.com", "a.smith", "example.com"),
        ("ann@example.com", "", "caught.example"),
        ("bob@example.com", "bob", "caught.example"),
        ("ann-lists@example.com", "lists", "example.com"),
        ("ann-none@example.com", "none", "example.com"),
        ("two@example.com", "two", "example.com"),
        ("sales@example.com", "sales", "example.com"),
        ("all@example.com", "all", "example.com"),
        ("round@example.com", "round", "example.com"),
        ("about@example.com", "about", "example.com"),
        ("far@example.com", "far", "example.com"),
        ("torn@example.com", "torn", "example.com"),
        ("iain", "example", "babasse.com"),
        ("bob@example.com", "boss", "babasse.com"),
    ],
    alias=[
        # ann and bob sell; bob forwards all of his mail, and it stays his
        ("alias", "sales@example.com", "ann", "example.com"),
        ("alias", "sales@example.com", "bob", "example.com"),
        ("bob@example.com", "", "bob", "far.example"),
        ("alias", "all@example.com", "sales", "example.com"),
        ("alias", "round@example.com", "about", "example.com"),
        ("alias", "about@example.com", "round", "example.com"),
        ("alias", "about@example.com", "ann", "example.com"),
        ("alias", "far@example.com", "ann", "far.example"),
        ("alias", "torn@example.com", "bob", "example.com"),
        ("alias", "torn@example.com", "not an address", "example.com"),
        ("ann@example.com", "lists", "./Lists/", ""),
    ],
)
ROUTING = Routing(
    locals=("iain.cx", "örtlich.test"),
    envnoathost="babasse.com",
    envnoathosts={"iain.cx": "babasse.com"},
)

YES, NO, LATER, BROKEN = "yes", "553 5.7.1", "451 4.3.0", "451 4.3.5"
ANN, BOB, UNLISTED, IAIN = "ann@example.com", "bob@example.com", "unlisted@example.com", "iain"
UWE = "uwe@müller.example"
CASES: list[tuple[Allowed, str, str, str]] = [
    # the account's own name, in any case, quoted or not, with rows in virtual or without
    ("own", ANN, "ann@example.com", YES),
    ("own", ANN, "ANN@Example.COM", YES),
    ("own", ANN, '"ann"@example.com', YES),
    ("own", UNLISTED, "unlisted@example.com", YES),
    # somebody else's
    ("own", ANN, "bob@example.com", NO),
    ("own", ANN, "unlisted@example.com", NO),
    ("own", ANN, "nobody@example.com", NO),
    ("own", ANN, "ann@far.example", NO),
    ("own", ANN, "ann@[192.0.2.1]", NO),
    ("own", ANN, "änn@example.com", NO),
    # rows of virtual
    ("own", ANN, "a.smith@example.com", YES),
    ("own", BOB, "a.smith@example.com", NO),
    ("own", BOB, "boss@babasse.com", YES),
    # the catch-all is ann's, but for what is somebody else's
    ("own", ANN, "anything@caught.example", YES),
    ("own", ANN, "bob@caught.example", NO),
    ("own", BOB, "bob@caught.example", YES),
    ("own", BOB, "anything@caught.example", NO),
    # subaddresses
    ("own", ANN, "ann+shop@example.com", YES),
    ("own", ANN, "a.smith+shop@example.com", YES),
    ("own", UNLISTED, "unlisted+shop@example.com", YES),
    ("own", ANN, "bob+shop@example.com", NO),
    ("own", ANN, "sales+shop@example.com", YES),
    ("own", BOB, "bob+x@caught.example", YES),
    ("own", ANN, "bob+x@caught.example", NO),
    # extensions: where something is set for them
    ("own", ANN, "lists@example.com", YES),
    ("own", ANN, "none@example.com", NO),
    ("own", BOB, "lists@example.com", NO),
    # aliases: of several, of aliases, in circles, to elsewhere, with a broken row
    ("own", ANN, "sales@example.com", YES),
    ("own", BOB, "sales@example.com", YES),
    ("own", UNLISTED, "sales@example.com", NO),
    ("own", ANN, "all@example.com", YES),
    ("own", BOB, "all@example.com", YES),
    ("own", ANN, "round@example.com", YES),
    ("own", BOB, "round@example.com", NO),
    ("own", ANN, "far@example.com", NO),
    ("own", BOB, "torn@example.com", BROKEN),
    # a forward of one's own gives nothing there
    ("own", BOB, "bob@far.example", NO),
    # names without a domain
    ("own", IAIN, "iain@iain.cx", YES),
    ("own", IAIN, "iain+x@iain.cx", YES),
    ("own", IAIN, "iain@babasse.com", YES),
    ("own", IAIN, "example@babasse.com", YES),
    ("own", IAIN, "example@iain.cx", YES),
    ("own", IAIN, "boss@babasse.com", NO),
    ("own", IAIN, "iain@example.com", NO),
    ("own", ANN, "iain@iain.cx", NO),
    # whole domains: of the name, of rows of virtual, and not those of aliases alone
    ("domains", ANN, "nobody@example.com", YES),
    ("domains", ANN, "bob@example.com", YES),
    ("domains", ANN, "bob@caught.example", YES),
    ("domains", UNLISTED, "sales@example.com", YES),
    ("domains", BOB, "anything@babasse.com", YES),
    ("domains", IAIN, "any@iain.cx", YES),
    ("domains", IAIN, "any@babasse.com", YES),
    ("domains", IAIN, "any@example.com", NO),
    ("domains", ANN, "any@babasse.com", NO),
    ("domains", ANN, "ann@far.example", NO),
    ("domains", UNLISTED, "any@caught.example", NO),
    # both forms of a domain
    ("own", UWE, "uwe@müller.example", YES),
    ("own", UWE, "uwe@xn--mller-kva.example", YES),
    ("own", UWE, "uwe+x@xn--mller-kva.example", YES),
    ("own", UWE, "team@xn--bro-hoa.test", YES),
    ("own", UWE, "zoe@xn--mller-kva.example", NO),
    ("own", ANN, "uwe@xn--mller-kva.example", NO),
    ("own", IAIN, "iain@xn--rtlich-vxa.test", YES),
    ("domains", UWE, "zoe@xn--mller-kva.example", YES),
    ("domains", UWE, "zoe@xn--bro-hoa.test", YES),
    ("domains", ANN, "zoe@xn--bro-hoa.test", NO),
    ("any", ANN, "president@white.example", YES),
]


def settings(allowed: Allowed) -> Settings:
    return Settings(
        "/nowhere",
        server=Server(me="mx.example.com"),
        routing=ROUTING,
        submission=Submission(senders=allowed),
    )


async def told(directory: Directory, allowed: Allowed, who: str, address: str) -> str:
    """``yes``, or the codes of the refusal."""
    site = settings(allowed)
    senders = Senders(site, Router(site.routing, site.hostname), directory)
    refusal = await senders.refusal(account(who), Address.parse(address))
    return str(refusal.reply)[:9] if refusal else YES


def rows(tables: Tables) -> Rows:
    return {
        "mailbox": [(each.name, each.uid, each.gid, each.home, "", "") for each in tables.mailbox],
        "virtual": tables.virtual,
        "alias": tables.alias,
    }


def differing(found: Iterable[tuple[Allowed, str, str, str]]) -> list[tuple[str, ...]]:
    return [case for case, known in zip(found, CASES, strict=True) if case != known]


async def answers(directory: Directory) -> list[tuple[Allowed, str, str, str]]:
    return [
        (allowed, who, address, await told(directory, allowed, who, address))
        for allowed, who, address, _ in CASES
    ]


async def test_who_may_send_as_whom(database_url: str) -> None:
    async with directory_with(database_url, rows(SITE)) as directory:
        assert differing(await answers(directory)) == []


async def test_a_table_that_cannot_be_read_is_a_temporary_failure(database_url: str) -> None:
    async with engine_with(database_url, rows(SITE)) as engine:
        await engine.transaction([Statement("DROP TABLE `virtual`")])
        directory = SqlDirectory(engine)
        asked: list[tuple[Allowed, str, str]] = [
            ("own", "ann@example.com", YES),
            ("own", "sales@example.com", LATER),
            ("own", "bob@example.com", LATER),
            ("domains", "any@far.example", LATER),
        ]
        for allowed, address, expected in asked:
            assert await told(directory, allowed, ANN, address) == expected, address


async def test_who_may_send_as_whom_in_memory() -> None:
    assert differing(await answers(MemoryDirectory(SITE))) == []


@pytest.mark.parametrize(("allowed", "who", "address", "expected"), CASES)
async def test_what_cannot_be_looked_up_is_never_refused_for_good(
    allowed: Allowed, who: str, address: str, expected: str
) -> None:
    """Whichever statement fails: yes, if nothing more was needed, or a temporary failure."""
    whole = MemoryDirectory(SITE)
    await told(whole, allowed, who, address)
    for number in range(len(whole.asked)):
        for failure, answer in ((CannotKnow("away"), LATER), (BadRow("uid"), BROKEN)):
            failing = MemoryDirectory(SITE)
            failing.fail_at, failing.failure = number, failure
            found = await told(failing, allowed, who, address)
            assert found in {answer, *({YES} if expected == YES else ()), LATER}, number


async def test_a_name_of_ones_own_asks_the_database_nothing() -> None:
    directory = MemoryDirectory(SITE)
    directory.away = True
    for address in ("ann@example.com", "ann+shop@example.com"):
        assert await told(directory, "own", ANN, address) == YES
    assert directory.asked == []
    assert await told(directory, "own", ANN, "sales@example.com") == LATER


async def test_long_lists_are_searched_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stands behind it may not send as the list, and costs no more to refuse."""
    monkeypatch.setattr(reach, "MAX_FOLLOWED", 10)
    members = [f"m{number:02}" for number in range(30)]
    site = Tables(
        mailbox=[account(f"{name}@x.org") for name in members],
        virtual=[(f"{name}@x.org", name, "x.org") for name in ("list", *members)],
        alias=[("alias", "list@x.org", name, "x.org") for name in members],
    )
    router, address = Router(ROUTING, "mx.example.com"), Address.parse("list@x.org")
    for name, expected in (("m00", True), ("m08", True), ("m09", False), ("m29", False)):
        directory = MemoryDirectory(site)
        found = await reach.reaches(router, directory, address, account(f"{name}@x.org"))
        assert found is expected, name
        assert sum(len(key) - 1 for key in directory.asked) <= 10


async def test_aliases_are_followed_as_deeply_as_delivery_does() -> None:
    deep = Tables(mailbox=[account("end@x.org")], virtual=[("end@x.org", "end", "x.org")])
    for level in range(4):
        below = "end" if level == 3 else f"l{level + 1}"
        deep.virtual.append((f"l{level}@x.org", f"l{level}", "x.org"))
        deep.alias.append(("alias", f"l{level}@x.org", below, "x.org"))
    for depth, expected in ((4, True), (3, False)):
        router = Router(replace(ROUTING, max_alias_depth=depth), "mx.example.com")
        found = await reach.reaches(
            router, MemoryDirectory(deep), Address.parse("l0@x.org"), account("end@x.org")
        )
        assert found is expected, depth

"""What ``check`` says of rows, on every engine."""

from __future__ import annotations

import os

import pytest

from restante.cli.check.findings import MAX_NAMED, Findings
from restante.cli.check.rows import examine_rows
from restante.config.tree import Routing, Settings
from restante.directory import MAX_ID
from restante.directory.engine import Engine, Statement
from restante.directory.lookups import SqlDirectory
from tests.support.directory import Rows, engine_with, fill

OWN = os.geteuid() or 1000
"""A uid that a server of whoever runs the tests delivers to."""
SITE: Rows = {
    "rcpthosts": [("example.com",), ("empty.example",), ("café.example",)],
    "mailbox": [("iain", OWN, OWN, "/home/iain", "x", "Crypt-Password")],
    "virtual": [("iain", "info", "Example.COM"), ("iain", "info", "café.example")],
}


async def examined(engine: Engine, settings: Settings | None = None) -> Findings:
    findings = Findings()
    await examine_rows(engine, settings or Settings("/"), findings)
    return findings


@pytest.mark.mariadb
@pytest.mark.parametrize(
    "change",
    [
        "rcpthosts CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        "rcpthosts CONVERT TO CHARACTER SET latin1",
        "`virtual` CONVERT TO CHARACTER SET latin1",
        "rcpthosts MODIFY host VARBINARY(99)",
        "`virtual` MODIFY virtual_host VARBINARY(99)",
    ],
)
async def test_domains_without_addresses_whatever_the_columns_are(
    mariadb_url: str, change: str
) -> None:
    """The look-ups never compare these two columns, so they may well differ."""
    async with engine_with(mariadb_url, SITE) as engine:
        await engine.transaction([Statement(f"ALTER TABLE {change}")])
        advice = (await examined(engine)).advice
    named = {line.split(" has no")[0] for line in advice}
    assert "the domain empty.example" in named
    assert "the domain café.example" not in named


async def test_a_site_in_order_has_no_problem(database_url: str) -> None:
    async with engine_with(database_url, SITE) as engine:
        assert (await examined(engine)).problems == []


async def allow_null(engine: Engine) -> None:
    """Tables as a site may have them, in which nothing must be told."""
    case = "NOCASE" if engine.dialect.name == "sqlite" else "utf8mb4_unicode_ci"
    name = f"VARCHAR(99) COLLATE {case}"
    tables = {
        "mailbox": f"username {name}, uid BIGINT, gid BIGINT, home VARCHAR(99), "
        "password VARCHAR(99), password_type VARCHAR(20)",
        "virtual": f"username {name}, virtual_username {name}, virtual_host {name}",
        "alias": f"username {name}, alias {name}, alias_username {name}, alias_host {name}",
    }
    for table, columns in tables.items():
        await engine.transaction(
            [Statement(f"DROP TABLE `{table}`"), Statement(f"CREATE TABLE `{table}` ({columns})")]
        )


async def test_accounts_that_nobody_can_deliver_to(database_url: str) -> None:
    wrong = [(None, OWN), (OWN, None), (MAX_ID + 1, OWN), (OWN, 2**40), (-1, OWN), (OWN, -1)]
    mailboxes = [(f"u{n}", *ids, "/h", "x", None) for n, ids in enumerate(wrong)]
    rows: Rows = {
        "mailbox": [
            *mailboxes,
            ("null", OWN, OWN, None, "x", None),
            ("relative", OWN, OWN, "home", "x", None),
            ("fine", OWN, OWN, "/h", "x", None),
        ]
    }
    async with engine_with(database_url) as engine:
        await allow_null(engine)
        await fill(engine, rows)
        problems = (await examined(engine)).problems
        named = sorted(problem.split(": ")[0] for problem in problems)
        assert named == [
            *(f"table mailbox, row 'u{n}'" for n in range(len(wrong))),
            "the mailbox null",
            "the mailbox relative",
        ]
        for problem in problems:
            assert problem.endswith("; its mail waits")


async def test_addresses_with_several_owners(database_url: str) -> None:
    """Repeated rows are none, nor are addresses that the database takes for the same."""
    rows: Rows = {
        "rcpthosts": [("x.org",)],
        "mailbox": [(name, OWN, OWN, "/h", "x", None) for name in ("ann", "bob", "zoe")],
        "virtual": [
            *(("ann", "same", "x.org"), ("Ann", "SAME", "X.org"), ("ann", "same", "x.org")),
            *(("zoe", "info", "x.org"), ("bob", "Info", "x.org"), ("ann", "", "x.org")),
            *(("bob", "", "x.org"), ("ann", "rené", "x.org"), ("bob", "rene", "x.org")),
        ],
    }
    async with engine_with(database_url, rows) as engine:
        found = await examined(engine)
    assert found.problems == []
    assert [line.split(":")[0].lower() for line in found.advice] == [
        "virtual gives @x.org to ann, bob",
        "virtual gives info@x.org to bob, zoe",
    ]


async def test_a_list_of_addresses_with_several_owners_is_short(sqlite_url: str) -> None:
    many = [(owner, f"x{n}", "x.org") for n in range(MAX_NAMED + 5) for owner in ("ann", "bob")]
    accounts = [(name, OWN, OWN, "/h", "x", None) for name in ("ann", "bob")]
    rows: Rows = {"rcpthosts": [("x.org",)], "mailbox": accounts, "virtual": many}
    async with engine_with(sqlite_url, rows) as engine:
        assert len((await examined(engine)).advice) == MAX_NAMED


async def test_null_where_nothing_is_to_be_empty(database_url: str) -> None:
    """No look-up finds it; the statement that mends it stands there."""
    async with engine_with(database_url) as engine:
        await allow_null(engine)
        assert (await examined(engine)).problems == []
        rows: Rows = {
            "mailbox": [("ann", OWN, OWN, "/h", "x", None)],
            "virtual": [("ann", None, "x.org"), ("ann", "info", "x.org")],
            "alias": [("ann", None, "a", "far.org"), ("ann", "list", "b", None)],
        }
        await fill(engine, rows)
        problems = (await examined(engine)).problems
        assert [problem.split(",")[0] for problem in problems] == [
            "virtual has rows with NULL in virtual_username",
            "alias has rows with NULL in alias",
        ]
        mends = [problem.partition(": ")[2] for problem in problems]
        await engine.transaction([Statement(mend) for mend in mends])
        assert (await examined(engine)).problems == []
        assert await SqlDirectory(engine).owners("", "x.org") == ("ann",)
        assert await SqlDirectory(engine).instructions("ann", "") == ("&a@far.org",)


async def test_addresses_without_an_owner(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        await allow_null(engine)
        addresses = [(None, "a", "x.org"), ("", "b", "x.org")]
        await fill(engine, {"rcpthosts": [("x.org",)], "virtual": addresses})
        found = await examined(engine)
    assert found.advice == []
    assert sorted(found.problems) == [
        f"virtual has a row for {name}@x.org without a username; its mail waits" for name in "ab"
    ]


async def test_domains_that_are_taken_from_nobody(database_url: str) -> None:
    """But for those of the host itself, and where a setting has them, in whichever form."""
    away = [f"away{number:02}.example" for number in range(MAX_NAMED + 2)]
    fine = ("Example.COM", "café.example", "mx.example.net", "here.example", "a.wide.example", "")
    rows: Rows = {
        **SITE,
        "virtual": [("iain", "info", domain) for domain in (*away, *fine) for _ in range(2)],
        "rcpthosts": [("example.com",), ("xn--caf-dma.example",)],
    }
    routing = Routing(
        locals=("here.example",), rcpthosts=(".wide.example",), envnoathost="mx.example.net"
    )
    async with engine_with(database_url, rows) as engine:
        advice = (await examined(engine, Settings("/", routing=routing))).advice
    told = [line for line in advice if "which rcpthosts has not" in line]
    assert told == [
        f"virtual has addresses in {domain}, which rcpthosts has not: strangers are refused, and "
        "what users here send to it is delivered; docs/tables.md says how to give up a domain"
        for domain in away[:MAX_NAMED]
    ]


@pytest.mark.mariadb
async def test_a_domain_that_rcpthosts_cannot_hold_is_taken_from_nobody(mariadb_url: str) -> None:
    rows: Rows = {**SITE, "virtual": [("iain", "info", "мир.example"), *SITE["virtual"]]}
    async with engine_with(mariadb_url, rows) as engine:
        await engine.transaction(
            [Statement("ALTER TABLE rcpthosts CONVERT TO CHARACTER SET latin1")]
        )
        advice = (await examined(engine)).advice
    (line,) = (each for each in advice if "which rcpthosts has not" in each)
    assert line.startswith("virtual has addresses in мир.example, ")


async def test_domains_that_are_found_for_no_mail(database_url: str) -> None:
    """Capitals beyond ASCII, and a mixture of both forms; not what has but one form."""
    mixed = "xn--mller-kva.é.test"
    rows: Rows = {
        "rcpthosts": [("CAFÉ.example",), ("xn--mller-kva.example",), ("💩.la",), ("é.test",)],
        "virtual": [("iain", "a", mixed), ("iain", "b", mixed), ("iain", "c", "b_d.é.test")],
    }
    async with engine_with(database_url, rows) as engine:
        problems = (await examined(engine)).problems
    why = "which is found for no mail to"
    assert problems == [
        f"rcpthosts.host has 'cafÉ.example', {why} café.example: write it so",
        f"virtual.virtual_host has {mixed!r}, {why} müller.é.test: write it so",
    ]


async def test_instructions_that_cannot_be_obeyed(database_url: str) -> None:
    wrong = [
        ("alias", "words", "no address here", ""),
        ("alias", "blank", "", ""),
        ("ann", "", "|", ""),
        ("ann", "far", "a b", "x.org"),
    ]
    right = [
        ("alias", "list", "ann@x.org", ""),
        ("alias", "list", "", ""),
        ("alias", "away", "# nothing", ""),
        ("bob", "", "./Maildir/", ""),
        ("bob", "o'brien", "o'brien", "x.org"),
        ("bob", "run", "|preline procmail", ""),
    ]
    async with engine_with(database_url, {"alias": [*right, *wrong]}) as engine:
        problems = (await examined(engine)).problems
    assert sorted(problem.split(":")[0] for problem in problems) == sorted(
        f"alias has for {user!r}, extension {extension!r}" for user, extension, *_ in wrong
    )


async def test_a_list_of_instructions_is_short(sqlite_url: str) -> None:
    rows = [("alias", f"word{number}", "no address", "") for number in range(MAX_NAMED + 5)]
    async with engine_with(sqlite_url, {"alias": rows}) as engine:
        assert len((await examined(engine)).problems) == MAX_NAMED


async def test_targets_that_nobody_has(database_url: str) -> None:
    """Those of domains here, with the alias that leads there; all else is for others to say."""
    rows: Rows = {
        **SITE,
        "alias": [
            ("iain", "", "info", "example.com"),
            ("iain", "", "nobody", "Example.com"),
            ("alias", "sales", "who", "elsewhere.example"),
            ("alias", "sales", "&gone@café.example", ""),
        ],
    }
    async with engine_with(database_url, rows) as engine:
        found = await examined(engine)
    assert found.problems == []
    told = [line for line in found.advice if line.startswith("alias has")]
    bounces = "which nobody has: what is sent on to it bounces"
    assert told == [
        f"alias has for 'iain', extension '': nobody@example.com, {bounces}",
        f"alias has for 'alias', extension 'sales': gone@café.example, {bounces}",
    ]


async def test_instructions_that_nobody_can_carry_out(database_url: str) -> None:
    """Programs and paths of the alias user are an account's of that name."""
    rows: Rows = {
        "alias": [
            ("alias", "box@x.org", "./Maildir/", ""),
            ("ALIAS", "run", "|cat", ""),
            ("alias", "run", "a@far.org", ""),
            ("alias", "away", "b", "far.org"),
        ]
    }
    async with engine_with(database_url, rows) as engine:
        lacking = (await examined(engine)).problems
        await fill(engine, {"mailbox": [("alias", OWN, OWN, "/h", "x", None)]})
        assert (await examined(engine)).problems == []
    assert sorted(lacking) == [
        f"alias has for 'alias', extension {extension!r}: {line!r}: mailbox has no user alias to "
        "deliver it as; its mail waits"
        for extension, line in (("box@x.org", "./Maildir/"), ("run", "|cat"))
    ]


async def test_aliases_whose_mail_an_account_has(database_url: str) -> None:
    own = [("ann@x.org", OWN, OWN, "/h", "x", None), ("bob-x@x.org", OWN, OWN, "/h", "x", None)]
    names = {
        "ann@x.org": "ann@x.org",
        "ANN-a-b@x.org": "ann@x.org",
        "bob-x-y@x.org": "bob-x@x.org",
        "iain-list": "iain",
    }
    others = ["bob@x.org", "bob-y@x.org", "ann-a@y.org", "annex@x.org"]
    rows: Rows = {
        "mailbox": [*SITE["mailbox"], *own],
        "alias": [("alias", name, "x", "far.org") for name in (*names, *others)],
    }
    async with engine_with(database_url, rows) as engine:
        found = await examined(engine)
    assert found.problems == []
    assert sorted(found.advice) == sorted(
        f"alias has for 'alias', extension {name.lower()!r}: it counts for nothing, since the "
        f"account {account} has the mail of {name.lower()}"
        for name, account in names.items()
    )


async def test_a_few_targets_that_nobody_has(database_url: str) -> None:
    many = [("alias", f"a{number}", f"gone{number}", "example.com") for number in range(250)]
    async with engine_with(database_url, {**SITE, "alias": many}) as engine:
        advice = (await examined(engine)).advice
    assert sum(line.startswith("alias has") for line in advice) == MAX_NAMED


async def test_rows_that_are_as_they_should_be_hide_no_other(database_url: str) -> None:
    """Domains of the host itself have no addresses, and a user with an extension no account."""
    fine = [f"d{number}.example" for number in range(MAX_NAMED + 2)]
    rows: Rows = {
        **SITE,
        "rcpthosts": [(domain,) for domain in (*fine, "zz.example")],
        "virtual": [
            *(("iain-list", f"b{number}", "d0.example") for number in range(MAX_NAMED + 2)),
            ("nobody", "z", "d0.example"),
        ],
        "alias": [("iain", "list", "|cat", "")],
    }
    settings = Settings("/", routing=Routing(locals=tuple(fine)))
    async with engine_with(database_url, rows) as engine:
        advice = (await examined(engine, settings)).advice
    address, domain = advice
    assert address.startswith("virtual gives z@d0.example to 'nobody'")
    assert domain.startswith("the domain zz.example has no addresses")

"""Expansion of aliases: bulk, bounded, free of loops; and the explanation of an address."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import Address
from restante.cli.explain import render, to_json
from restante.config.tree import Routing
from restante.routing.decision import Mailbox, Misconfigured, Remote, Unknown
from restante.routing.expand import Act, Leaf, Looping, TooManyTargets, expand
from restante.routing.explanation import explain
from restante.routing.router import Router
from tests.support.memory_directory import MemoryDirectory, Tables, account

DOMAIN = "e.com"


def _tables(aliases: dict[str, list[str]], mailboxes: list[str]) -> Tables:
    """Mailboxes and aliases as the commands write them."""
    tables = Tables(rcpthosts=[DOMAIN])
    for name in mailboxes:
        tables.mailbox.append(account(f"{name}@{DOMAIN}"))
        tables.virtual.append((f"{name}@{DOMAIN}", name, DOMAIN))
    for name, targets in aliases.items():
        tables.virtual.append((f"{name}@{DOMAIN}", name, DOMAIN))
        for target in targets:
            local, _, host = target.partition("@")
            tables.alias.append(("alias", f"{name}@{DOMAIN}", local, host or DOMAIN))
    return tables


async def _expand(
    directory: MemoryDirectory,
    *names: str,
    settings: Routing | None = None,
    most: float = math.inf,
) -> tuple[Leaf, ...]:
    router = Router(settings or Routing(), "mail.host")
    addresses = tuple(Address(name, DOMAIN) for name in names)
    decisions = await router.route_many(addresses, directory)
    return await expand(router, directory, tuple(zip(addresses, decisions, strict=True)), most)


def _places(leaves: tuple[Leaf, ...]) -> list[tuple[str, type]]:
    return sorted(((str(leaf.address), type(leaf.decision)) for leaf in leaves), key=str)


async def test_a_thousand_mailboxes_cost_one_more_statement() -> None:
    names = [f"m{number}" for number in range(1000)]
    directory = MemoryDirectory(_tables({"all": names}, names))
    leaves = await _expand(directory, "all")
    assert len(leaves) == 1000
    assert all(isinstance(leaf.decision, Mailbox) for leaf in leaves)
    assert {leaf.via for leaf in leaves} == {("all@e.com",)}
    assert len(directory.asked) == 2


async def test_nested_aliases_and_one_copy_for_each_mailbox() -> None:
    aliases = {"a": ["b", "c", "x@far.org"], "b": ["d", "m"], "c": ["d", "n"], "d": ["m"]}
    leaves = await _expand(MemoryDirectory(_tables(aliases, ["m", "n"])), "a", "m", "b")
    expected = [("m@e.com", Mailbox), ("n@e.com", Mailbox), ("x@far.org", Remote)]
    assert _places(leaves) == expected
    assert next(leaf.via for leaf in leaves if leaf.address.local == "n") == ("c@e.com", "a@e.com")


async def test_an_alias_in_itself_fails_and_the_rest_goes_on() -> None:
    aliases = {"a": ["b", "c", "m"], "b": ["c"], "c": ["b"], "self": ["self"]}
    directory = MemoryDirectory(_tables(aliases, ["m"]))
    leaves = await _expand(directory, "a")
    kinds = [type(leaf.decision) for leaf in leaves]
    assert kinds == [Mailbox, Looping]
    assert _places(await _expand(directory, "self")) == [("self@e.com", Looping)]


def _of_one_name(contact: str) -> Tables:
    """Two aliases whose copies all say that they were delivered to info@e.com."""
    tables = _tables({"all": ["contact", "info"], "info": ["bob"]}, ["ann", "bob"])
    tables.virtual.append(("info", "contact", DOMAIN))
    tables.alias.append(("alias", "info", contact, DOMAIN))
    return tables


async def test_two_aliases_of_one_name_lose_nobodys_copy() -> None:
    leaves = await _expand(MemoryDirectory(_of_one_name("ann")), "all")
    assert _places(leaves) == [("ann@e.com", Mailbox), ("bob@e.com", Mailbox)]


async def test_an_alias_that_leads_to_another_of_its_name_is_a_loop() -> None:
    """As in the queue, and by qmail's Delivered-To."""
    directory = MemoryDirectory(_of_one_name("info"))
    assert _places(await _expand(directory, "contact")) == [("info@e.com", Looping)]
    expected = [("bob@e.com", Mailbox), ("info@e.com", Looping)]
    assert _places(await _expand(directory, "info", "contact")) == expected


async def test_an_alias_that_leads_to_the_mailbox_of_its_name_is_none() -> None:
    """The queue delivers it: the mailbox was not come by, whatever its name."""
    tables = _tables({}, ["info"])
    tables.virtual.append(("info", "contact", DOMAIN))
    tables.alias.append(("alias", "info", "info", DOMAIN))
    (leaf,) = await _expand(MemoryDirectory(tables), "contact")
    assert isinstance(leaf.decision, Mailbox)
    assert (leaf.decision.delivered_to, leaf.via) == ("info@e.com", ("info@e.com",))


async def test_programs_of_two_aliases_of_one_name_are_two() -> None:
    tables = _of_one_name("ann")
    tables.mailbox.append(account("alias"))
    programs = [("alias", user, "|prog", "") for user in ("info", "info@e.com")]
    leaves = await _expand(MemoryDirectory(replace(tables, alias=programs)), "contact", "info")
    assert _places(leaves) == [("contact@e.com", Act), ("info@e.com", Act)]


async def test_bounds_of_depth_and_of_targets() -> None:
    chain = {f"a{number}": [f"a{number + 1}"] for number in range(5)}
    directory = MemoryDirectory(_tables(chain, ["a5"]))
    deep = await _expand(directory, "a0", settings=Routing(max_alias_depth=5))
    assert _places(deep) == [("a5@e.com", Mailbox)]
    shallow = await _expand(directory, "a0", settings=Routing(max_alias_depth=4))
    assert _places(shallow) == [("a4@e.com", Looping)]
    wide = MemoryDirectory(_tables({"all": ["a", "b", "c"]}, ["a", "b", "c"]))
    assert len(await _expand(wide, "all", settings=Routing(max_alias_targets=3))) == 3
    leaves = await _expand(wide, "all", "a", settings=Routing(max_alias_targets=2))
    assert _places(leaves) == [("a@e.com", Mailbox), ("all@e.com", Misconfigured)]


async def test_a_list_in_a_list_is_counted_by_itself() -> None:
    """As the queue counts, which expands one at a time."""
    aliases = {"all": ["one", "two"], "one": ["a", "b"], "two": ["c", "d", "a"]}
    directory = MemoryDirectory(_tables(aliases, ["a", "b", "c", "d"]))
    leaves = await _expand(directory, "all", settings=Routing(max_alias_targets=3))
    assert _places(leaves) == [(f"{name}@e.com", Mailbox) for name in "abcd"]
    leaves = await _expand(directory, "all", settings=Routing(max_alias_targets=2))
    assert _places(leaves) == [
        ("a@e.com", Mailbox),
        ("b@e.com", Mailbox),
        ("two@e.com", Misconfigured),
    ]


async def test_what_a_list_with_a_program_sends_on_comes_after_it() -> None:
    tables = _tables({"plain": ["far@x.org"]}, ["m"])
    rows = ["|prog", "&plain@e.com", "&b@x.org"]
    tables.alias += [("m@e.com", "", row, "") for row in rows]
    leaves = await _expand(MemoryDirectory(tables), "m")
    assert {str(leaf.address): leaf.after for leaf in leaves} == {
        "m@e.com": (),
        "far@x.org": ("m@e.com",),
        "b@x.org": ("m@e.com",),
    }


async def test_extensions_of_one_alias_are_followed_once() -> None:
    directory = MemoryDirectory(_tables({"all": ["a", "b", "c"]}, ["a", "b", "c"]))
    names = [*(f"all+{number}" for number in range(20)), "ALL"]
    leaves = await _expand(directory, *names, "a", most=3)
    assert _places(leaves) == [(f"{name}@e.com", Mailbox) for name in "abc"]
    assert {leaf.original.local for leaf in leaves} == {"all+0"}


@pytest.mark.parametrize("names", [["one", "two"], ["nested"]])
async def test_what_all_recipients_lead_to_is_bounded(names: list[str]) -> None:
    aliases = {"one": ["a", "b"], "two": ["a", "b"], "nested": ["one"]}
    directory = MemoryDirectory(_tables(aliases, ["a", "b"]))
    needed = 4 if names == ["one", "two"] else 3
    assert len(await _expand(directory, *names, most=needed)) == 2
    with pytest.raises(TooManyTargets):
        await _expand(directory, *names, most=needed - 1)


async def test_a_database_that_goes_away_leaves_unknown() -> None:
    directory = MemoryDirectory(_tables({"all": ["a", "b"]}, ["a", "b"]))
    directory.fail_at = 1
    leaves = await _expand(directory, "all")
    assert _places(leaves) == [("a@e.com", Unknown), ("b@e.com", Unknown)]


async def test_instructions_other_than_forwards() -> None:
    tables = _tables({}, ["m"])
    rows = ["./Old/", "./mbox", "/srv/x/", "|prog"]
    tables.alias = [("m@e.com", "", row, "") for row in rows]
    leaves = await _expand(MemoryDirectory(tables), "m")
    paths = [leaf.decision.maildir for leaf in leaves if isinstance(leaf.decision, Mailbox)]
    assert paths == ["/home/m@e.com/Old", "/srv/x"]
    kinds = [type(leaf.decision) for leaf in leaves]
    assert kinds == [Mailbox, Act, Mailbox, Act]
    assert [leaf.instruction for leaf in leaves] == rows


NAMES = st.sampled_from("abcde")


@given(st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=4)), NAMES)
async def test_no_mail_is_lost_in_any_graph(aliases: dict[str, list[str]], start: str) -> None:
    """Invariant: each mailbox reachable from the start is one leaf, and some leaf there is."""
    mailboxes = [name for name in "abcde" if name not in aliases]
    leaves = await _expand(MemoryDirectory(_tables(aliases, mailboxes)), start)
    reached, pending = set[str](), [start]
    while pending:
        if (name := pending.pop()) not in reached:
            reached.add(name)
            pending += aliases.get(name, [])
    found = [leaf.address.local for leaf in leaves if isinstance(leaf.decision, Mailbox)]
    assert sorted(found) == sorted(reached & set(mailboxes))
    assert leaves


async def test_explanation_as_text_and_json() -> None:
    directory = MemoryDirectory(_tables({"all": ["m", "x@far.org"]}, ["m"]))
    router = Router(Routing(), "mail.host")
    explanation = await explain(router, directory, Address("all", DOMAIN), clock=lambda: 0.0)
    text = render(explanation)
    for part in ("asked  virtual    all@e.com", "1 row ", "250 2.1.5", "remote: x@far.org"):
        assert part in text
    assert json.loads(json.dumps(to_json(explanation)))["decision"]["kind"] == "instructions"
    directory.away = True
    explanation = await explain(router, directory, Address("all", DOMAIN), clock=lambda: 0.0)
    assert explanation.accepted is None
    assert "451 4.3.0" in render(explanation)
    assert "no answer" in render(explanation)


async def test_what_a_list_sends_on_names_its_owner() -> None:
    def forwards(name: str, *targets: str) -> list[tuple[str, str, str, str]]:
        return [("alias", f"{name}@e.com", f"&{target}", "") for target in targets]

    names = ("list", "list-owner", "inner", "inner-owner", "inner-owner-default", "plain", "m")
    tables = Tables(
        mailbox=[account("m@e.com")],
        virtual=[(f"{name}@e.com", name, "e.com") for name in names],
        alias=[
            *forwards("list", "m@e.com", "a@x.org", "plain@e.com"),
            *forwards("list-owner", "o@x.org"),
            *forwards("plain", "b@x.org", "inner@e.com"),
            *forwards("inner", "c@x.org", "m@e.com"),
            *forwards("inner-owner", "o@x.org"),
            *forwards("inner-owner-default", "o@x.org"),
        ],
    )
    found = await explain(Router(Routing(), "h"), MemoryDirectory(tables), Address("list", "e.com"))
    lists, inner = "list-owner@e.com", "inner-owner-@e.com-@[]"
    assert {(str(leaf.address), leaf.new_sender) for leaf in found.leaves} == {
        ("m@e.com", lists),
        ("a@x.org", lists),
        ("b@x.org", lists),
        ("c@x.org", inner),
        ("m@e.com", inner),
    }
    assert f"a@x.org is for elsewhere (by way of list@e.com) (from {lists})" in render(found)

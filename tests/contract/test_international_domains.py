"""A domain has rows in U-labels or in A-labels, and is asked for in either (RFC 5890)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from restante.address import Address
from restante.config.tree import Routing
from restante.directory import Account
from restante.directory.admin import Administration, AliasEntry
from restante.directory.engine import Engine, Statement, Value
from restante.directory.lookups import SqlDirectory
from restante.directory.question import MAX_ORDINARY
from restante.directory.schema import TABLES
from restante.errors import CannotKnow, OperatorError
from restante.routing.decision import Decision, Instructions, Mailbox, NoSuchUser, Remote
from restante.routing.explanation import explain
from restante.routing.router import Router
from tests.contract.test_directory_prefetch import Counting
from tests.support.directory import Rows, engine_with, fill

FORMS = [("müller.example", "xn--mller-kva.example"), ("бюро.test", "xn--90a0af9c.test")]
FORMS += [(other, written) for written, other in FORMS]
"""As rows have them, and as mail comes."""
LATIN_1 = "CONVERT TO CHARACTER SET latin1"


def site(domain: str) -> Rows:
    """Ann and a list in a domain."""
    return {
        "rcpthosts": [(domain,)],
        "mailbox": [(f"ann@{domain}", 1, 1, "/h", "secret", "Password")],
        "virtual": [(f"{who}@{domain}", who, domain) for who in ("ann", "list")],
        "alias": [("alias", f"list@{domain}", "ann", domain)],
    }


def router() -> Router:
    return Router(Routing(), "mail.host")


@pytest.mark.parametrize(("written", "asked"), FORMS)
@pytest.mark.parametrize(
    ("local", "kind"), [("ann", Mailbox), ("list", Instructions), ("ann+x", Mailbox)]
)
async def test_an_address_costs_no_statement_more_in_the_other_form(
    database_url: str, written: str, asked: str, local: str, kind: type[Decision]
) -> None:
    async with engine_with(database_url, site(written)) as engine:
        await fill(engine, site("plain.example"))
        counting = Counting(engine)
        directory = SqlDirectory(counting)
        costs = []
        for domain in ("plain.example", written, asked):
            counting.asked = 0
            address = Address(local, domain)
            lookups = await directory.prefetch(router().wanted(address))
            assert isinstance(await router().route(address, lookups), kind)
            assert await router().accepts(domain, lookups)
            costs.append(counting.asked)
        assert len(set(costs)) == 1


@pytest.mark.parametrize(("written", "asked"), FORMS)
async def test_nobody_in_either_form(database_url: str, written: str, asked: str) -> None:
    async with engine_with(database_url, site(written)) as engine:
        directory = SqlDirectory(engine)
        addresses = [Address("zoe", asked), Address("zoe", written), Address("zoe", "é.test")]
        found = await router().route_many(addresses, directory)
        assert [type(each) for each in found] == [NoSuchUser, NoSuchUser, Remote]
        for each in addresses:
            (alone,) = await router().route_many([each], directory)
            assert alone in found


@pytest.mark.parametrize(("written", "asked"), FORMS)
async def test_many_addresses(database_url: str, written: str, asked: str) -> None:
    many = [f"u{number}" for number in range(MAX_ORDINARY)]
    async with engine_with(database_url, site(written)) as engine:
        await fill(engine, {"virtual": [(f"ann@{written}", local, written) for local in many]})
        addresses = [Address(local, asked) for local in many]
        found = await router().route_many(addresses, SqlDirectory(engine))
    assert {type(each) for each in found} == {Mailbox}


@pytest.mark.parametrize(("written", "asked"), FORMS)
async def test_a_login(database_url: str, written: str, asked: str) -> None:
    async with engine_with(database_url, site(written)) as engine:
        await fill(engine, {"virtual": [(f"ann@{written}", "sales", written)]})
        directory = SqlDirectory(engine)
        for local in ("ann", "ANN", "sales"):
            for domain in (asked, written):
                found = await directory.credentials(f"{local}@{domain}")
                assert found is not None
                assert found.account.name == f"ann@{written}"
        assert await directory.credentials(f"zoe@{asked}") is None
        assert await directory.owns_in(f"ann@{written}", asked)
        assert not await directory.owns_in(f"zoe@{written}", asked)


async def test_the_form_that_was_asked_for_goes_first(database_url: str) -> None:
    written, other = FORMS[0]
    async with engine_with(database_url, site(written)) as engine:
        await fill(engine, site(other))
        directory = SqlDirectory(engine)
        for domain in (written, other):
            found = await directory.credentials(f"ann@{domain}")
            assert found is not None
            assert found.account.name == f"ann@{domain}"
            (decision,) = await router().route_many([Address("ann", domain)], directory)
            assert isinstance(decision, Mailbox)
            assert decision.delivered_to == f"ann@{domain}"


async def _narrow(engine: Engine) -> None:
    for table in TABLES:
        await engine.transaction([Statement(f"ALTER TABLE `{table}` {LATIN_1}")])


@pytest.mark.mariadb
@pytest.mark.parametrize(("u_labels", "a_labels"), FORMS[:2])
async def test_columns_that_can_hold_one_form_alone(
    mariadb_url: str, u_labels: str, a_labels: str
) -> None:
    """The database rejects the other: then no row has it, and that is for nobody to wait for."""
    async with engine_with(mariadb_url) as engine:
        await _narrow(engine)
        await fill(engine, site(a_labels))
        directory = SqlDirectory(engine)
        for domain in (u_labels, a_labels):
            addresses = [Address(who, domain) for who in ("ann", "list", "zoe")]
            expected = [Mailbox, Instructions, NoSuchUser]
            together = await router().route_many(addresses, directory)
            alone = [(await router().route_many([each], directory))[0] for each in addresses]
            explained = [(await explain(router(), directory, each)) for each in addresses]
            assert [type(each) for each in together] == expected
            assert [type(each) for each in alone] == expected
            assert [type(each.decision) for each in explained] == expected
            assert [each.accepted for each in explained] == [True] * 3
            found = await directory.credentials(f"ann@{domain}")
            assert found is not None
            assert await directory.credentials(f"zoe@{domain}") is None
            assert await directory.owns_in(f"ann@{a_labels}", domain)
        for far in ("ж.test", "xn--f1a.test"):
            (decision,) = await router().route_many([Address("ann", far)], directory)
            assert isinstance(decision, Remote)


@pytest.mark.mariadb
@pytest.mark.parametrize("typed", FORMS[1])
async def test_administration_where_columns_can_hold_one_form_alone(
    mariadb_url: str, typed: str
) -> None:
    _, domain = FORMS[1]
    ann, zoe, far = Address("ann", typed), Address("zoe", typed), Address("kate", "xn--f1a.test")
    hash_ = ("new", "Password")
    async with engine_with(mariadb_url) as engine:
        await _narrow(engine)
        await fill(engine, site(domain))
        await fill(engine, {"alias": [(f"ann@{domain}", "x", "zoe", domain)]})
        await fill(engine, {"virtual": [(f"ann-x@{domain}", "ann-x", domain)]})
        admin = Administration(engine)
        assert [len(some.accounts) async for some in admin.mailboxes(typed)] == [1]
        await admin.set_password(ann, *hash_)
        added = await admin.hosted(zoe)
        await admin.add_mailbox(added, Account(str(added), 1, 1, "/z"), *hash_)
        await admin.add_alias(("info", typed), far)
        with pytest.raises(OperatorError, match="still has 5 rows"):
            await admin.remove_domain(typed)
        entries = [entry async for some in admin.aliases(typed) for entry in some]
        assert len(entries) == 3
        for entry in entries:
            address = entry.address.replace(domain, typed)
            await admin.remove_alias(AliasEntry(address, entry.target))
        for each in (ann, zoe):
            assert await admin.mailbox(each) is not None
            assert await admin.remove_mailbox(each) == []
            assert await admin.mailbox(each) is None
        with pytest.raises(OperatorError, match="no mailbox"):
            await admin.remove_mailbox(ann)
        with pytest.raises(OperatorError, match="no alias"):
            await admin.remove_alias(AliasEntry(f"info@{typed}", str(far)))
        await admin.remove_domain(typed)
        assert await admin.domains() == []


class Refusing(Counting):
    """An engine that rejects what it is asked about one table, always or ``times`` times."""

    def __init__(self, engine: Engine, table: str, times: int) -> None:
        super().__init__(engine)
        self._table = table
        self._times = times

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Value, ...]]:
        if self._times > 0 and f"`{self._table}`" in sql:
            self._times -= 1
            sql = sql.replace(f"`{self._table}`", "`gone`")
        return await super().fetch(sql, params)


@pytest.mark.parametrize("domain", FORMS[0])
@pytest.mark.parametrize("table", ["virtual", "rcpthosts", "mailbox"])
@pytest.mark.parametrize("times", [1, 100])
async def test_a_statement_that_is_rejected_for_every_name_says_nothing_of_one(
    database_url: str, times: int, table: str, domain: str
) -> None:
    """A table that is away for a moment is not a name that no column can hold."""
    async with engine_with(database_url, site(FORMS[0][0])) as engine:
        directory = SqlDirectory(Refusing(engine, table, times))
        if table == "virtual":
            with pytest.raises(CannotKnow):
                await directory.owners("ann", domain)
            directory = SqlDirectory(Refusing(engine, table, times))
            with pytest.raises(CannotKnow):
                await directory.knows_domain(domain)
        elif table == "rcpthosts":
            with pytest.raises(CannotKnow):
                await directory.accepts_domain(domain)
        else:
            with pytest.raises(CannotKnow):
                await directory.credentials(f"ann@{domain}")

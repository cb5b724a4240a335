"""What administration writes, lists, removes and refuses, on every engine."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import pytest

from restante.address import Address
from restante.directory import Account
from restante.directory.admin import Administration, AliasEntry
from restante.directory.engine import Engine, Statement, Value
from restante.directory.lookups import SqlDirectory
from restante.directory.schema import TABLES
from restante.errors import CannotKnow, OperatorError
from tests.contract.test_directory_prefetch import Counting
from tests.support.directory import Rows, engine_with, fill

IAIN = Address("iain", "example.com")
ANNA = Address("anna", "example.com")
U_LABELS, A_LABELS = "müller.example", "xn--mller-kva.example"


def _account(address: Address) -> Account:
    return Account(str(address), 1000, 1000, f"/mail/{address.domain}/{address.local}")


async def _add(admin: Administration, address: Address) -> None:
    await admin.add_mailbox(address, _account(address), "{HASH}x", "Password")


async def _accounts(admin: Administration, domain: str | None = None) -> tuple[Account, ...]:
    """Those of a list in which nothing is wrong."""
    found = [some async for some in admin.mailboxes(domain)]
    assert not any(some.problems for some in found)
    return tuple(account for some in found for account in some.accounts)


async def _aliases(admin: Administration, domain: str | None = None) -> list[AliasEntry]:
    return [entry async for some in admin.aliases(domain) for entry in some]


async def _site(engine: Engine) -> Administration:
    admin = Administration(engine)
    await admin.add_domain("Example.com")
    await _add(admin, IAIN)
    await _add(admin, ANNA)
    return admin


async def _refuses(action: Awaitable[object], why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        await action


async def test_domains(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = Administration(engine)
        await admin.add_domain("Example.COM")
        await admin.add_domain("b.org")
        assert await admin.domains() == ["b.org", "example.com"]
        await _refuses(admin.add_domain("EXAMPLE.com"), "there already")
        for bad in ("", "two words", "a..b", "-a.org", "a@b", "a" * 300):
            await _refuses(admin.add_domain(bad), "is no domain")
        for bad in (
            "a.org\u3002",
            "müller.example\uff0e",
            "a.org\uff61",
            "\u3002",
            "a\u3002\u3002b",
        ):
            await _refuses(admin.add_domain(bad), "is no domain")
        await admin.remove_domain("EXAMPLE.com")
        assert await admin.domains() == ["b.org"]
        await _refuses(admin.remove_domain("example.com"), "not hosted here")


async def test_a_domain_with_addresses_stays(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        await _refuses(admin.remove_domain("example.com"), "2 rows")
        await admin.remove_mailbox(ANNA)
        await _refuses(admin.remove_domain("example.com"), "1 row ")
        await admin.remove_mailbox(IAIN)
        await admin.remove_domain("example.com")
        assert await admin.domains() == []


async def test_a_mailbox_is_a_row_of_mailbox_and_one_of_virtual(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        directory = SqlDirectory(engine)
        assert await directory.account("iain@example.com") == _account(IAIN)
        assert await directory.owners("iain", "example.com") == ("iain@example.com",)
        assert await admin.mailbox(Address("IAIN", "example.com")) == _account(IAIN)
        assert await admin.addresses_of("IAIN@Example.com") == ["iain@example.com"]
        assert await _accounts(admin) == (_account(ANNA), _account(IAIN))
        assert await _accounts(admin, "example.COM") == (_account(ANNA), _account(IAIN))
        assert await _accounts(admin, "other.org") == ()
        found = await directory.credentials("iain@example.com")
        assert found is not None
        assert (found.password, found.password_type) == ("{HASH}x", "Password")


async def test_mailboxes_that_are_refused_leave_nothing(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        await admin.add_alias(("sales", "example.com"), IAIN)
        before = (await _accounts(admin), await _aliases(admin), await admin.domains())
        await _refuses(_add(admin, Address("IAIN", "example.com")), "exists")
        await _refuses(_add(admin, Address("x", "other.org")), "restante domain add other.org")
        await _refuses(
            _add(admin, Address("sales", "example.com")), "sales@example.com is an alias"
        )
        await _refuses(_add(admin, Address("x", "")), "has no domain")
        await _refuses(_add(admin, Address("", "example.com")), "is no address")
        await _refuses(_add(admin, Address("a\nb", "example.com")), "is no address")
        new = Address("new", "example.com")
        for account, why in (
            (Account("other", 1, 1, "/h"), "must bear that name"),
            (Account("new@example.com", 0, 1, "/h"), "uid 0"),
            (Account("new@example.com", 1, 2**32, "/h"), "gid 4294967296"),
            (Account("new@example.com", 1, 1, "h"), "absolute"),
            (Account("new@example.com", 1, 1, "/a/../b"), "absolute"),
            (Account("new@example.com", 1, 1, "/" + "h" * 2000), "longer"),
        ):
            await _refuses(admin.add_mailbox(new, account, "x", "Password"), why)
        await _refuses(admin.add_mailbox(new, _account(new), "", "Password"), "empty")
        assert before == (await _accounts(admin), await _aliases(admin), await admin.domains())
        assert await SqlDirectory(engine).owners("new", "example.com") == ()


async def test_a_password_is_changed_for_one_mailbox_only(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        for _ in range(2):
            await admin.set_password(Address("Iain", "example.com"), "new", "Crypt-Password")
        directory = SqlDirectory(engine)
        iain = await directory.credentials("iain@example.com")
        anna = await directory.credentials("anna@example.com")
        assert iain is not None
        assert anna is not None
        assert (iain.password, iain.password_type) == ("new", "Crypt-Password")
        assert anna.password == "{HASH}x"
        nobody = admin.set_password(Address("nobody", "example.com"), "new", "Password")
        await _refuses(nobody, "no mailbox nobody@example.com")


async def test_a_removed_mailbox_reports_who_points_to_it(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        await admin.add_alias(("sales", "example.com"), IAIN)
        await fill(engine, {"alias": [(str(IAIN), "", IAIN.local, IAIN.domain)]})  # goes with it
        removed = await admin.remove_mailbox(Address("IAIN", "example.com"))
        assert removed == [AliasEntry("sales@example.com", "iain@example.com")]
        assert await _accounts(admin) == (_account(ANNA),)
        assert await SqlDirectory(engine).owners("iain", "example.com") == ()
        await _refuses(admin.remove_mailbox(IAIN), "no mailbox iain@example.com")


class _Deaf(Counting):
    """An engine that answers no question about aliases by their targets."""

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Value, ...]]:
        if "`alias_host` = ?" in sql:
            raise CannotKnow("no answer in time")
        return await super().fetch(sql, params)


async def test_a_removal_that_fails_has_removed_nothing(database_url: str) -> None:
    """Its mail stays, and whoever gets the name later must not get that."""
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        with pytest.raises(CannotKnow):
            await Administration(_Deaf(engine)).remove_mailbox(IAIN)
        assert await admin.mailbox(IAIN) is not None
        assert await admin.addresses_of(str(IAIN)) == [str(IAIN)]


async def test_an_alias_is_one_row_for_each_target(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        sales = ("sales", "Example.com")
        await admin.add_alias(sales, IAIN)
        await admin.add_alias(sales, Address("x", "elsewhere.org"))
        directory = SqlDirectory(engine)
        assert await directory.owners("sales", "example.com") == ("sales@example.com",)
        assert await directory.instructions("alias", "sales@example.com") == (
            "&iain@example.com",
            "&x@elsewhere.org",
        )
        assert await _aliases(admin, "example.com") == [
            AliasEntry("sales@example.com", "iain@example.com"),
            AliasEntry("sales@example.com", "x@elsewhere.org"),
        ]
        assert await _aliases(admin, "other.org") == []
        await admin.remove_alias(AliasEntry("SALES@example.com", "IAIN@example.com"))
        assert await directory.owners("sales", "example.com") == ("sales@example.com",)
        await admin.remove_alias(AliasEntry("sales@example.com", "x@elsewhere.org"))
        assert await _aliases(admin) == []
        assert await directory.owners("sales", "example.com") == ()
        gone = AliasEntry("sales@example.com", "iain@example.com")
        await _refuses(admin.remove_alias(gone), "no alias sales@example.com")


async def test_a_catch_all(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        await admin.add_alias(("", "example.com"), IAIN)
        directory = SqlDirectory(engine)
        assert await directory.owners("", "example.com") == ("@example.com",)
        assert await directory.instructions("alias", "@example.com") == ("&iain@example.com",)
        assert await _aliases(admin) == [AliasEntry("@example.com", "iain@example.com")]
        await admin.remove_alias(AliasEntry("@example.com", "iain@example.com"))
        assert await directory.owners("", "example.com") == ()


async def test_aliases_that_are_refused_leave_nothing(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        await fill(engine, {"virtual": [("iain@example.com", "info", "example.com")]})
        await admin.add_alias(("sales", "example.com"), IAIN)
        before = await _aliases(admin)
        sales = ("sales", "example.com")
        await _refuses(admin.add_alias(("SALES", "example.com"), IAIN), "already")
        await _refuses(admin.add_alias(("anna", "example.com"), IAIN), "is a mailbox")
        await _refuses(admin.add_alias(("info", "example.com"), ANNA), "belongs to iain@example")
        await _refuses(admin.add_alias(("x", "other.org"), IAIN), "restante domain add other.org")
        await _refuses(admin.add_alias(sales, Address("SALES", "example.com")), "itself")
        await _refuses(admin.add_alias(sales, Address("iain", "")), "has no domain")
        await _refuses(admin.add_alias(("a\0b", "example.com"), IAIN), "is no address")
        assert await _aliases(admin) == before


async def test_an_alias_whose_mail_an_account_has_is_refused(database_url: str) -> None:
    """With whatever extension; so is the account that would have an alias's mail."""
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        for local in ("iain-x", "IAIN-x-y"):
            refused = admin.add_alias((local, "example.com"), ANNA)
            await _refuses(refused, r"the mailbox iain@example\.com has the mail")
        await admin.add_alias(("Jean_-Pierre-x", "example.com"), ANNA)
        await admin.add_alias(("jeanne-x", "example.com"), ANNA)
        before = await _aliases(admin)
        for local in ("jean_", "JEAN_-pierre"):
            refused = _add(admin, Address(local, "example.com"))
            await _refuses(refused, "alias Jean_-Pierre-x@example.com")
        assert len(await _accounts(admin)) == 2
        assert await _aliases(admin) == before
        await _add(admin, Address("jean", "example.com"))
        await _add(admin, Address("jean%", "example.com"))


async def test_rows_written_by_hand_are_shown(database_url: str) -> None:
    rows: Rows = {
        "alias": [
            ("alias", "info@x.org", "./Maildir/", ""),
            ("iain@x.org", "list", "anna", "x.org"),
            ("iain", "", "|cat", ""),
        ]
    }
    async with engine_with(database_url, rows) as engine:
        admin = Administration(engine)
        shown = [
            AliasEntry("iain", "|cat"),
            AliasEntry("iain-list@x.org", "anna@x.org"),
            AliasEntry("info@x.org", "./Maildir/"),
        ]
        assert await _aliases(admin) == shown
        assert await _aliases(admin, "X.org") == shown[1:]


async def test_a_name_that_is_given_again_inherits_no_instructions(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        others: Rows = {
            "alias": [
                ("anna@example.com", "", "anna", "private.org"),
                ("alias", "iain@example.com", "x", "private.org"),
            ]
        }
        own: Rows = {
            "alias": [
                ("IAIN@example.com", "", "iain", "private.org"),
                ("iain@example.com", "list", "|cat", ""),
            ]
        }
        await fill(engine, others)
        kept = await _aliases(admin)
        await fill(engine, own)
        await admin.remove_mailbox(IAIN)
        await _add(admin, IAIN)
        assert await SqlDirectory(engine).instructions("iain@example.com", "") == ()
        assert await _aliases(admin) == kept


async def test_aliases_are_not_the_instructions_of_an_account_alias(database_url: str) -> None:
    rows: Rows = {"mailbox": [("alias", 1, 1, "/h", "x", None)]}
    async with engine_with(database_url, rows) as engine:
        admin = await _site(engine)
        await admin.add_alias(("sales", "example.com"), IAIN)
        await admin.remove_mailbox(Address("alias", ""))
        assert await _aliases(admin) == [AliasEntry("sales@example.com", "iain@example.com")]


async def test_all_that_is_listed_can_be_removed(database_url: str) -> None:
    """Also what users have, and instructions that are no address."""
    rows: Rows = {
        "alias": [
            ("alias", "info@example.com", "./Maildir/", ""),
            ("alias", "sales-default", "|Cat", ""),
            ("iain@example.com", "list", "anna", "example.com"),
            ("iain", "", "|cat", ""),
        ],
        "virtual": [("info@example.com", "info", "example.com")],
    }
    async with engine_with(database_url, rows) as engine:
        admin = await _site(engine)
        await _refuses(admin.remove_alias(AliasEntry("sales-default", "|cat")), "no alias")
        for entry in await _aliases(admin):
            await admin.remove_alias(entry)
            assert entry not in await _aliases(admin)
        assert await _aliases(admin) == []
        directory = SqlDirectory(engine)
        assert await directory.owners("info", "example.com") == ()
        assert await directory.owners("iain", "example.com") == ("iain@example.com",)


async def test_an_address_goes_with_the_last_target_of_an_extension(database_url: str) -> None:
    rows: Rows = {
        "alias": [
            ("iain@example.com", "list", "a", "far.org"),
            ("Iain@example.com", "list", "b", "far.org"),
        ],
        "virtual": [("iain-list@example.com", "iain-list", "example.com")],
    }
    async with engine_with(database_url, rows) as engine:
        admin = await _site(engine)
        directory = SqlDirectory(engine)
        await admin.remove_alias(AliasEntry("iain-list@example.com", "a@far.org"))
        assert await directory.owners("iain-list", "example.com") == ("iain-list@example.com",)
        await admin.remove_alias(AliasEntry("iain-list@example.com", "b@far.org"))
        assert await directory.owners("iain-list", "example.com") == ()


async def test_addresses_of_extensions_go_with_the_mailbox(database_url: str) -> None:
    """Not those that another account has, or the alias user from then on."""
    owners = ["iain-a@example.com", "IAIN-b-c@example.com", "iain-d-e@example.com"]
    others = ["iain-f@example.com", "iain-g@other.org", "iain-h", "iain", "xiain-i@example.com"]
    rows: Rows = {
        "mailbox": [("iain-d@example.com", 1, 1, "/h", "x", None)],
        "virtual": [(owner, f"x{number}", "x.org") for number, owner in enumerate(owners + others)],
        "alias": [
            ("iain@example.com", "", "anna", "example.com"),
            ("alias", "iain-f@example.com", "anna", "example.com"),
        ],
    }
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        await fill(engine, rows)
        await admin.remove_mailbox(IAIN)
        directory = SqlDirectory(engine)
        kept = [await directory.owners(f"x{number}", "x.org") for number in range(8)]
        assert kept == [(), (), *((owner,) for owner in (owners[2], *others))]


async def test_only_the_exact_name_is_removed(database_url: str) -> None:
    """Rows whose names the database takes for equal are not touched."""
    rows: Rows = {
        "virtual": [("rené@x.org", "rene", "x.org"), ("rene@x.org", "rene", "x.org")],
        "mailbox": [("rene@x.org", 1, 1, "/h", "x", None)],
    }
    async with engine_with(database_url, rows) as engine:
        admin = Administration(engine)
        await admin.remove_mailbox(Address("rene", "x.org"))
        assert await SqlDirectory(engine).owners("rene", "x.org") == ("rené@x.org",)


async def test_aliases_that_the_database_takes_for_one_are_two(database_url: str) -> None:
    """Each is written, found, and removed with its address, whatever the other one has."""
    müller, muller = ("müller", "example.com"), ("muller", "example.com")
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        directory = SqlDirectory(engine)
        await admin.add_alias(müller, ANNA)
        for target in (ANNA, IAIN):
            await admin.add_alias(muller, target)
        assert await directory.owners(*müller) == ("müller@example.com",)
        assert await directory.owners(*muller) == ("muller@example.com",)
        await admin.remove_alias(AliasEntry("müller@example.com", str(ANNA)))
        assert await directory.owners(*müller) == ()
        assert await directory.instructions("alias", "muller@example.com") == (
            f"&{ANNA}",
            f"&{IAIN}",
        )
        for target in (ANNA, IAIN):
            assert await directory.owners(*muller) == ("muller@example.com",)
            await admin.remove_alias(AliasEntry("muller@example.com", str(target)))
        assert await directory.owners(*muller) == ()


async def test_names_with_quotes_are_names(database_url: str) -> None:
    async with engine_with(database_url) as engine:
        admin = await _site(engine)
        odd = Address("o'br`ien%?_!", "example.com")
        await _add(admin, odd)
        assert await admin.mailbox(odd) == _account(odd)
        await admin.remove_mailbox(odd)
        assert await admin.mailbox(odd) is None


async def test_a_domain_is_one_in_either_form(database_url: str) -> None:
    """U-labels and A-labels; what is added has the form in which the domain was added."""
    for written, other in ((U_LABELS, A_LABELS), (A_LABELS, U_LABELS)):
        async with engine_with(database_url) as engine:
            await engine.transaction([Statement(f"DELETE FROM `{table}`") for table in TABLES])
            admin = Administration(engine)
            await admin.add_domain(written)
            await _refuses(admin.add_domain(other), f"{written} is there already")
            address = await admin.hosted(Address("ann", other))
            assert address == Address("ann", written)
            await _add(admin, address)
            await _refuses(_add(admin, Address("ann", other)), f"ann@{written} exists")
            await admin.add_alias(("info", other), Address("ann", other))
            await _refuses(
                admin.add_alias(("info", other), Address("ann", written)), "forwards to .* already"
            )
            await _refuses(admin.add_alias(("x", other), Address("x", written)), "itself")
            await _refuses(admin.add_alias(("ann", other), IAIN), "is a mailbox")
            await _refuses(_add(admin, Address("info", other)), "is an alias")

            listed = [AliasEntry(f"info@{written}", f"ann@{other}")]
            assert await _aliases(admin, other) == await _aliases(admin) == listed
            found = await admin.mailbox(Address("ann", other))
            assert found == _account(address)
            assert await _accounts(admin, other) == (found,)
            await admin.set_password(Address("ann", other), "{HASH}new", "Password")
            credentials = await SqlDirectory(engine).credentials(f"ann@{written}")
            assert credentials is not None
            assert credentials.password == "{HASH}new"

            await _refuses(admin.remove_domain(other), "2 rows")
            removed = await admin.remove_mailbox(Address("ann", other))
            assert removed == listed
            await admin.remove_alias(AliasEntry(f"info@{other}", f"ann@{written}"))
            await admin.remove_domain(other)
            assert await admin.domains() == []


@pytest.mark.parametrize("written", ["MÜLLER.example", "müller\u3002example"])
async def test_what_is_added_is_found_for_mail_however_it_is_typed(
    database_url: str, written: str
) -> None:
    async with engine_with(database_url) as engine:
        admin = Administration(engine)
        await admin.add_domain(written)
        ann = await admin.hosted(Address("ann", written))
        await _add(admin, ann)
        await admin.add_alias(("info", written), Address("ann", written))
        await admin.add_alias(("", written), Address("ann", written))
        assert await admin.domains() == [U_LABELS]
        assert ann == Address("ann", U_LABELS)
        assert await admin.addresses_of(str(ann)) == [str(ann)]
        entries = [AliasEntry(f"{name}@{U_LABELS}", str(ann)) for name in ("", "info")]
        assert await _aliases(admin, written) == entries


async def test_a_domain_in_neither_form_can_be_removed(database_url: str) -> None:
    written = "MÜLLER.example"
    rows: Rows = {
        "rcpthosts": [(written,)],
        "mailbox": [(f"ann@{written}", 1000, 1000, "/mail/ann", "x", "Password")],
        "virtual": [(f"ann@{written}", "ann", written)],
    }
    async with engine_with(database_url, rows) as engine:
        admin = Administration(engine)
        await admin.remove_mailbox(Address("ann", "mÜller.example"))
        await admin.remove_domain(written)
        assert await admin.domains() == []


async def test_addresses_of_a_domain_in_another_form_keep_it(database_url: str) -> None:
    rows: Rows = {
        "rcpthosts": [(U_LABELS,)],
        "virtual": [(f"ann@{A_LABELS}", "ann", A_LABELS)],
        "alias": [("alias", f"ann@{A_LABELS}", "iain", "example.com")],
    }
    async with engine_with(database_url, rows) as engine:
        admin = Administration(engine)
        await _refuses(admin.remove_domain(U_LABELS), "1 row")
        await admin.add_alias(("ann", U_LABELS), ANNA)
        name = f"ann@{A_LABELS}"
        assert await _aliases(admin) == [
            AliasEntry(name, str(ANNA)),
            AliasEntry(name, str(IAIN)),
        ]

"""The restante command, on a real instance with SQLite: what it prints, changes and refuses."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from restante.address import Address
from restante.auth.schemes import hash_password, is_current, verify
from restante.cli.output import human_span
from restante.cli.status import ExitCode
from restante.directory import Account
from restante.directory.system import HostFiles
from restante.errors import CannotKnow
from restante.tls.certificate import PairFiles
from tests.support.certificates import DAY, NOW, issue, replace, write
from tests.support.shell import Shell, advice, put_message

# Domains


@pytest.mark.parametrize("local", ["a..b", "a b", "a@b", 'a"b', "a\\b"])
def test_an_alias_whose_target_needs_quotes(hosted: Shell, local: str) -> None:
    target = Address(local, "x.example").to_mailbox()
    assert hosted("alias", "add", "info@example.com", target).code == 0
    quoted = Address(local, "x.example").to_mailbox()
    assert f"{quoted} is for elsewhere" in hosted("explain", "info@example.com").out
    assert hosted("alias", "list").out == f"info@example.com\t{target}\n"
    assert hosted("alias", "remove", "info@example.com", target).code == 0
    assert hosted("alias", "list").out == ""


def test_domains(hosted: Shell) -> None:
    assert hosted("domain", "add", "Example.ORG").code == 0
    assert hosted("domain", "list").out == "example.com\nexample.org\n"
    assert hosted.json("domain", "list") == [{"domain": "example.com"}, {"domain": "example.org"}]
    assert hosted("domain", "remove", "example.org").code == 0
    assert hosted("domain", "list").out == "example.com\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("domain", "add", "a b"), "'a b' is no domain"),
        (("domain", "add", "example.com"), "already"),
        (("domain", "remove", "example.com"), "still has"),
        (("domain", "remove", "example.net"), "example.net"),
        (("mailbox", "add", "iain", "--password-stdin"), "'iain' has no domain"),
        (("mailbox", "add", "a b@example.com", "--password-stdin"), "is no address"),
        (("mailbox", "add", "x@example.net", "--password-stdin"), "example.net"),
        (("mailbox", "add", "IAIN@example.com", "--password-stdin"), "exist"),
        (("mailbox", "show", "nobody@example.com"), "there is no mailbox nobody@example.com"),
        (("mailbox", "remove", "nobody@example.com"), "there is no mailbox nobody@example.com"),
        (("mailbox", "passwd", "nobody@example.com"), "there is no mailbox nobody@example.com"),
        (("alias", "add", "iain@example.com", "ann@example.com"), "mailbox"),
        (("alias", "add", "x@example.com", "ann"), "'ann' has no domain"),
        (("alias", "remove", "x@example.com", "ann@example.com"), "x@example.com"),
        (("queue", "show", "nothing"), "no queue has a message 'nothing'"),
        (("explain", "a b"), "is no address"),
    ],
)
def test_refusals_say_one_clear_sentence_and_change_nothing(
    hosted: Shell, arguments: tuple[str, ...], said: str
) -> None:
    tables = [f"SELECT * FROM `{name}`" for name in ("rcpthosts", "mailbox", "virtual", "alias")]
    before = [hosted.rows(statement) for statement in tables]

    refused = hosted(*arguments, stdin="secret\n")

    assert refused.code == ExitCode.REFUSED
    assert refused.out == ""
    assert refused.err.startswith("restante: ")
    assert refused.err.count("\n") == 1
    assert said in refused.err
    assert [hosted.rows(statement) for statement in tables] == before


# Mailboxes


def test_a_mailbox_is_two_rows(hosted: Shell) -> None:
    ((name, uid, gid, home, password, kind),) = hosted.rows(
        "SELECT username, uid, gid, home, password, password_type FROM mailbox"
    )

    assert name == "iain@example.com"
    assert uid >= 1
    assert gid >= 1
    assert home == str(hosted.directory / "mail" / "example.com" / "iain")
    assert password.startswith("{ARGON2ID}")
    assert verify("secret", password, kind)
    assert hosted.rows("SELECT username, virtual_username, virtual_host FROM virtual") == [
        ("iain@example.com", "iain", "example.com")
    ]


def test_a_password_is_hashed_as_dear_as_is_recommended(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restante.auth.schemes.hash_password", hash_password)
    hosted.add_mailbox("ann@example.com")

    ((password,),) = hosted.rows("SELECT password FROM mailbox WHERE username LIKE 'ann@%'")

    assert is_current(password)


def test_homes_stay_below_the_root(hosted: Shell) -> None:
    for address in ("../../etc@example.com", '"../x"@example.com', '".hidden"@example.com'):
        hosted.add_mailbox(address)
    root = hosted.directory / "mail"

    homes = [Path(row[0]) for row in hosted.rows("SELECT home FROM mailbox")]

    assert len(homes) > 1
    for home in homes:
        assert home.parent.parent == root
        assert not home.name.startswith(".")


def test_listing_mailboxes(hosted: Shell) -> None:
    hosted("domain", "add", "example.org")
    hosted.add_mailbox("ann@example.org")

    assert [row["mailbox"] for row in hosted.json("mailbox", "list")] == [
        "ann@example.org",
        "iain@example.com",
    ]
    assert hosted("mailbox", "list", "example.org").out.startswith("ann@example.org\t")


@pytest.mark.parametrize(
    ("written", "other"),
    [
        ("müller.example", "xn--mller-kva.example"),
        ("xn--mller-kva.example", "müller.example"),
    ],
)
def test_commands_know_a_domain_in_either_form(hosted: Shell, written: str, other: str) -> None:
    assert hosted("domain", "add", written).code == 0
    refused = hosted("domain", "add", other)
    assert written in refused.err

    assert hosted.add_mailbox(f"ann@{other}").code == 0
    assert f"ann@{written}" in hosted.add_mailbox(f"ann@{other}").err
    assert hosted("alias", "add", f"sales@{other}", f"ann@{other}").code == 0

    shown = hosted.json("mailbox", "show", f"ann@{other}")
    assert (shown["mailbox"], shown["addresses"]) == (f"ann@{written}", [f"ann@{written}"])
    for name, leads_to in (("ann", []), ("sales", [f"ann@{written}"])):
        for domain in (written, other):
            told = hosted.json("explain", f"{name}@{domain}")
            assert told["accepted"] is True
            assert told["decision"]["delivered_to"] == f"{name}@{written}"
            assert [each["decision"]["account"] for each in told["leads_to"]] == leads_to
    removed = hosted("mailbox", "remove", f"ann@{other}")
    assert removed.code == 0
    assert f"sales@{written} still points to ann@{other}" in removed.err


def test_show_counts_mail_in_subfolders_too(hosted: Shell) -> None:
    home = put_message(hosted, "iain@example.com", "four")
    sent = home / "Maildir" / ".Sent" / "cur"
    sent.mkdir(parents=True)
    (sent / "1.host:2,S").write_text("sixsix")

    shown = hosted.json("mailbox", "show", "iain@example.com")

    assert (shown["messages"], shown["size"]) == (2, 10)
    assert shown["addresses"] == ["iain@example.com"]


def test_another_password(hosted: Shell) -> None:
    done = hosted("mailbox", "passwd", "iain@example.com", "--password-stdin", stdin="other\nx\n")
    ((password, kind),) = hosted.rows("SELECT password, password_type FROM mailbox")

    assert done.code == 0
    assert verify("other", password, kind)
    assert not verify("secret", password, kind)


@pytest.mark.parametrize("given", ["", "\n"])
def test_no_password(hosted: Shell, given: str) -> None:
    refused = hosted("mailbox", "add", "ann@example.com", "--password-stdin", stdin=given)

    assert refused.code == ExitCode.REFUSED
    assert "no password" in refused.err
    assert hosted.rows("SELECT count(*) FROM mailbox") == [(1,)]


def test_a_mailbox_that_was_named_by_hand(hosted: Shell) -> None:
    hosted.change(
        "INSERT INTO mailbox VALUES ('bob', 1000, 1000, '/nowhere/bob', NULL, 'Password')"
    )
    hosted.change("INSERT INTO virtual VALUES ('bob', 'bob', 'example.com')")

    assert hosted.json("mailbox", "show", "bob")["addresses"] == ["bob@example.com"]
    assert hosted("mailbox", "passwd", "bob", "--password-stdin", stdin="new\n").code == 0
    assert hosted("mailbox", "remove", "bob").code == 0
    assert hosted.rows("SELECT username FROM mailbox") == [("iain@example.com",)]
    assert hosted.rows("SELECT username FROM virtual") == [("iain@example.com",)]


def test_a_mailbox_that_is_misconfigured_hides_no_other(hosted: Shell) -> None:
    hosted.change("INSERT INTO mailbox VALUES ('bob', -1, 1000, '/nowhere/bob', NULL, 'Password')")

    listed = hosted("mailbox", "list")

    assert listed.code == ExitCode.REFUSED
    assert listed.out.startswith("iain@example.com\t")
    assert "row 'bob': uid" in listed.err


# Aliases


def test_aliases(hosted: Shell) -> None:
    assert hosted("alias", "add", "sales@example.com", "iain@example.com").code == 0
    assert hosted("alias", "add", "sales@example.com", "ann@elsewhere.example").code == 0
    assert hosted("alias", "add", "@example.com", "iain@example.com").code == 0

    assert hosted.json("alias", "list", "example.com") == [
        {"alias": "@example.com", "target": "iain@example.com"},
        {"alias": "sales@example.com", "target": "ann@elsewhere.example"},
        {"alias": "sales@example.com", "target": "iain@example.com"},
    ]
    for target in ("iain@example.com", "ann@elsewhere.example"):
        assert hosted("alias", "remove", "sales@example.com", target).code == 0
    assert hosted("alias", "list").out == "@example.com\tiain@example.com\n"


def test_no_address_that_an_account_of_the_host_itself_has(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_ROUTING__LOCALS", '["Example.com"]')
    hosted.change("INSERT INTO mailbox VALUES ('bob', 1, 1, '/home/bob', NULL, NULL)")
    for arguments in (
        ("mailbox", "add", "BOB@example.com", "--password-stdin"),
        ("alias", "add", "bob@example.com", "iain@example.com"),
    ):
        refused = hosted(*arguments, stdin="secret\n")
        assert refused.code == ExitCode.REFUSED
        assert "the mailbox bob has the mail of" in refused.err
    assert hosted("alias", "add", "bobby@example.com", "iain@example.com").code == 0
    assert hosted("alias", "add", "@example.com", "iain@example.com").code == 0


def test_aliases_are_removed_as_they_are_listed(hosted: Shell) -> None:
    hosted.change(
        "INSERT INTO alias VALUES ('iain@example.com', 'x', 'ann', 'elsewhere.example'), "
        "('bob', '', '|cat', ''), ('alias', 'info@example.com', './Maildir/', '')"
    )
    for line in hosted("alias", "list").out.splitlines():
        assert hosted("alias", "remove", *line.split("\t")).code == 0
    assert hosted("alias", "list").out == ""


# explain


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("iain@example.com", 250),
        ("nobody@example.com", 550),
        ("iain@elsewhere.example", 550),
    ],
)
def test_explain_tells_accepted_and_refused(hosted: Shell, address: str, code: int) -> None:
    assert hosted.json("explain", address)["reply"]["code"] == code
    assert str(code) in hosted("explain", address).out


def test_explain_tells_what_a_server_says_that_verifies_nobody(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_RECEIVER__VERIFY_RECIPIENTS", "false")

    told = hosted("explain", "nobody@example.com").out

    assert "A stranger hears at RCPT: 250 2.1.5 recipient ok\n" in told
    assert "is taken and returned: setting receiver.verify_recipients\n" in told
    assert hosted.json("explain", "nobody@example.com")["reply_to_user"]["code"] == 250
    assert "relaying denied" in hosted("explain", "nobody@elsewhere.example").out


def test_explain_tells_which_way_mail_for_another_host_leaves(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    route, login = '{".example": "smart.example:587"}', '{"smart.example:587": "iain:secret"}'
    monkeypatch.setenv("RESTANTE_ROUTING__SMTPROUTES", route)
    monkeypatch.setenv("RESTANTE_RELAY__CREDENTIALS", login)
    routed = hosted("explain", "ann@elsewhere.example")
    direct = hosted("explain", "ann@elsewhere.org")

    assert "A user who has logged in hears: 250 2.1.5" in routed.out
    assert routed.out.endswith(
        "\nLeaves     ann@elsewhere.example by lane smart.example:587, which "
        "routing.smtproutes names; TLS: verify; logs in as iain\n"
    )
    assert direct.out.endswith(
        "\nLeaves     ann@elsewhere.org by lane elsewhere.org, to the hosts that the DNS "
        "names; TLS: may\n"
    )
    assert "lane [192.0.2.1], an address; TLS" in hosted("explain", "ann@[192.0.2.1]").out
    assert "secret" not in routed.out


@pytest.mark.parametrize(
    ("hop", "policy", "in_force"),
    [
        ("smart.example:465", "none", "encrypt"),
        ("smart.example:465", "may", "encrypt"),
        ("smart.example:465", "verify", "verify"),
        ("smart.example:25", "none", "none"),
    ],
)
def test_explain_tells_that_tls_comes_first(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, hop: str, policy: str, in_force: str
) -> None:
    monkeypatch.setenv("RESTANTE_ROUTING__SMTPROUTES", json.dumps({"": hop}))
    monkeypatch.setenv("RESTANTE_RELAY__TLS_POLICY", json.dumps({"": policy}))

    (way,) = hosted.json("explain", "ann@elsewhere.example")["leaves_by"]

    assert way["tls_policy"] == in_force


def test_explain_does_without_a_queue_that_cannot_be_read(hosted: Shell) -> None:
    (hosted.directory / "queue" / "0").mkdir()
    (hosted.directory / "queue" / "0" / "queue.db").write_bytes(b"this is no database" * 100)

    told = hosted("explain", "ann@elsewhere.example")

    assert told.code == 0
    assert "\nLeaves     ann@elsewhere.example by lane elsewhere.example, " in told.out
    assert told.err.startswith("restante: whether hosts are left alone is not known: the queue ")
    assert told.err.count("\n") == 1


def test_explain_tells_of_a_mailbox_that_nothing_is_written_to(hosted: Shell) -> None:
    hosted.change("UPDATE mailbox SET uid = 0")

    assert "\nWaits      iain@example.com: the account's uid " in (
        hosted("explain", "iain@example.com").out
    )
    (waits,) = hosted.json("explain", "iain@example.com")["waits"]
    assert waits["account"] == "iain@example.com"
    assert waits["why"].startswith("the account's uid ")


def test_explain_tells_of_what_waits_for_a_program(hosted: Shell) -> None:
    add = (
        "INSERT INTO alias (username, alias, alias_username) VALUES ('iain@example.com', '', '{}')"
    )
    waits = "\nWaits      what iain@example.com sends on: that is done last, when all else is\n"
    hosted.change("UPDATE mailbox SET uid = 0")
    for line in ("./Maildir/", "&ann@elsewhere.org"):
        hosted.change(add.format(line))
    assert waits not in hosted("explain", "iain@example.com").out

    hosted.change(add.format("|cat"))

    assert waits in hosted("explain", "iain@example.com").out


def test_programs_of_the_servers_own_user_are_not_run(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So say explain and check; accounts of init are that user's."""
    hosted.change(
        "INSERT INTO alias (username, alias, alias_username)"
        " VALUES ('iain@example.com', '', '|cat')"
    )
    if os.geteuid() == 0:
        uid = pwd.getpwnam("nobody").pw_uid
        monkeypatch.setenv("RESTANTE_SERVER__USER", "nobody")
        hosted.change(f"UPDATE mailbox SET uid = {uid}")
    told = hosted("explain", "iain@example.com").out
    (line,) = (line for line in told.splitlines() if line.startswith("Waits"))
    assert line.endswith("is the server's own, and programs.run_as_server_user is not set")
    checked = hosted("check").out
    assert "alias has '|cat' for iain@example.com, whose uid is the server's own" in checked


def test_explain_that_cannot_know_is_temporary(hosted: Shell) -> None:
    (hosted.directory / "restante.db").write_text("this is no database, " * 100)

    told = hosted("explain", "iain@example.com", "--json")

    assert told.code == ExitCode.TEMPORARY
    assert json.loads(told.out)["reply"]["code"] == 451


def test_explain_that_cannot_know_the_domain_is_temporary(hosted: Shell) -> None:
    hosted.change("DROP TABLE rcpthosts")

    told = hosted("explain", "iain@example.com")

    assert told.code == ExitCode.TEMPORARY
    assert "A stranger hears at RCPT: 451 4.3.0" in told.out
    assert "\nDecision   mailbox of iain@example.com: " in told.out


def test_explain_that_cannot_know_where_an_alias_leads_is_temporary(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dot_qmail(_files: HostFiles, account: Account, _extension: str) -> None:
        raise CannotKnow(f"{account.home} hangs")

    monkeypatch.setattr(HostFiles, "dot_qmail", dot_qmail)
    monkeypatch.setenv("RESTANTE_ROUTING__SYSTEM_FILES", "true")
    hosted("alias", "add", "info@example.com", "iain@example.com")

    told = hosted("explain", "info@example.com")

    assert told.code == ExitCode.TEMPORARY
    assert "\nLeads to   iain@example.com -> cannot know: " in told.out


def test_a_database_that_is_away_is_temporary(hosted: Shell) -> None:
    (hosted.directory / "restante.db").unlink()

    told = hosted("domain", "list")

    assert told.code == ExitCode.TEMPORARY
    assert told.err.startswith("restante: ")
    assert not (hosted.directory / "restante.db").exists()


# check


def test_check_is_content(hosted: Shell) -> None:
    found = hosted.json("check")

    assert (found["ok"], found["problems"]) == (True, [])
    (line,) = advice(found)
    assert line.startswith(f"tls: {hosted.directory}/tls/self-signed.pem is self-signed, good")


def with_pairs(monkeypatch: pytest.MonkeyPatch, *pairs: PairFiles, listen_tls: str = "") -> None:
    """Settings with these certificates alone, and submission over TLS at an address."""
    monkeypatch.setenv("RESTANTE_TLS__CERTIFICATE", "")
    monkeypatch.setenv("RESTANTE_TLS__KEY", "")
    table = {each.certificate: each.key for each in pairs}
    monkeypatch.setenv("RESTANTE_TLS__CERTIFICATES", json.dumps(table))
    addresses = json.dumps([listen_tls] if listen_tls else [])
    monkeypatch.setenv("RESTANTE_SUBMISSION__LISTEN_TLS", addresses)
    monkeypatch.setenv("RESTANTE_POP3__LISTEN_TLS", "[]")


def test_check_says_what_the_lack_of_a_certificate_means(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_pairs(monkeypatch)
    (line,) = advice(hosted.json("check"))
    assert "STARTTLS and STLS are not offered, and passwords are taken from this host" in line


def test_check_reads_certificates(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    expired = issue("mx.example.net", begins=NOW - 9 * DAY, ends=NOW - DAY, by=issue())
    old, exposed, wrong = (write(hosted.directory, each, expired) for each in ("a", "b", "c"))
    os.chmod(exposed.key, 0o644)
    replace(wrong.key, issue().key_pem())
    with_pairs(monkeypatch, old, exposed, wrong)

    found = json.loads(hosted("check", "--json").out)

    assert [line.split(" on ")[0].split(";")[0] for line in found["problems"]] == [
        f"tls: {old.certificate} expired",
        f"tls: {exposed.certificate} expired",
        f"tls: {exposed.key} is a private key that everybody can read",
        f"tls: {wrong.key} is not the key of {wrong.certificate}",
    ]
    (line,) = advice(found)
    assert "no certificate is for mx.example.com" in line
    assert "there are some for mx.example.net" in line


def test_check_knows_its_own_server_behind_tls(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(hosted.directory, "mx", issue("mx.example.com", by=issue()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    def greet(listener: socket.socket) -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as client:
            client.sendall(b"220 mx.example.com ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as taken, held_open(hosted.directory):
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with_pairs(monkeypatch, files, listen_tls=address)
        greeting = threading.Thread(target=greet, args=[taken])
        greeting.start()
        found = hosted.json("check")
        greeting.join()

    assert advice(found) == [
        f"{address} is served by mx.example.com already: 220 mx.example.com ESMTP"
    ]


@contextlib.contextmanager
def held_open(directory: Path) -> Iterator[None]:
    """As the processes of an instance's server have its directory."""
    descriptor = os.open(directory, os.O_PATH)
    yield
    os.close(descriptor)


def test_check_names_rows_that_lead_nowhere(hosted: Shell) -> None:
    hosted.change("INSERT INTO virtual VALUES ('iain', 'boss', 'example.com')")
    hosted.change("INSERT INTO virtual VALUES ('iain@example.com', 'chief', 'example.com')")
    hosted.change("INSERT INTO rcpthosts VALUES ('empty.example')")
    hosted.change("INSERT INTO rcpthosts VALUES ('xn--mller-kva.example')")
    hosted.change("INSERT INTO virtual VALUES ('iain@example.com', 'iain', 'müller.example')")
    hosted.change("INSERT INTO mailbox VALUES ('low', 0, 0, '/root', NULL, 'Password')")

    found = json.loads(hosted("check", "--json").out)

    assert [line.split(" has uid")[0] for line in found["problems"]] == ["the mailbox low"]
    assert [line.split(",")[0].split(":")[0] for line in advice(found)] == [
        "virtual gives boss@example.com to 'iain'",
        "the domain empty.example has no addresses",
        "tls",
    ]


@pytest.mark.parametrize("delivery", ["./Mailbox", "|procmail", "./Maildir/\n&ann@far.example"])
def test_check_has_nothing_against_qmails_default_deliveries(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, delivery: str
) -> None:
    monkeypatch.setenv("RESTANTE_ROUTING__DEFAULTDELIVERY", delivery)
    monkeypatch.setenv("RESTANTE_PROGRAMS__RUN_AS_SERVER_USER", "true")

    assert json.loads(hosted("check", "--json").out)["problems"] == []


def test_check_names_a_full_disk(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restante.cli.check.places.MINIMUM_SPACE", 1 << 62)

    problems = "\n".join(json.loads(hosted("check", "--json").out)["problems"])

    assert "mail.root: the file system" in problems
    assert "queue.root: the file system" in problems


def test_check_names_all_problems_at_once(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESTANTE_MAIL__USER", raising=False)
    (hosted.directory / "queue").rmdir()
    (hosted.directory / "restante.db").unlink()
    toml = hosted.directory / "restante.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        toml.write_text(
            f'[pop3]\nlisten = ["{address}"]\n[smtp]\nlisten = []\n[mail]\nuser = "no-such-user"\n'
            '[routing]\ndefaultdelivery = "&a b@example.com"\n'
        )
        found = hosted("check", "--json")

    problems = "\n".join(json.loads(found.out)["problems"])
    assert found.code == ExitCode.REFUSED
    for part in (address, "restante.db", "queue.root", "no-such-user", "defaultdelivery"):
        assert part in problems


def test_check_says_what_is_wrong_with_the_settings(hosted: Shell) -> None:
    (hosted.directory / "restante.toml").write_text("[smtp]\ndatabites = 1\nmax_errors = 0\n")

    found = hosted("check")

    assert found.code == ExitCode.REFUSED
    assert found.out.count("problem: restante.toml: [smtp]") == 2


def test_accounts_never_belong_to_root(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESTANTE_MAIL__USER", raising=False)
    (hosted.directory / "restante.toml").write_text('[mail]\nuser = "root"\n')

    assert "must not belong to root" in hosted("check").out
    assert hosted.add_mailbox("ann@example.com").code == ExitCode.REFUSED


# Usage and configuration


def test_no_instance_is_a_usage_error(shell: Shell) -> None:
    refused = shell.bare("domain", "list")

    assert refused.code == ExitCode.USAGE
    assert "RESTANTE_DIR" in refused.err


def test_the_environment_names_the_instance(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTANTE_DIR", str(hosted.directory))

    assert hosted.bare("domain", "list").out == "example.com\n"


def test_wrong_settings_end_every_command(hosted: Shell) -> None:
    (hosted.directory / "restante.toml").write_text("[smtp]\ndatabites = 1\nmax_errors = 0\n")

    refused = hosted("serve")

    assert refused.code == ExitCode.CONFIGURATION
    assert refused.err.splitlines() == [
        "restante: restante.toml: [smtp] databites: no such setting; did you mean databytes?",
        "restante: restante.toml: [smtp] max_errors: 0 is too small; 1 is the least",
    ]


def test_an_empty_queue(hosted: Shell) -> None:
    assert hosted("queue", "list").out == ""
    assert hosted.json("queue", "list") == []


def test_version(shell: Shell) -> None:
    assert shell.bare("--version").out.startswith("restante ")


# How things are said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (59.9, "59s"), (61, "1m 1s"), (10805, "3h"), (12000, "3h 20m"), (349200, "4d 1h")],
)
def test_a_span_is_told_in_two_units_that_are_neighbours(seconds: float, said: str) -> None:
    assert human_span(seconds) == said

"""``explain`` and ``check`` where the passwd file and .qmail files are asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from restante.cli.status import ExitCode
from tests.support.shell import Shell


@pytest.fixture
def home(hosted: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of iain@example.com, with files in it."""
    monkeypatch.setenv("RESTANTE_ROUTING__SYSTEM_FILES", "true")
    (account,) = hosted.json("mailbox", "list")
    home = Path(account["home"])
    home.mkdir(parents=True)
    (home / ".qmail-list-default").write_text("# friends\n\n&ann@far.org\n|archive\n")
    (home / ".qmail-list-x-owner").touch()
    (home / ".qmail-bad").write_text("&ann@far.org\n&not an address\n")
    (home / ".qmail-empty").touch()
    (home / ".qmail-trash").write_text("# nobody wants it\n")
    (home / ".qmail-latin").write_bytes(b"|echo gr\xfc\xdfe\x1b[2J\n./gr\xfc\xdfe/\n")
    for path in (home, *home.iterdir()):
        os.chown(path, account["uid"], account["gid"])
    return home


def test_explain_names_the_file_and_its_lines(hosted: Shell, home: Path) -> None:
    told = hosted("explain", "iain+list-x@example.com").out

    for part in (
        f"asked  .qmail     {home} extension=list-x",
        f"= {home}/.qmail-list-default:1 # friends\n",
        f"= {home}/.qmail-list-default:3 &ann@far.org\n",
        f"= {home}/.qmail-list-default:4 |archive\n",
        f"the file {home}/.qmail-list-default, default stands for 'x'\n",
        f"2 instructions of user iain@example.com in {home}/.qmail-list-default, Delivered-To: ",
        "           USER iain@example.com, EXT list-x, DEFAULT x\n",
        "reports about what is sent on go to iain+list-x-owner@example.com\n",
    ):
        assert part in told
    assert told.index("asked  alias") < told.index("asked  .qmail")


def test_explain_tells_programs_the_same(hosted: Shell, home: Path) -> None:
    decision = hosted.json("explain", "iain+list-x@example.com")["decision"]

    assert decision["source"] == f"{home}/.qmail-list-default"
    assert decision["instructions"] == ["&ann@far.org", "|archive"]
    assert decision["destination"] == {
        "user": "iain@example.com",
        "extension": "list-x",
        "default": "x",
        "new_sender": "iain+list-x-owner@example.com",
    }


def test_explain_says_that_mail_is_thrown_away(hosted: Shell, home: Path) -> None:
    told = hosted("explain", "iain+trash@example.com").out

    assert f"Decision   thrown away: {home}/.qmail-trash of user iain@example.com has" in told


def test_json_says_what_is_done_as_whom(hosted: Shell, home: Path) -> None:
    told = hosted.json("explain", "iain+list-x@example.com")

    (account,) = hosted.json("mailbox", "list")
    (program,) = [each["decision"] for each in told["leads_to"] if "far" not in each["address"]]
    assert program["instruction"] == "|archive"
    assert (program["uid"], program["gid"]) == (account["uid"], account["gid"])


def test_explain_names_the_line_that_cannot_be_obeyed(hosted: Shell, home: Path) -> None:
    told = hosted("explain", "iain+bad@example.com").out

    assert f"misconfigured: {home}/.qmail-bad:2: the instruction '&not an address'" in told
    assert "451 4.3.5" in told


def test_explain_shows_octets_that_no_terminal_should_get(hosted: Shell, home: Path) -> None:
    told = hosted("explain", "iain+latin@example.com").out

    assert "|echo gr\\udcfc\\udcdfe\\x1b[2J" in told
    assert f"{home}/gr\\udcfc\\udcdfe" in told
    told = hosted("explain", "iain+latin@example.com", "--json").out
    assert json.loads(told)["decision"]["instructions"][1] == "./gr\udcfc\udcdfe/"


def test_check_names_a_home_that_holds_up_mail(hosted: Shell, home: Path) -> None:
    assert "its mail waits" not in hosted("check").out
    home.chmod(0o777)

    told = hosted("check")
    assert told.code == ExitCode.REFUSED
    assert f"problem: the mailbox iain@example.com: the home {home} can be written" in told.out
    assert "by everybody; its mail waits\n" in told.out


def test_check_names_owners_that_count_for_nothing(hosted: Shell, home: Path) -> None:
    """A list of rows has its owner in rows, and one in a file a file."""
    assert "owner of" not in hosted("check").out
    for name, line in (("list-y-owner", "iain@"), ("crew", "ann@far.org"), ("box", "./Box/")):
        hosted.change(
            f"INSERT INTO alias (username, alias, alias_username, alias_host)"
            f" VALUES ('iain@example.com', '{name}', '{line.partition('@')[0]}', '')"
        )
    for name in ("crew", "box"):
        (home / f".qmail-{name}-owner").touch()

    told = hosted("check").out
    assert (
        "advice: alias has for 'iain@example.com', extension 'list-y-owner': it is no owner of the "
        f"list in {home}/.qmail-list-default: write a file for it too\n"
    ) in told
    assert (
        f"advice: alias has for 'iain@example.com', extension 'crew': {home}/.qmail-crew-owner is "
        "no owner of this list: write rows for 'crew-owner' too\n"
    ) in told
    assert told.count("owner of") == 2


def test_no_file_is_asked_where_there_are_rows_for_everything(hosted: Shell, home: Path) -> None:
    for name in ("", "list-y-owner"):
        _add_line(hosted, name, "ann@far.org")
    assert "owner of" not in hosted("check").out


def test_rows_beyond_those_that_check_reads(
    hosted: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add_line(hosted, "crew", "ann@far.org")
    _add_line(hosted, "list-y-owner", "iain")
    ((read,),) = hosted.rows("SELECT count(*) FROM alias")
    for name in ("crew-owner", "list-y"):
        _add_line(hosted, name, "iain")
    (home / ".qmail-crew-owner").touch()
    monkeypatch.setattr("restante.cli.check.rows.MAX_READ", read)
    assert "owner of" not in hosted("check").out
    hosted.change("DELETE FROM alias WHERE alias IN ('crew-owner', 'list-y')")
    assert hosted("check").out.count("owner of") == 2


def _add_line(hosted: Shell, name: str, line: str) -> None:
    local, _, host = line.partition("@")
    hosted.change(
        f"INSERT INTO alias (username, alias, alias_username, alias_host)"
        f" VALUES ('iain@example.com', '{name}', '{local}', '{host}')"
    )


def test_explain_shows_an_empty_file(hosted: Shell, home: Path) -> None:
    told = hosted("explain", "iain+empty@example.com").out

    assert f"= {home}/.qmail-empty (empty)\n" in told
    assert f"{home}/.qmail-empty is empty: setting routing.defaultdelivery\n" in told
    assert f"mailbox of iain@example.com: {home}/Maildir" in told


def test_explain_shows_who_was_looked_for(hosted: Shell, home: Path) -> None:
    hosted.change("INSERT INTO virtual VALUES ('No-Such-One', 'someone', 'example.com')")

    told = hosted("explain", "someone@example.com").out

    places = [told.index(f"asked  passwd     {name} ") for name in ("no-such-one", "no-such", "no")]
    assert places == sorted(places)
    assert "no account: user alias, extension 'No-Such-One'" in told


def test_explain_asks_no_system_files_unless_told_to(
    hosted: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTANTE_ROUTING__SYSTEM_FILES", "false")
    told = hosted("explain", "iain+list-x@example.com").out

    assert "asked  passwd" not in told
    assert "asked  .qmail" not in told


def test_check_looks_for_the_alias_user(hosted: Shell, home: Path) -> None:
    found = hosted("check", "--json")
    assert "neither mailbox nor the passwd file has the user alias" in found.out

    status = home.stat()
    row = f"'alias', {status.st_uid}, {status.st_gid}, '{home}', NULL, NULL"
    hosted.change(f"INSERT INTO mailbox VALUES ({row})")
    assert "the user alias" not in hosted("check", "--json").out

    home.chmod(0o777)
    assert _problems(hosted) == [f"the home {home} can be written to by everybody"]
    hosted.change(f"UPDATE mailbox SET home = '{home}/none' WHERE username = 'alias'")
    assert _problems(hosted) == [f"the home {home}/none of alias is missing"]
    hosted.change("UPDATE mailbox SET uid = -1 WHERE username = 'alias'")
    assert len(_problems(hosted)) == 1


def _problems(hosted: Shell) -> list[str]:
    found = hosted("check", "--json")
    assert found.code == ExitCode.REFUSED
    begin = "routing.system_files: "
    problems = json.loads(found.out)["problems"]
    return [line.removeprefix(begin) for line in problems if line.startswith(begin)]

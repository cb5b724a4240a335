"""Arguments and settings that are not UTF-8, and numbers beyond all bounds: told, and no bug."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from restante.cli.output import print_json, print_json_list
from restante.cli.status import ExitCode
from tests.support.shell import Shell
from tests.support.waiting import some_mail

OCTET = "\udcff"
"""How Python hands on an octet of the command line that is no UTF-8."""


@pytest.mark.parametrize(
    "command",
    [
        ["domain", "add", f"{OCTET}.com"],
        ["domain", "remove", f"{OCTET}.com"],
        ["mailbox", "list", OCTET],
        ["mailbox", "add", f"a@{OCTET}.com", "--password-stdin"],
        ["mailbox", "show", OCTET],
        ["mailbox", "show", f"{OCTET}@example.com"],
        ["mailbox", "passwd", OCTET, "--password-stdin"],
        ["mailbox", "remove", f"iain@{OCTET}"],
        ["alias", "list", OCTET],
        ["alias", "add", f"@{OCTET}", "iain@example.com"],
        ["alias", "add", "a@example.com", f"b@{OCTET}"],
        ["alias", "remove", f"{OCTET}@example.com", "iain@example.com"],
        ["alias", "remove", "a@example.com", OCTET],
        ["explain", f"iain@{OCTET}"],
        ["submission", "may", OCTET, "iain@example.com"],
        ["init", OCTET],
    ],
)
def test_a_name_that_is_not_utf_8_is_refused(hosted: Shell, command: list[str]) -> None:
    refused = hosted(*command, stdin="secret\n")

    assert (refused.code, refused.out) == (ExitCode.REFUSED, "")
    assert r"\udcff" in refused.err
    assert "codec" not in refused.err
    assert refused.err.count("\n") == 1


def test_json_holds_what_others_wrote_and_shows_nothing_that_hides(
    capsys: pytest.CaptureFixture[str],
) -> None:
    strange = "\x00\x1b[2J\x7f\x85\x9b\u2028\u202e\ue000\U000e0041" + OCTET
    value = {"reason": f"é\n{strange}日", strange: [strange]}
    print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    print_json_list([value, strange])
    listed = capsys.readouterr().out
    assert json.loads(listed) == [value, strange]
    assert (out + listed).replace("\n", "").isprintable()
    assert '"é\\n\\u0000' in out


@pytest.mark.parametrize("option", ["--to", "--sender"])
def test_a_filter_that_is_not_utf_8_is_a_usage_error(hosted: Shell, option: str) -> None:
    refused = hosted("queue", "list", option, OCTET)

    assert refused.code == ExitCode.USAGE
    assert "neither an address nor a domain" in refused.err


@pytest.mark.parametrize(
    "command",
    [["list", "--lane", OCTET], ["list", "--reason", OCTET], ["show", OCTET], ["hold", OCTET]],
)
def test_what_no_queue_can_hold_is_refused(hosted: Shell, command: list[str]) -> None:
    some_mail(hosted)

    refused = hosted("queue", *command)

    assert (refused.code, refused.out) == (ExitCode.REFUSED, "")
    assert r"'\udcff'" in refused.err


@pytest.mark.parametrize("command", [["list"], ["summary", "--by", "lane"]])
def test_a_limit_beyond_all_bounds_is_a_usage_error(hosted: Shell, command: list[str]) -> None:
    refused = hosted("queue", *command, "--limit", "9" * 23)

    assert refused.code == ExitCode.USAGE
    assert "'--limit'" in refused.err


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("SERVER__ME", f"{OCTET}.com"),
        ("ROUTING__LOCALS", r'["\ud800.com"]'),
        ("ROUTING__SMTPROUTES", r'{"\ud800.com": "x.org"}'),
        ("ROUTING__DEFAULTDELIVERY", f"./{OCTET}/"),
        ("RECEIVER__BADMAILFROM", r'["@\ud800.com"]'),
        ("POP3__LISTEN", r'["\ud800:110"]'),
        ("MAIL__ROOT", f"/{OCTET}"),
    ],
)
def test_a_setting_that_is_not_utf_8_is_a_problem(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    monkeypatch.setenv(f"RESTANTE_{setting}", value)

    refused = hosted("domain", "list")

    assert (refused.code, refused.out) == (ExitCode.CONFIGURATION, "")
    assert refused.err.startswith(f"restante: RESTANTE_{setting}: ")
    assert refused.err.endswith(" is not UTF-8\n")


# What is told goes to a terminal, whoever wrote it


ESCAPE = "\x1b[31m"


@pytest.mark.parametrize(
    "command",
    [
        ["mailbox", "show", f"{ESCAPE}@example.com"],
        ["alias", "remove", f"{ESCAPE}@example.com", "iain@example.com"],
        ["submission", "may", ESCAPE, "iain@example.com"],
        ["guesses", "clear", ESCAPE],
        ["--dir", f"/{ESCAPE}", "domain", "list"],
    ],
)
def test_an_argument_that_is_told_commands_no_terminal(hosted: Shell, command: list[str]) -> None:
    refused = hosted(*command)

    assert refused.code != 0
    assert refused.err.startswith("restante: ")
    assert ESCAPE not in refused.err
    assert r"\x1b[31m" in refused.err


def test_rows_that_are_told_command_no_terminal(hosted: Shell) -> None:
    """An account and an alias as anybody may have them in the database."""
    name = f"{ESCAPE}@example.com"
    hosted.change(f"INSERT INTO mailbox VALUES ('{name}', 1, 1, '/nowhere', NULL, NULL)")
    hosted.change(f"INSERT INTO alias VALUES ('alias', 'x{ESCAPE}', '{ESCAPE}', 'example.com')")

    removed = hosted("mailbox", "remove", name)

    assert "still points to" in removed.err
    assert ESCAPE not in removed.err


@pytest.mark.parametrize("program", ["sendmail", "checkpassword"])
def test_small_programs_command_no_terminal_either(program: str) -> None:
    run = f"import sys; from restante.{program} import main; sys.argv[1:] = ['x']; main()"
    with tempfile.TemporaryFile() as login:
        login.write(b"iain\0secret\0x\0")
        login.seek(0)

        done = subprocess.run(
            ["sh", "-c", 'exec "$@" 3<&0', "sh", sys.executable, "-c", run],
            stdin=login,
            stderr=subprocess.PIPE,
            env={**os.environ, "RESTANTE_DIR": f"/{ESCAPE}"},
            check=False,
        )

    assert done.returncode != 0
    assert done.stderr.startswith(f"{program}: ".encode())
    assert rb"/\x1b[31m" in done.stderr
    assert ESCAPE.encode() not in done.stderr

"""``python -m restante.cli.document`` writes docs/commands.md from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from restante.cli.app import app
from restante.cli.status import ExitCode

PROGRAMS = tuple(
    Path(__file__).with_name(name) for name in ("sendmail.md", "qmail_queue.md", "checkpassword.md")
)
"""What there is to say of the small programs, whose options are not typer's."""

_HEADER = """\
# Commands

`restante --dir DIR COMMAND` works on the instance in `DIR`. Without `--dir` it is the one that
the environment variable `RESTANTE_DIR` names, else `/etc/restante` or what that is a link to.
`init` and `demo` take the directory themselves.

`restante --control CONTROL COMMAND`, or `RESTANTE_CONTROL`, takes settings from a qmail control
directory (docs/qmail.md). Then a restante.toml is not needed, and the instance is, where nothing
names one, `/etc/restante` if that is there and else `/var/lib/restante`.

Lists are tables on a terminal. In a pipe they are one line an entry, its columns parted by
tabs, without heads, and nothing else stands on standard output: that there is more, or how many
messages were changed, is said on standard error. `--json` prints JSON instead. What goes wrong is
said on standard error too, in lines that begin with `restante: `, and nothing is left half done,
also if whoever reads the output goes away. `queue summary` without `--by` is a sentence and
three tables, for people.

`mailbox add` and `mailbox passwd` ask twice for the password, or take the first line of standard
input with `--password-stdin`. New accounts get the uid and gid of the `mail.user` setting; run by
root, `init` and `demo` set it to `vmail` where there is such a user, else to `nobody`, and it is
never root. A mailbox's home is `DIR/mail/DOMAIN/NAME` in lower case, with `/` and other unusual
characters as `%2F`; a part that would be longer than 230 octets is cut and ends in a digest.

`explain` exits with 0 whether the address is accepted or refused, and with 75 where a part of
that cannot be known now. `check` exits with 1 when there is any problem, a wrong setting
included; what it only advises of (`advice:`) is no reason. Root and the server's user are told
of a restante.toml that the running server has not read, and of a reload that it refused. A port
that the instance's own
running server has is no problem for `check`, if that answers. Whose a port is, root and the
server's user can see; others have to go by the greeting. `check` and `explain` judge uids by
who starts the server, whoever asks: the owner of `drop` in the instance's directory, if that user
could change restante.toml there, which root's server refuses, else root. Where there is no `drop`
yet, it is whoever asks.

`queue` commands work on a running server, at once, and on a stopped one, whose next start finds
what they did. They may be run by root, or by the user who runs the server, if that may read
restante.toml. Filters of one command must all be true; they choose recipients, so that `remove
--to example.net` leaves a message's recipients elsewhere as they are, and `remove ID --to
ann@example.net` is for one recipient of one message. What comes into the queue later is not meant:
`hold` does not stop it. A `SPAN` is `90s`, `15m`, `2h`, `1d12h` or `1w`. A lane is a next hop:
mail for one that is down is left alone as a whole for a while; `local` is for mailboxes here.
`retry` ends that, `release` does not. What is released counts as come then, for its lifetime,
`--older`, `--newer` and summaries. What is being tried while it is held or removed may yet be
delivered. `remove` and `bounce` ask before they change more than one message that was not named by
its id; where there is no terminal, they want `--yes`. With several ids, those that are there are
changed, and the exit code is 1 if another is not; filters that no message matches are no failure.

| Elsewhere | Here |
|---|---|
| `mailq`, `postqueue -p`, `exim -bp`, `qmail-qread` | `restante queue list` |
| `qshape`, `exiqsumm`, `qmail-qstat` | `restante queue summary` |
| `exiqgrep -f SENDER`, `-r DOMAIN` | `restante queue list --sender SENDER`, `--to DOMAIN` |
| `exiqgrep -o 7200`, `exiqgrep -z` | `restante queue list --older 2h`, `--state held` |
| `postcat -q ID`, `exim -Mvh ID`, `-Mvb ID` | `restante queue show ID`, `--headers`, `--body` |
| `postqueue -f`, `exim -qff`, `qmail-tcpok` and SIGALRM | `restante queue retry --all` |
| `postqueue -s SITE`, `exim -Rff SITE` | `restante queue retry --to SITE` |
| `postqueue -i ID`, `exim -M ID` | `restante queue retry ID` |
| `postsuper -h ID`, `exim -Mf ID` | `restante queue hold ID` |
| `postsuper -H ID`, `exim -Mt ID` | `restante queue release ID` |
| `postsuper -d ID`, `exim -Mrm ID`, `qmHandle -dID` | `restante queue remove ID` |
| `postsuper -d ALL` | `restante queue remove --all --yes` |
| `exim -Mg ID` | `restante queue bounce ID` |

This page is written by `python -m restante.cli.document > docs/commands.md`.

## Exit codes

| Code | Meaning |
|---|---|
"""


def render() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    lines = [f"| {int(code)} | {code.meaning} |" for code in ExitCode]
    lines += ["", "## Options of every command", *_options(root)]
    for name, command in _commands(root, ""):
        lines += ["", f"## restante {_usage(name, command)}", "", command.help.strip()]
        lines += _options(command)
    return (
        _HEADER
        + "\n".join(lines).rstrip()
        + "".join("\n\n" + page.read_text().rstrip() for page in PROGRAMS)
        + "\n"
    )


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def _usage(name: str, command: Any) -> str:
    arguments = [entry for entry in command.params if entry.param_type_name == "argument"]
    several = {entry.metavar: f"[{entry.metavar}]..." for entry in arguments if entry.nargs == -1}
    return " ".join([name, *(several.get(each.metavar, each.metavar) for each in arguments)])


def _options(command: Any) -> list[str]:
    rows = [
        f"| `{_form(entry)}` | {entry.help} |"
        for entry in command.params
        if entry.param_type_name == "option"
    ]
    return ["", "| Option | Meaning |", "|---|---|", *rows] if rows else []


def _form(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len, reverse=True))
    return names if option.is_flag else f"{names} {option.metavar}"


if __name__ == "__main__":
    print(render(), end="")

r"""Decision tables as text: a world of settings, rows and files, and what addresses lead to in it.

Above a line ``---`` stands the world, one thing a line, ``#`` begins a comment:

    set NAME VALUE...             a setting of [routing]; tables as KEY=VALUE
    rcpthosts HOST                rows
    mailbox NAME [home=~NAME]
    virtual OWNER LOCAL@HOST      (without LOCAL: the catch-all)
    alias USER EXTENSION : LINE   (the extension ``-`` is empty; &LOCAL@HOST fills both columns)
    passwd NAME [uid=N] [home=~NAME]
    home ~NAME [mode=N]           the directory; those of accounts are made anyway
    gone ~NAME                    it is not made
    file ~NAME/FILE [mode=N] : TEXT with \n and the like
    link ~NAME/FILE : TARGET
    folder ~NAME/FILE

Below it stand addresses, two or more blanks, and what ``told`` says of the decision, or the
beginning of it up to ``...``. Accounts are the tester's own, so that any user may run these.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from restante.config.tree import Routing
from restante.directory import Account
from restante.directory.passwd import PasswdEntry
from restante.directory.system import HostFiles
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
from tests.support.deliveries import GROUP, OWNER
from tests.support.memory_directory import Tables

_TABLES = Path(__file__).parents[1] / "decisions"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    address: str
    expected: str

    def holds(self, told: str) -> bool:
        """Whether this is what was expected."""
        if self.expected.endswith("..."):
            return told.startswith(self.expected.removesuffix("..."))
        return told == self.expected


@dataclass(slots=True)
class World:
    """What a table says is there; ``root`` is where its homes are made."""

    root: Path
    settings: Routing = field(default_factory=lambda: Routing(system_files=True))
    tables: Tables = field(default_factory=Tables)
    passwd: dict[str, PasswdEntry] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def system(self) -> HostFiles:
        """The system's files, with the passwd file of this world."""
        return HostFiles(1, 1, self.passwd.get)

    def told(self, decision: Decision) -> str:
        """A decision in one line, homes as ``~NAME``."""
        told = _told(decision).replace(f"{self.root}/", "~")
        return told.encode("utf-8", "backslashreplace").decode()


def table_names() -> list[str]:
    """The tables there are."""
    return sorted(path.stem for path in _TABLES.glob("*.txt"))


def read_rows(name: str) -> list[Row]:
    """The addresses of a table."""
    return [
        Row(*re.split(r"\s{2,}", line.strip(), maxsplit=1)) for line in _lines(name, below=True)
    ]


def build(name: str, root: Path) -> World:
    """The world of a table, its homes made under ``root``."""
    world = World(root, rows=read_rows(name))
    builder = _Builder(world)
    for line in _lines(name, below=False):
        builder.add(line)
    builder.finish()
    return world


def _lines(name: str, *, below: bool) -> Iterator[str]:
    above, _, rest = (_TABLES / f"{name}.txt").read_text().partition("\n---\n")
    for line in (rest if below else above).splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


class _Builder:
    """Reads the upper half of a table, line by line."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._settings: dict[str, object] = {"system_files": True}
        self._modes: list[tuple[Path, int]] = []
        self._gone: set[Path] = set()
        self._homes: set[Path] = set()

    def add(self, line: str) -> None:
        head, _, text = line.partition(" : ")
        verb, *words = head.split()
        options = dict(word.split("=", 1) for word in words if re.match(r"(uid|home|mode)=", word))
        names = [word for word in words if not re.match(r"(uid|home|mode)=", word)]
        verbs = {
            "set": lambda: self._set(words),
            "rcpthosts": lambda: self._world.tables.rcpthosts.append(names[0]),
            "mailbox": lambda: self._mailbox(names[0], options),
            "virtual": lambda: self._virtual(*names),
            "alias": lambda: self._alias(names[0], names[1], text),
            "passwd": lambda: self._passwd(names[0], options),
            "home": lambda: self._home(names[0], options),
            "gone": lambda: self._gone.add(self._path(names[0])),
            "file": lambda: self._file(names[0], text, options),
            "link": lambda: self._link(names[0], text.strip()),
            "folder": lambda: self._folder(names[0]),
        }
        verbs[verb]()

    def finish(self) -> None:
        self._world.settings = Routing(**self._settings)  # type: ignore[arg-type]
        for home in self._homes - self._gone:
            self._make(home)
        for path, mode in self._modes:
            path.chmod(mode)

    def _path(self, name: str) -> Path:
        assert re.fullmatch(r"~?[^/~]+(/[^/]+)?", name), f"{name} is not below the world's root"
        return self._world.root / name.removeprefix("~")

    def _make(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        home.chmod(0o755)
        os.chown(home, OWNER, GROUP)

    def _set(self, words: list[str]) -> None:
        name, *values = words
        kept: object = " ".join(values).encode().decode("unicode_escape")
        if name in ("locals", "rcpthosts"):
            kept = tuple(values)
        elif name in ("envnoathosts", "virtualdomains"):
            kept = dict(value.split("=", 1) for value in values)
        elif name == "system_files":
            kept = values == ["yes"]
        self._settings[name] = kept

    def _mailbox(self, name: str, options: dict[str, str]) -> None:
        home = self._path(options.get("home", name))
        self._homes.add(home)
        self._world.tables.mailbox.append(Account(name, OWNER, GROUP, str(home)))

    def _virtual(self, owner: str, address: str) -> None:
        local, _, host = address.rpartition("@")
        self._world.tables.virtual.append((owner, local, host))

    def _alias(self, user: str, extension: str, line: str) -> None:
        local, at, host = line.removeprefix("&").rpartition("@")
        columns = (local, host) if line.startswith("&") and at else (line, "")
        self._world.tables.alias.append((user, extension.removeprefix("-"), *columns))

    def _passwd(self, name: str, options: dict[str, str]) -> None:
        home = self._path(options.get("home", name))
        self._homes.add(home)
        uid = int(options.get("uid", OWNER))
        self._world.passwd[name] = PasswdEntry(name, "x", uid, GROUP, str(home))

    def _home(self, name: str, options: dict[str, str]) -> None:
        self._homes.add(self._path(name))
        self._modes.append((self._path(name), int(options["mode"], 8)))

    def _file(self, name: str, text: str, options: dict[str, str]) -> None:
        path = self._path(name)
        self._make(path.parent)
        path.write_bytes(text.encode().decode("unicode_escape").encode("latin-1"))
        path.chmod(int(options.get("mode", "644"), 8))
        os.chown(path, OWNER, GROUP)

    def _link(self, name: str, target: str) -> None:
        path = self._path(name)
        self._make(path.parent)
        path.symlink_to(self._path(target) if target.startswith("~") else target)

    def _folder(self, name: str) -> None:
        self._make(self._path(name).parent)
        self._path(name).mkdir()


def _told(decision: Decision) -> str:
    match decision:
        case Mailbox(account, delivered_to, maildir):
            path = maildir.replace(account.home, ".")
            return f"{account.name} {path}/ as {delivered_to}"
        case Instructions(account, delivered_to, actions, to, source):
            who = f"{to.user}/{to.extension}" if to.extension else to.user
            lines = " ".join(map(instruction_line, actions))
            more = f" default={to.default}" if to.default else ""
            more += f" newsender={to.new_sender}" if to.new_sender else ""
            home = f" in {account.home}" if account and account.name != to.user else ""
            what = f"{source.rpartition('/')[2]}: {lines}".rstrip()
            return f"{who} {what} as {delivered_to}{home}{more}"
        case Remote(address):
            return f"remote {address}"
        case NoSuchUser():
            return "no such user"
        case Misconfigured(_, why):
            return f"misconfigured: {why}"
        case Unknown(_, why):
            return f"unknown: {why}"

"""Which room may import which: the table of docs/architecture.md, held against every import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "restante"

VOCABULARY = {"address", "address_syntax", "envelope", "errors", "labels", "network"} | {
    "records",
    "status",
}
EVERYTHING = {"*"}
RULES: dict[str, set[str]] = {
    "": set(),
    "__main__": {"cli"},
    "errors": set(),
    "records": set(),
    "status": {"records"},
    "address_syntax": set(),
    "address": {"address_syntax", "errors", "labels", "records"},
    "envelope": {"address", "labels", "status", "errors", "records"},
    "labels": {"address_syntax"},
    "network": set(),
    "completion": {"address_syntax", "labels"},
    "drop": set(),
    "interfaces": set(),
    "processors": set(),
    "btrfs": set(),
    "crowds": set(),
    "keyfile": set(),
    "unix_socket": set(),
    "threads": VOCABULARY,
    "checkpassword": VOCABULARY
    | {"config", "maillog", "logsetup", "drop", "auth", "directory", "guessing", "tally"}
    | {"unix_socket"},
    "sendmail": VOCABULARY | {"completion", "drop", "protocol", "cli"},
    "config": VOCABULARY,
    "metrics": VOCABULARY | {"btrfs", "threads"},
    "eventlog": set(),
    "mounts": set(),
    "paths": set(),
    "maillog": VOCABULARY | {"eventlog", "metrics.contract"},
    "logsetup": VOCABULARY | {"config", "eventlog", "paths"},
    "protocol": {"address", "envelope", "records", "status"},
    "directory": VOCABULARY | {"config", "crowds", "maillog", "mounts", "rights", "tls"},
    "rights": VOCABULARY | {"directory.contract"},
    "routing": VOCABULARY | {"config", "directory.contract"},
    "auth": VOCABULARY
    | {"config", "keyfile", "maillog", "processors", "threads"}
    | {"directory.contract", "guessing.contract"},
    "tally": VOCABULARY | {"btrfs", "threads"},
    "usage": VOCABULARY | {"maillog", "tally"},
    "guessing": VOCABULARY | {"config", "keyfile", "maillog", "tally"},
    "spool": VOCABULARY | {"threads"},
    "mda": VOCABULARY
    | {"btrfs", "config", "crowds", "maillog", "processors", "threads", "directory.contract"},
    "queue": VOCABULARY | {"btrfs", "maillog", "threads", "unix_socket"},
    "dsn": VOCABULARY | {"config", "queue.contract"},
    "store": VOCABULARY | {"rights", "directory.contract"},
    "helper": VOCABULARY
    | {"config", "eventlog", "maillog", "mda", "mounts", "store", "directory", "threads"},
    "relay": VOCABULARY
    | {"config", "interfaces", "maillog", "protocol", "queue.contract", "threads", "tls_stream"},
    "courier": VOCABULARY
    | {"routing"}
    | {"directory.contract", "mda.contract", "queue.contract", "relay.contract"},
    "receiver": VOCABULARY
    | {"config", "interfaces", "maillog", "routing", "spool", "courier", "completion"}
    | {"directory.contract", "mda.contract", "queue.contract", "usage.contract"},
    "tls": VOCABULARY | {"config", "maillog"},
    "tls_stream": set(),
    "pickup": VOCABULARY
    | {"config", "maillog", "drop", "protocol", "spool", "threads", "queue.contract"},
    "net": VOCABULARY
    | {"config", "maillog", "protocol", "receiver", "spool", "tls_stream"}
    | {"auth.contract", "directory.contract", "store.contract", "tls.contract"},
    "service": EVERYTHING,
    "cli": EVERYTHING,
}
"""Room to the rooms it may import; ``x.contract`` is what x/__init__.py itself says."""


def imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Absolute names of all that a module imports, wherever in it the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package=is_package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _absolute(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    parts = module.split(".")
    kept = len(parts) - node.level + is_package
    start = parts[:kept] if node.level else []
    return ".".join([*start, node.module] if node.module else start)


def room_of(package: Path, name: str) -> str | None:
    """The room that an absolute name belongs to; ``.contract`` if nothing deeper is meant."""
    parts = name.split(".")
    if parts[0] != package.name or len(parts) == 1:
        return None
    room, rest = parts[1], parts[2:]
    if not (package / room).is_dir():
        return room if (package / f"{room}.py").exists() else None
    deeper = rest and any(
        (package / room / rest[0]).with_suffix(end).exists() for end in ("", ".py")
    )
    return room if deeper else f"{room}.contract"


def allowed(room: str, wanted: str, rules: dict[str, set[str]]) -> bool:
    whole = wanted.removesuffix(".contract")
    return whole == room or not {"*", whole, wanted}.isdisjoint(rules[room])


def modules(package: Path) -> Iterator[tuple[str, str, list[str]]]:
    """The room, the name and the imports of every module."""
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        room = module.partition(".")[2].partition(".")[0]
        tree = ast.parse(path.read_text(), str(path))
        yield room, module, list(imports(tree, module, is_package=is_package))


def violations(package: Path, rules: dict[str, set[str]]) -> list[str]:
    """One line for every import against the rules, and for every room without one."""
    found = []
    for room, module, names in modules(package):
        if room not in rules:
            found.append(f"{module}: the room {room} has no rule")
            continue
        for name in names:
            wanted = room_of(package, name)
            if wanted is not None and not allowed(room, wanted, rules):
                found.append(f"{module} imports {name}")
    return found


def idle(package: Path, rules: dict[str, set[str]]) -> list[str]:
    """One line for everything beyond the vocabulary that a room may import and never does."""
    wants: dict[str, set[str]] = {room: set() for room in rules}
    for room, _, names in modules(package):
        for wanted in filter(None, (room_of(package, name) for name in names)):
            wants[room] |= {wanted, wanted.removesuffix(".contract")}
    return [
        f"{room} never imports {each}"
        for room, may in rules.items()
        for each in sorted(may - VOCABULARY - EVERYTHING - wants[room])
    ]


def test_every_import_follows_the_rules() -> None:
    assert violations(PACKAGE, RULES) == []


def test_no_rule_is_idle() -> None:
    """What nobody needs would let a circle be closed unseen."""
    assert idle(PACKAGE, RULES) == []


def test_rules_name_rooms_only() -> None:
    named = {wanted.removesuffix(".contract") for wants in RULES.values() for wanted in wants}
    assert named - {"*"} <= set(RULES)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package with a shed and a kitchen."""
    package = tmp_path / "house"
    for name in ("kitchen", "shed"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("NAME = 1\n")
    (package / "__init__.py").touch()
    (package / "shed" / "tools.py").write_text("")
    (package / "words.py").write_text("")
    return package


HOUSE_RULES: dict[str, set[str]] = {
    "": set(),
    "kitchen": {"shed.contract"},
    "shed": set(),
    "words": set(),
}


@pytest.mark.parametrize(
    "statement",
    [
        "from house.shed import NAME",
        "from house import shed",
        "import os.path",
        "from house.kitchen import NAME",
        "from . import NAME",
        "from .. import shed",
    ],
)
def test_legal_imports(house: Path, statement: str) -> None:
    (house / "kitchen" / "stove.py").write_text(statement)
    assert violations(house, HOUSE_RULES) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import house.words",
        "from house.words import x",
        "from house import words",
        "from house.shed import tools",
        "from house.shed.tools import hammer",
        "import house.shed.tools",
        "from ..shed import tools",
        "from ..words import x",
        "def f():\n    from house import words",
        "if TYPE_CHECKING:\n    import house.words",
    ],
)
def test_illegal_imports(house: Path, statement: str) -> None:
    (house / "kitchen" / "stove.py").write_text(statement)
    assert len(violations(house, HOUSE_RULES)) == 1


def test_room_without_a_rule(house: Path) -> None:
    (house / "cellar.py").touch()
    assert violations(house, HOUSE_RULES) == ["house.cellar: the room cellar has no rule"]


def test_an_idle_rule(house: Path) -> None:
    (house / "kitchen" / "stove.py").write_text("from house.shed import tools")
    rules = HOUSE_RULES | {"kitchen": {"shed", "words"}, "shed": {"kitchen.contract"}}
    assert idle(house, rules) == [
        "kitchen never imports words",
        "shed never imports kitchen.contract",
    ]

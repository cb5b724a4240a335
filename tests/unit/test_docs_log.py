"""docs/log.md and the code tell of the same events, levels, fields and metrics."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from restante import maillog
from restante.config.listeners import LISTENERS
from restante.metrics.prometheus import PrometheusMeter
from restante.protocol.pop3.events import CloseReason as Pop3Reason
from restante.protocol.smtp.events import CloseReason as SmtpReason

PAGE = Path(__file__).parents[2] / "docs" / "log.md"
WITHOUT_FUNCTION = {"log_lost"}
"""Written by the log itself."""
NOT_EVENTS = {"measure_with"}


@dataclass(frozen=True, slots=True)
class Event:
    """What a line of the log is made of."""

    function: str
    name: str
    level: str
    fields: tuple[str, ...]


def calls_of(function: ast.FunctionDef) -> Iterator[tuple[str, ast.Call]]:
    """Calls of the log's methods, with the level that each stands for."""
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="_log"), attr=level)):
                yield level, node


def read_event(function: ast.FunctionDef) -> Event:
    ((level, call),) = calls_of(function)
    (name,) = call.args
    assert isinstance(name, ast.Constant)
    fields: list[str] = []
    for keyword in call.keywords:
        assert keyword.arg is not None
        fields += ["error", "trace"] if keyword.arg == "exc_info" else [keyword.arg]
    return Event(function.name, str(name.value), level, tuple(fields))


def is_event(name: str) -> bool:
    return name not in NOT_EVENTS and not name.startswith("_")


def logged() -> dict[str, Event]:
    body = ast.parse(inspect.getsource(maillog)).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    events = [read_event(node) for node in functions if is_event(node.name)]
    return {event.name: event for event in events}


def sections() -> dict[str, tuple[str, str]]:
    """Level and text of every documented event."""
    found = re.split(r"^### `(\w+)` \((\w+)\)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    names, levels, texts = found[::3], found[1::3], found[2::3]
    assert len(set(names)) == len(names)
    ends = [re.split(r"^## ", text, flags=re.MULTILINE)[0] for text in texts]
    return dict(zip(names, zip(levels, ends, strict=True), strict=True))


EVENTS = logged()
DOCUMENTED = sections()


def test_every_event_is_documented_and_no_other() -> None:
    assert set(DOCUMENTED) - WITHOUT_FUNCTION == set(EVENTS)


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_function_is_named_for_its_event_and_says_what_it_means(event: Event) -> None:
    assert event.function == event.name
    assert inspect.getdoc(getattr(maillog, event.function))


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_level_and_fields(event: Event) -> None:
    level, text = DOCUMENTED[event.name]
    table = re.findall(r"^\| `(\w+)` \| \S.* \|$", text, flags=re.MULTILINE)
    assert level == event.level
    assert tuple(table) == event.fields


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_example_line(event: Event) -> None:
    level, text = DOCUMENTED[event.name]
    (line,) = re.findall(r"^```\n(.*)\n```$", text, flags=re.MULTILINE)
    pairs = [pair.partition("=") for pair in shlex.split(line)]
    assert [key for key, _, _ in pairs] == ["ts", "level", "event", *event.fields]
    assert [value for _, _, value in pairs][1:3] == [level, event.name]


def test_every_reason_why_a_session_ended_is_told() -> None:
    _, text = DOCUMENTED["session_closed"]
    reasons = {str(each.value) for kind in (SmtpReason, Pop3Reason) for each in kind}
    assert {reason for reason in reasons if f"`{reason}`" not in text} == set()


def test_every_service_that_listens_is_told() -> None:
    _, text = DOCUMENTED["listening"]
    names = {each.name for each in LISTENERS}
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_labels_of_metrics() -> None:
    source = inspect.getsource(PrometheusMeter)
    made = re.findall(r'(?:counter|histogram)\(\s*"(\w+)",\s*"[^"]*"((?:,\s*"\w+")*)', source)
    table = re.findall(r"(?m)^\| `restante_(\w+?)(?:_total)?` \| \w+ \|([^|]*)\|", PAGE.read_text())
    told = {name: re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cell)) for name, cell in table}
    for name, labels in made:
        assert told[name] == re.findall(r'"(\w+)"', labels), name


def test_every_metric_is_documented_and_no_other() -> None:
    source = inspect.getsource(PrometheusMeter)
    counters = re.findall(r'counter\(\s*"(\w+)"', source)
    histograms = re.findall(r'histogram\(\s*"(\w+)"', source)
    gauges = re.findall(r'Gauge\(\s*"restante_(\w+)"', source)
    named = {f"restante_{name}_total" for name in counters}
    named |= {f"restante_{name}" for name in histograms + gauges}
    table = re.findall(r"^\| `(restante_\w+)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert set(table) == named

"""A domain in its two forms: what both are, and what has only one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.labels import (
    MAX_FORMS,
    forms,
    in_a_labels,
    in_own_form,
    name_forms,
    name_in_a_labels,
    name_in_ascii,
)

U_LABELS, A_LABELS = "müller.example", "xn--mller-kva.example"


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (U_LABELS, [U_LABELS, A_LABELS]),
        (A_LABELS, [A_LABELS, U_LABELS]),
        ("Über.test", ["Über.test", "xn--ber-goa.test", "über.test"]),
        ("mu\u0308ller.example", ["mu\u0308ller.example", A_LABELS, U_LABELS]),
        ("straße.test", ["straße.test", "xn--strae-oqa.test"]),
        (
            "xn--mller-kva.бюро.test",
            ["xn--mller-kva.бюро.test", "xn--mller-kva.xn--90a0af9c.test", "müller.бюро.test"],
        ),
        (f".{U_LABELS}", [f".{U_LABELS}", f".{A_LABELS}"]),
        ("a_b.müller.example", ["a_b.müller.example", "a_b.xn--mller-kva.example"]),
    ],
)
def test_forms(domain: str, expected: list[str]) -> None:
    assert list(forms(domain)) == expected
    assert in_a_labels(domain) == next(each for each in expected if each.isascii())


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "example.com",
        "xn--a.test",
        "xn--zz--.test",
        "xn--",
        "xn--ls8h.la",
        "💩.la",
        "[é]",
        "é" * 64 + ".test",
        ".".join(["müller"] * 60),
        "\ud800.test",
        "xn--\ud800.test",
        "example\u3002.test",
        "example.test\u3002",
        "xn--mller-kva\u3002",
    ],
)
def test_what_is_no_domain_of_idna_is_only_itself(domain: str) -> None:
    assert forms(domain) == (domain,)
    assert in_a_labels(domain) == domain


def test_names() -> None:
    assert name_forms(f"é@{U_LABELS}") == (f"é@{U_LABELS}", f"é@{A_LABELS}")
    assert name_forms(f"@{A_LABELS}") == (f"@{A_LABELS}", f"@{U_LABELS}")
    assert name_in_a_labels(f"é@{U_LABELS}") == f"é@{A_LABELS}"
    assert name_in_ascii(f'"a b"@{U_LABELS}') == f'"a b"@{A_LABELS}'
    assert name_in_ascii(f"é@{U_LABELS}") == f"é@{U_LABELS}"
    for name in ("ann", "é", "xn--mller-kva", "ann@example.com"):
        assert name_forms(name) == (name,)
        assert name_in_a_labels(name) == name


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("ÜBER.test", "über.test"),
        ("mu\u0308ller.example", U_LABELS),
        ("xn--mller-kva.бюро.test", "müller.бюро.test"),
        ("example\u3002test", "example.test"),
        ("xn--mller-kva\u3002example", U_LABELS),
        *(
            (each, each)
            for each in (U_LABELS, A_LABELS, "straße.test", "a_b.é.test", "💩.la", "[é]")
        ),
    ],
)
def test_the_form_that_a_row_needs(domain: str, expected: str) -> None:
    assert in_own_form(domain) == expected


@given(st.text(st.sampled_from("xn-.aeéü\u0308日ß。💩@\ud800"), max_size=80))
def test_any_text_has_bounded_forms(text: str) -> None:
    """Invariant: the text itself first, each form once, never an exception."""
    found = forms(text)
    assert found[0] == text
    assert len(found) == len(set(found)) <= MAX_FORMS
    assert name_forms(text)[0] == text
    assert in_own_form(text) in forms(in_a_labels(text))


IMPORTS = """
import sys
from contextlib import nullcontext
from restante import labels
from restante.config import Settings
from restante.relay import names
from restante.service.preload import preload

preload(Settings("/nowhere"), nullcontext())
before = set(sys.modules)
labels.forms("müller.example")
labels.forms("xn--mller-kva.example")
names.to_ascii("BÜCHER.example")
print(*sorted(set(sys.modules) - before))
"""


def test_workers_import_nothing_for_it() -> None:
    """Python may be installed where they may not read: all is there before the fork."""
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, check=True)
    assert done.stdout.split() == []

"""SASL PLAIN and LOGIN: what is well-formed gives credentials, what is not a clean failure."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restante.config.tree import MECHANISMS, Auth
from restante.protocol import sasl
from restante.protocol.sasl import Challenge, SaslCredentials, SaslFailure

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=99)


def _exchange(name: str) -> sasl.Exchange:
    exchange = sasl.exchange(name, sasl.DEFAULT_MECHANISMS, sasl.NO_BINDINGS)
    assert exchange is not None
    return exchange


def _plain(message: bytes) -> sasl.Step:
    return _exchange("PLAIN").start(base64.b64encode(message))


@settings(deadline=None)
@given(texts, texts)
def test_plain_gives_what_was_sent(login: str, password: str) -> None:
    credentials = SaslCredentials(login, password)
    assert _plain(f"\0{login}\0{password}".encode()) == credentials
    assert _plain(f"{login}\0{login}\0{password}".encode()) == credentials


@settings(deadline=None)
@given(texts, texts)
def test_login_gives_what_was_sent(login: str, password: str) -> None:
    exchange = _exchange("login")
    assert exchange.start(None) == Challenge(base64.b64encode(b"Username:"))
    step = exchange.respond(base64.b64encode(login.encode()))
    assert step == Challenge(base64.b64encode(b"Password:"))
    step = exchange.respond(base64.b64encode(password.encode()))
    assert step == SaslCredentials(login, password)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"", "that is not a PLAIN message"),
        (b"iain", "that is not a PLAIN message"),
        (b"\0iain", "that is not a PLAIN message"),
        (b"\0iain\0se\0cret", "that is not a PLAIN message"),
        (b"\0\0secret", "the name or the password is empty"),
        (b"\0iain\0", "the name or the password is empty"),
        (b"root\0iain\0secret", "nobody may act for somebody else"),
        (b"\0iain\0\xff", "the name or the password is not UTF-8"),
        (b"\0" + b"i" * 1021 + b"\0secret", "the name or the password is too long"),
    ],
)
def test_plain_refuses(message: bytes, text: str) -> None:
    assert _plain(message) == SaslFailure(text)


def test_login_refuses_a_nul() -> None:
    exchange = _exchange("LOGIN")
    exchange.start(base64.b64encode(b"ia\0in"))
    step = exchange.respond(base64.b64encode(b"secret"))
    assert step == SaslFailure("the name or the password holds a NUL")


@pytest.mark.parametrize("line", [b"AAA", b"A===", b"AG lh", b"\xff\xff", b"AA==AA=="])
def test_what_is_not_base64_is_refused(line: bytes) -> None:
    assert isinstance(_exchange("PLAIN").start(line), SaslFailure)


def test_an_exchange_can_be_cancelled() -> None:
    exchange = _exchange("PLAIN")
    assert exchange.start(None) == Challenge(b"")
    step = exchange.respond(b"*")
    assert isinstance(step, SaslFailure)
    assert step.cancelled


def test_other_mechanisms_are_not_offered() -> None:
    assert sasl.DEFAULT_MECHANISMS == ("PLAIN", "LOGIN")
    assert sasl.exchange("CRAM-MD5", sasl.MECHANISMS, {"tls-unique": b"x"}) is None
    assert sasl.exchange("PLAIN", ("LOGIN",), sasl.NO_BINDINGS) is None
    assert sasl.exchange("SCRAM-SHA-256-PLUS", sasl.MECHANISMS, sasl.NO_BINDINGS) is None


def test_the_settings_name_the_mechanisms() -> None:
    assert sasl.MECHANISMS == MECHANISMS
    assert Auth().mechanisms == sasl.DEFAULT_MECHANISMS


def test_a_password_is_not_printed() -> None:
    assert "secret" not in repr(SaslCredentials("iain", "secret"))

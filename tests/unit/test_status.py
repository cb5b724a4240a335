"""Replies: one class for both codes, and lines that fit."""

from __future__ import annotations

import pytest

from restante.status import MAX_CHALLENGE_LINE, MAX_REPLY_LINE, Peer, Reply


def test_the_class_is_said_once() -> None:
    reply = Reply(550, "1.1", "no such user")
    assert reply.enhanced == "5.1.1"
    assert reply.encode() == b"550 5.1.1 no such user\r\n"
    assert str(reply) == "550 5.1.1 no such user"


def test_a_reply_without_enhanced_status() -> None:
    assert Reply(354, "", "go on").encode() == b"354 go on\r\n"


def test_several_lines() -> None:
    reply = Reply(250, "0.0", "one\ntwo")
    assert reply.encode() == b"250-2.0.0 one\r\n250 2.0.0 two\r\n"
    assert str(reply) == "250 2.0.0 one / two"


@pytest.mark.parametrize("text", ["x" * 2000, "ü" * 2000, "a" + "ü" * 2000])
def test_long_lines_are_cut_between_characters(text: str) -> None:
    wire = Reply(450, "2.1", text).encode()
    assert len(wire) <= MAX_REPLY_LINE
    assert len(wire) >= MAX_REPLY_LINE - 1
    wire.decode("utf-8")


def test_a_challenge_has_more_room() -> None:
    line = "x" * (MAX_CHALLENGE_LINE - len("334 \r\n"))
    assert Reply(334, "", line).encode() == f"334 {line}\r\n".encode()
    assert Reply(334, "", "").encode() == b"334 \r\n"


@pytest.mark.parametrize(
    ("code", "success", "temporary"),
    [(250, True, False), (354, True, False), (451, False, True), (550, False, False)],
)
def test_classes(code: int, success: bool, temporary: bool) -> None:
    reply = Reply(code, "0.0", "")
    assert (reply.is_success, reply.is_temporary) == (success, temporary)


@pytest.mark.parametrize(
    ("host", "address", "place"),
    [
        ("mx.example.net", "192.0.2.1", "mx.example.net [192.0.2.1]"),
        ("mx.example.net", "", "mx.example.net"),
        ("[192.0.2.1]", "192.0.2.1", "[192.0.2.1]"),
        ("[192.0.2.1]", "192.0.2.1:2525", "[192.0.2.1:2525]"),
        ("[2001:db8::1]", "2001:db8::1", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]:2525", "[2001:db8::1]:2525"),
        ("mx.example.net", "[2001:db8::1]:2525", "mx.example.net [2001:db8::1]:2525"),
        ("[192.0.2.1]", "", "[192.0.2.1]"),
    ],
)
def test_another_host_is_named_once(host: str, address: str, place: str) -> None:
    assert Peer(host, address, "connect").place == place

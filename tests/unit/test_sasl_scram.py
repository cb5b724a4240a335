"""SCRAM's messages: the example of RFC 7677, any name and password, and what is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.auth.saslprep import NotPrepared, saslprep
from restante.auth.scram import Offer, offer
from restante.directory import Account, Credentials
from restante.protocol import sasl
from restante.protocol.sasl import (
    Bindings,
    Challenge,
    SaslFailure,
    ScramBegun,
    ScramDone,
    ScramExchange,
    ScramProof,
)
from restante.protocol.sasl.scram import MAX_NONCE, Circumstances
from tests.support.scram import ScramClient, b64

SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
UNIQUE = {"tls-unique": b"the connection"}


def exchange(mechanism: str = sasl.SCRAM, bindings: Bindings = sasl.NO_BINDINGS) -> ScramExchange:
    circumstances = Circumstances(bindings, offers_plus=bool(bindings))
    return ScramExchange(mechanism, circumstances, lambda: SERVER_NONCE)


def unpacked(challenge: object) -> bytes:
    assert isinstance(challenge, Challenge)
    return base64.b64decode(challenge.line)


def test_example_of_rfc_7677() -> None:
    held = exchange()
    assert held.start(b64(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")) == ScramBegun("user")
    assert unpacked(held.salted(SALT, 4096)) == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    proof = held.respond(b64(final))
    assert isinstance(proof, ScramProof)
    signature = Offer(SALT, 4096, None, "pencil").check(proof.message, proof.proof)
    assert signature is not None
    answer = unpacked(held.proved(signature))
    assert answer == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert held.respond(b"") == ScramDone()


def preparable(text: str) -> bool:
    try:
        return bool(saslprep(text))
    except NotPrepared:
        return False


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(preparable)


@given(texts, texts, st.booleans())
def test_whoever_knows_the_password_proves_it(login: str, password: str, is_bound: bool) -> None:
    bindings = UNIQUE if is_bound else sasl.NO_BINDINGS
    flag, octets = ("p=tls-unique", UNIQUE["tls-unique"]) if is_bound else ("y", b"")
    client = ScramClient(login, password, flag, octets, authzid=login)
    held = exchange(sasl.SCRAM_PLUS if is_bound else sasl.SCRAM, bindings)
    assert held.start(None) == Challenge(b"")
    assert held.respond(b64(client.first())) == ScramBegun(saslprep(login))
    stored = offer(
        Credentials(Account("x", 1, 1, "/"), "{PLAIN}" + password, None), login, b"secret"
    )
    final = client.final(unpacked(held.salted(stored.salt, stored.iterations)))
    proof = held.respond(b64(final))
    assert isinstance(proof, ScramProof)
    signature = stored.check(proof.message, proof.proof)
    assert signature is not None
    assert client.trusts(unpacked(held.proved(signature)))
    wrong = bytes([proof.proof[0] ^ 1]) + proof.proof[1:]
    assert stored.check(proof.message, wrong) is None
    assert stored.check(proof.message + b"x", proof.proof) is None


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"", "that is not the first message of SCRAM"),
        (b"n,,n=user", "that is not the first message of SCRAM"),
        (b"n,,r=nonce,n=user", "that is not the first message of SCRAM"),
        (b"n,,n=user,r=", "that is not the first message of SCRAM"),
        (b"n,,n=user,r=n\x7fonce", "that is not the first message of SCRAM"),
        (b"n,,m=more,n=user,r=nonce", "that is not the first message of SCRAM"),
        (b"x,,n=user,r=nonce", "that is not the first message of SCRAM"),
        (b"n,user,n=user,r=nonce", "that is not the first message of SCRAM"),
        (b"n,,n=user,r=" + b"n" * (MAX_NONCE + 1), "the nonce is too long"),
        (b"n,,n=,r=nonce", "the name is empty"),
        (b"n,,n=us=er,r=nonce", "the name holds an equals sign that stands for nothing"),
        (b"n,,n=us=2c,r=nonce", "the name holds an equals sign that stands for nothing"),
        (b"n,,n=user=,r=nonce", "the name holds an equals sign that stands for nothing"),
        (b"n,,n=us\0er,r=nonce", "the name or the password holds a NUL"),
        (b"n,,n=us\xff,r=nonce", "the name or the password is not UTF-8"),
        (b"n,,n=" + b"u" * 1021 + b",r=nonce", "the name or the password is too long"),
        (b"n,a=root,n=user,r=nonce", "nobody may act for somebody else"),
        (b"p=tls-unique,,n=user,r=nonce", "the mechanism and its channel binding do not fit"),
    ],
)
def test_first_message_that_is_refused(message: bytes, text: str) -> None:
    assert exchange().start(b64(message)) == SaslFailure(text)


@pytest.mark.parametrize(
    "message",
    [
        b"n,,n=user,r=nonce",
        b"y,,n=user,r=nonce",
        b"n,a=,n=user,r=nonce",
        b"n,a=user,n=user,r=nonce",
        b"n,,n=user,r=n+-=o~!nce,x=an extension,y=",
    ],
)
def test_first_message_that_is_taken(message: bytes) -> None:
    assert exchange().start(b64(message)) == ScramBegun("user")


def test_name_with_a_comma() -> None:
    assert exchange().start(b64(b"n,,n=a=2Cb=3D2C,r=nonce")) == ScramBegun("a,b=2C")


def test_client_that_was_told_of_no_channel_binding_is_warned() -> None:
    """Somebody in between removed the mechanism (RFC 5802 §6)."""
    step = exchange(bindings=UNIQUE).start(b64(b"y,,n=user,r=nonce"))
    assert step == SaslFailure("this server does support channel binding")
    assert exchange(bindings=UNIQUE).start(b64(b"n,,n=user,r=nonce")) == ScramBegun("user")


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (b"n,,n=user,r=nonce", "the mechanism and its channel binding do not fit"),
        (b"p=tls-exporter,,n=user,r=nonce", "no such channel binding"),
    ],
)
def test_plus_needs_a_binding_that_is_there(first: bytes, text: str) -> None:
    assert exchange(sasl.SCRAM_PLUS, UNIQUE).start(b64(first)) == SaslFailure(text)


def test_binding_of_another_connection_is_refused() -> None:
    client = ScramClient("user", "pencil", "p=tls-unique", b"another connection")
    held = exchange(sasl.SCRAM_PLUS, UNIQUE)
    held.start(b64(client.first()))
    final = client.final(unpacked(held.salted(SALT, 4096)))
    assert held.respond(b64(final)) == SaslFailure("the channel bindings do not match")


PROOF = base64.b64encode(bytes(32))
NONCE = b"nonce" + SERVER_NONCE.encode()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"", "that is not the final message of SCRAM"),
        (b"c=biws,r=" + NONCE, "that is not the final message of SCRAM"),
        (b"r=" + NONCE + b",c=biws,p=" + PROOF, "that is not the final message of SCRAM"),
        (b"c=eSws,r=" + NONCE + b",p=" + PROOF, "the channel bindings do not match"),
        (b"c=biw,r=" + NONCE + b",p=" + PROOF, "a part of the message is not base64"),
        (b"c=biws,r=" + NONCE + b"x,p=" + PROOF, "that is not the nonce"),
        (b"c=biws,r=nonce,p=" + PROOF, "that is not the nonce"),
        (b"c=biws,r=" + NONCE + b",p=AAAA", "the proof has a wrong length"),
        (b"c=biws,r=" + NONCE + b",p=A", "a part of the message is not base64"),
    ],
)
def test_final_message_that_is_refused(message: bytes, text: str) -> None:
    held = exchange()
    held.start(b64(b"n,,n=user,r=nonce"))
    held.salted(SALT, 4096)
    assert held.respond(b64(message)) == SaslFailure(text)


def test_final_message_with_an_extension() -> None:
    held = exchange()
    held.start(b64(b"n,,n=user,r=nonce"))
    held.salted(SALT, 4096)
    step = held.respond(b64(b"c=biws,r=" + NONCE + b",x=more,p=" + PROOF))
    assert isinstance(step, ScramProof)
    assert step.message.endswith(b",x=more")


def test_nothing_may_follow_and_all_can_be_cancelled() -> None:
    for line, text in ((b"AAAA", "nothing is left to be said"), (b"A", "that is not base64")):
        held = exchange()
        held.start(b64(b"n,,n=user,r=nonce"))
        held.salted(SALT, 4096)
        held.respond(b64(b"c=biws,r=" + NONCE + b",p=" + PROOF))
        held.proved(bytes(32))
        assert held.respond(line) == SaslFailure(text)
    held = exchange()
    assert held.start(b"=") == SaslFailure("that is not the first message of SCRAM")
    held.start(b64(b"n,,n=user,r=nonce"))
    held.salted(SALT, 4096)
    step = held.respond(b"*")
    assert isinstance(step, SaslFailure)
    assert step.cancelled


def test_nonces_differ() -> None:
    nonces = set()
    for _ in range(10):
        held = ScramExchange(sasl.SCRAM, Circumstances(sasl.NO_BINDINGS, offers_plus=False))
        held.start(b64(b"n,,n=user,r=nonce"))
        nonces.add(unpacked(held.salted(SALT, 4096)).split(b",")[0])
    assert len(nonces) == 10
    assert all(len(nonce) >= len(b"r=nonce") + 24 for nonce in nonces)


@given(st.binary(max_size=200), st.booleans())
def test_any_octets_give_a_step(message: bytes, is_final: bool) -> None:
    """Whatever a client sends is answered, and never by an exception."""
    held = exchange()
    if is_final:
        held.start(b64(b"n,,n=user,r=nonce"))
        held.salted(SALT, 4096)
    assert isinstance(held.respond(b64(message)), SaslFailure | ScramBegun | ScramProof)

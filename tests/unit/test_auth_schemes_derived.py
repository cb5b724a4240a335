"""MD5's states, SCRAM's keys and SASLprep, against hashlib and the RFCs' own examples."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.auth.saslprep import NotPrepared, saslprep
from restante.auth.schemes import UnknownScheme, is_current, scram_source, verify
from restante.auth.schemes.derived import ScramKeys, make_scram
from restante.auth.schemes.digests import DIGESTS
from restante.auth.schemes.md5 import BLOCK, START, State, compress, octets


def md5_from(state: State, before: int, message: bytes) -> bytes:
    """The digest of ``message`` after ``before`` octets that led to ``state``."""
    bits = (8 * (before + len(message))).to_bytes(8, "little")
    padded = message + b"\x80" + bytes(-(len(message) + 9) % BLOCK) + bits
    for start in range(0, len(padded), BLOCK):
        state = compress(state, padded[start : start + BLOCK])
    return octets(state)


@given(st.binary(max_size=300))
def test_compression_makes_md5(message: bytes) -> None:
    assert md5_from(START, 0, message) == hashlib.md5(message).digest()


def test_cram_md5_answers_the_challenge_of_rfc_2195() -> None:
    # RFC 2195 §2: tim, whose password is tanstaaftanstaaf
    stored = bytes.fromhex(CRAM_MD5)
    outer, inner = (
        tuple(int.from_bytes(half[at : at + 4], "little") for at in range(0, 16, 4))
        for half in (stored[:16], stored[16:])
    )
    assert len(outer) == len(inner) == 4
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    within = md5_from(inner, BLOCK, challenge)
    answer = md5_from(outer, BLOCK, within)
    assert answer.hex() == "b913a602c7eda7a495b4e6e7334d3890"
    assert verify("tanstaaftanstaaf", "{CRAM-MD5}" + CRAM_MD5, None)
    assert not verify("tanstaaftanstaag", "{CRAM-MD5}" + CRAM_MD5, None)


# doveadm pw -s CRAM-MD5 -p tanstaaftanstaaf
CRAM_MD5 = "d06d4e1b26fccaa4b0b61801132340a354b21152711fb604ca3e035e7015116b"

LONG = "0123456789" * 10
CRAM_MD5_LONG = "02d5d9f76f5960d8334deb0bd68f69df149548aab322f164c1e133dad07b2e40"


def test_long_password_of_cram_md5_is_hashed_first() -> None:
    assert verify(LONG, "{CRAM-MD5.hex}" + CRAM_MD5_LONG, None)
    assert verify(
        LONG, "{cram-md5.b64}" + base64.b64encode(bytes.fromhex(CRAM_MD5_LONG)).decode(), None
    )


# The examples of RFC 5802 §5 and RFC 7677 §3: user "user", password "pencil"
EXAMPLES = [
    (
        "sha1",
        "QSXCR+Q6sek8bf92",
        (
            b"n=user"
            b",r=fyko+d2lbbFgONRv9qkxdawL"
            b",r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j"
            b",s=QSXCR+Q6sek8bf92,i=4096,c=biws"
            b",r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j"
        ),
        "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (
        "sha256",
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        (
            b"n=user"
            b",r=rOprNGfwEbeRWgbNEkqO"
            b",r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
            b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws"
            b",r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        ),
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]


@pytest.mark.parametrize(("algorithm", "salt", "message", "proof", "signature"), EXAMPLES)
def test_keys_of_the_rfcs(
    algorithm: str, salt: str, message: bytes, proof: str, signature: str
) -> None:
    keys = make_scram(algorithm, b"pencil", base64.b64decode(salt), 4096)
    assert base64.b64encode(hmac.digest(keys.server_key, message, algorithm)).decode() == signature
    masked = hmac.digest(keys.stored_key, message, algorithm)
    client_key = bytes(
        one ^ other for one, other in zip(base64.b64decode(proof), masked, strict=True)
    )
    assert hashlib.new(algorithm, client_key).digest() == keys.stored_key
    name = {"sha1": "SCRAM-SHA-1", "sha256": "SCRAM-SHA-256"}[algorithm]
    assert verify("pencil", f"{{{name}}}{written(keys)}", None)
    assert not verify("Pencil", f"{{{name}}}{written(keys)}", None)


def written(keys: ScramKeys) -> str:
    """As Dovecot stores keys."""
    parts = (keys.salt, keys.stored_key, keys.server_key)
    return ",".join([str(keys.iterations), *(base64.b64encode(part).decode() for part in parts)])


def test_keys_of_a_password_that_was_prepared_and_of_one_that_was_not() -> None:
    for made_from in ("I\xadX", "IX"):
        keys = make_scram("sha256", made_from.encode(), b"salt", 1)
        assert verify("I\xadX", "{SCRAM-SHA-256}" + written(keys), None)


def test_a_password_of_which_preparing_leaves_nothing_is_not_the_empty_one() -> None:
    keys = make_scram("sha256", b"", b"salt", 1)
    assert not verify("\xad", "{SCRAM-SHA-256}" + written(keys), None)


def test_what_scram_can_be_done_with() -> None:
    keys = make_scram("sha256", b"pencil", b"salt", 1)
    assert scram_source("{SCRAM-SHA-256}" + written(keys), None) == keys
    assert scram_source("{PLAIN}pencil", None) == "pencil"
    assert scram_source("{clear.hex}70656e63696c", None) == "pencil"
    assert scram_source("pencil", "Password") == "pencil"
    for stored in (None, "", "*" + "0" * 40, "{SHA}" + "0" * 40, "{PLAIN}"):
        assert not scram_source(stored, None)
    for locked in ("{SCRAM-SHA-256}", "{SCRAM-SHA-256}!", "{SCRAM-SHA-256.HEX}"):
        assert scram_source(locked, None) is None
    with pytest.raises(UnknownScheme):
        scram_source("{ROT13}x", None)
    with pytest.raises(UnknownScheme):
        scram_source("{SCRAM-SHA-256}x", None)


def test_keys_are_not_printed() -> None:
    assert "b'" not in repr(make_scram("sha256", b"pencil", b"salt", 1))


TAIL = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"


@pytest.mark.parametrize(
    ("stored", "current"),
    [
        ("{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4" + TAIL, True),
        ("{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1" + TAIL, True),
        ("$argon2id$v=19$m=131072,t=2,p=1" + TAIL, True),
        ("{ARGON2ID}$argon2id$v=19$m=65536,t=2,p=4" + TAIL, False),
        ("{ARGON2ID}$argon2id$v=19$m=32768,t=9,p=4" + TAIL, False),
        ("{ARGON2ID}$argon2id$m=65536,t=3,p=4" + TAIL, False),
        ("{ARGON2I}$argon2i$v=19$m=65536,t=3,p=4" + TAIL, False),
        ("{PLAIN}x", False),
        ("", False),
    ],
)
def test_what_needs_no_better_hash(stored: str, current: bool) -> None:
    assert is_current(stored) is current


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013 §3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
        ("", ""),
    ],
)
def test_saslprep(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031", "\u0627a\u0628", "\ue000", "\u0221"])
def test_what_saslprep_prohibits(text: str) -> None:
    with pytest.raises(NotPrepared):
        saslprep(text)


@given(st.text())
def test_saslprep_is_stable_or_refuses(text: str) -> None:
    """What was prepared once stays as it is."""
    try:
        prepared = saslprep(text)
    except NotPrepared:
        return
    assert saslprep(prepared) == prepared


@given(st.text(max_size=60), st.sampled_from([None, "Crypt-Password", "Password"]), st.text())
def test_any_stored_text_is_judged_or_refused(stored: str, kind: str | None, password: str) -> None:
    """Whatever a row holds: an answer or UnknownScheme, and nothing that takes long."""
    for text in (stored, *(f"{{{scheme}}}{stored}" for scheme in QUICK)):
        try:
            verify(password, text, kind)
            scram_source(text, kind)
            is_current(text)
        except UnknownScheme:
            continue


QUICK = [*DIGESTS, "CRAM-MD5", "PLAIN.HEX", "MD5", "CRYPT", "PBKDF2", "SCRAM-SHA-256", "BLF-CRYPT"]

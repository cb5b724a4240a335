"""Argon2 is checked by two libraries: together they say what argon2-cffi says alone."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable

import nacl.pwhash
import pytest
from argon2.exceptions import VerificationError, VerifyMismatchError
from argon2.low_level import Type, hash_secret, verify_secret
from hypothesis import assume, example, given
from hypothesis import strategies as st

from restante.auth.login import NOBODY
from restante.auth.schemes import Argon2Cost, UnknownScheme, argon, verify
from restante.auth.schemes.argon import make_argon2id, read_argon2

CANNOT_TELL = None
Verdict = bool | None

SALT = b"0123456789abcdef"
SMALLEST = hash_secret(b"secret", SALT, 1, 8, 1, 32, Type.ID).decode()
MAX_WORK = 4096
"""Kibibytes times passes that are worth a test's time."""

PASSWORDS = st.one_of(
    st.sampled_from([b"", b"\0", b"secret", b"secret\0", b"\0secret", "Grüße".encode(), b"\xff"]),
    st.binary(max_size=200),
)


def judged(text: str, password: bytes) -> Verdict:
    """What Restante says."""
    try:
        return read_argon2(text).matches(password)
    except UnknownScheme:
        return CANNOT_TELL


def judged_by_argon2_cffi(text: str, password: bytes) -> Verdict:
    kind = Type.ID if text.startswith("$argon2id") else Type.I
    try:
        return verify_secret(text.encode(), password, kind)
    except VerifyMismatchError:
        return False
    except VerificationError:
        return CANNOT_TELL


@st.composite
def hashes(draw: st.DrawFn, password: bytes) -> str:
    """Of every kind that argon2-cffi makes."""
    lanes = draw(st.integers(1, 16))
    version = draw(st.sampled_from([0x10, 0x13]))
    text = hash_secret(
        password,
        draw(st.binary(min_size=8, max_size=64)),
        time_cost=draw(st.integers(1, 4)),
        memory_cost=8 * lanes + draw(st.integers(0, 200)),
        parallelism=lanes,
        hash_len=draw(st.one_of(st.just(32), st.integers(4, 80))),
        type=draw(st.sampled_from([Type.ID, Type.I])),
        version=version,
    ).decode()
    return text.replace("$v=16", draw(st.sampled_from(["", "$v=16"])))


@given(st.data(), PASSWORDS, PASSWORDS)
def test_any_hash(data: st.DataObject, password: bytes, other: bytes) -> None:
    text = data.draw(hashes(password))
    assert judged(text, password) is True
    assert judged(text, other) is (password == other)


@given(
    st.one_of(st.just(SMALLEST), hashes(b"secret")),
    st.integers(0, 160),
    st.integers(0, 1),
    st.text("$,=+/-_. AZaz0123456789vmtpid", max_size=1),
)
def test_hash_with_a_mistake(text: str, at: int, left_out: int, put_in: str) -> None:
    text = text[:at] + put_in + text[at + left_out :]
    cost = re.search(r"m=([0-9]+),t=([0-9]+)", text)
    assume(cost is None or int(cost[1]) * int(cost[2]) <= MAX_WORK)
    try:
        read_argon2(text)
    except UnknownScheme:
        return
    assert judged(text, b"secret") is judged_by_argon2_cffi(text, b"secret")


@pytest.mark.parametrize(
    "text",
    [
        SMALLEST.replace("m=8", "m=7"),
        SMALLEST.replace("p=1", "p=2"),  # 8 KiB for each lane
        SMALLEST.replace("p=1", "p=0"),
        SMALLEST.replace("t=1", "t=0"),
        SMALLEST.replace("m=8", "m=08"),
        SMALLEST.replace("t=1", "t=01"),
        SMALLEST.replace("v=19", "v=019"),
        re.sub(r"\$[^$]{22}\$", "$c2FsdDEyMw$", SMALLEST),  # a salt of 7 octets
        re.sub(r"\$[^$]{22}\$", "$c2FsdDEyMzR$", SMALLEST),  # bits beyond the last octet
        re.sub(r"\$[^$]{22}\$", "$c2FsdDEyMzQ1Njc4a$", SMALLEST),  # six bits too many
        SMALLEST.rsplit("$", 1)[0] + "$c2Fs",  # a hash of 3 octets
    ],
)
def test_what_neither_can_check(text: str) -> None:
    assert judged(text, b"secret") is CANNOT_TELL
    assert judged_by_argon2_cffi(text, b"secret") is CANNOT_TELL


@pytest.mark.parametrize(("salt", "characters"), [(17, 127), (18, 128)])
def test_longest_that_libsodium_reads(salt: int, characters: int) -> None:
    text = hash_secret(b"secret", bytes(salt), 1, 8, 1, 57, Type.ID).decode()
    assert len(text) == characters
    assert judged(text, b"secret") is True
    assert judged(text, b"Secret") is False


@given(PASSWORDS, st.sampled_from([nacl.pwhash.argon2id.str, nacl.pwhash.argon2i.str]))
@example(b"", nacl.pwhash.argon2id.str)
def test_hashes_of_libsodium(password: bytes, make: Callable[..., bytes]) -> None:
    text = make(password, opslimit=3, memlimit=nacl.pwhash.MEMLIMIT_MIN).decode()
    assert judged(text, password) is judged_by_argon2_cffi(text, password) is True
    assert judged(text, password + b"\0") is judged_by_argon2_cffi(text, password + b"\0") is False


@pytest.mark.parametrize(
    "stored",
    [
        NOBODY,
        "{ARGON2ID}" + make_argon2id(b"secret", Argon2Cost()),
        "{ARGON2I}" + hash_secret(b"secret", SALT, 1, 64, 2, 16, Type.I).decode(),
    ],
)
def test_the_fast_library_answers(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_not_asked(*_arguments: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(argon, "verify_secret", is_not_asked)
    assert verify("secret", stored, None) is (stored != NOBODY)
    assert verify("Secret", stored, None) is False


WITH_LITTLE_MEMORY = """
    import resource, sys
    from restante.auth.schemes import UnknownScheme, verify

    def judged(password):
        try:
            return verify(password, sys.argv[1], None)
        except UnknownScheme as error:
            return str(error).rpartition(": ")[2]

    def judge_with(mebibytes):
        with open("/proc/self/statm", "rb") as sizes:
            taken = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + mebibytes * 1024 * 1024, -1))
        print(judged("secret"), judged("Secret"), sep=", ")

    judge_with(200)
    judge_with(32)
    judge_with(200)
"""


def test_without_memory_no_password_is_wrong() -> None:
    stored = "{ARGON2ID}" + make_argon2id(b"secret", Argon2Cost(passes=1))
    script = textwrap.dedent(WITH_LITTLE_MEMORY)
    told = subprocess.run(
        [sys.executable, "-c", script, stored], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == [
        "True, False",
        "Memory allocation error, Memory allocation error",
        "True, False",
    ]
    assert told.stderr == ""

"""Logins: what clients say in SASL, and the hashes that rows hold."""

from __future__ import annotations

import base64
import binascii

from restante.auth.saslprep import NotPrepared, saslprep
from restante.auth.schemes import (
    MAX_STORED,
    PASSWORD_TYPES,
    ScramKeys,
    UnknownScheme,
    is_cheap,
    is_current,
    scram_source,
    verify,
)
from restante.auth.schemes.derived import MAX_ITERATIONS
from restante.auth.scram import offer, prepared
from restante.checkpassword.wire import (
    MAX_ANSWER,
    MAX_QUESTION,
    BadMessage,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)
from restante.directory import Account, Credentials
from restante.guessing.secret import DIGEST_SIZE, digest
from restante.protocol.sasl.passwords import PASSWORD_MECHANISMS, PasswordExchange
from restante.protocol.sasl.scram import Circumstances, ScramExchange
from restante.protocol.sasl.steps import (
    MAX_FIELD,
    Challenge,
    SaslCredentials,
    SaslFailure,
    ScramBegun,
    ScramDone,
    ScramProof,
    Step,
)
from restante.service.system_logins import _attempt
from tests.guided.target import Choices, Target, text_of

NONCE = "server"
BINDINGS = {"tls-exporter": b"binding"}
PROOF = base64.b64encode(b"p" * 32)


def sasl_passwords(data: bytes) -> None:
    """PLAIN and LOGIN: a challenge, a failure fit for the peer, or a name and a password."""
    choices = Choices(data)
    exchange = PasswordExchange(choices.one_of(PASSWORD_MECHANISMS))
    encoded = bool(choices.octet() & 1)
    first, *others = [_line(each, encoded=encoded) for each in choices.rest.split(b"\n")]
    step = exchange.start(first or None)
    while isinstance(step, Challenge) and others:
        assert len(step.line) < 100
        step = exchange.respond(others.pop(0))
    if isinstance(step, SaslFailure):
        assert step.text.isprintable()
    elif isinstance(step, SaslCredentials):
        for text in (step.login, step.password):
            assert 0 < len(text.encode()) <= MAX_FIELD
            assert "\0" not in text
    else:
        assert isinstance(step, Challenge)


def sasl_scram(data: bytes) -> None:
    """SCRAM: each step in its order, or a failure; what is to be signed is what both have said."""
    choices = Choices(data)
    mechanism = choices.one_of(("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"))
    circumstances = Circumstances(BINDINGS, bool(choices.octet() & 1))
    exchange = ScramExchange(mechanism, circumstances, lambda: NONCE)
    encoded = bool(choices.octet() & 1)
    lines = [_line(each, encoded=encoded) for each in choices.rest.split(b"\n")]
    step: Step = exchange.start(lines.pop(0) or None)
    while True:
        match step:
            case ScramBegun(login):
                assert login
                prepared(login)
                step = exchange.salted(b"salt", 4096)
            case ScramProof(message, proof):
                assert len(proof) == 32
                assert message.count(b"r=") >= 3
                step = exchange.proved(b"signature")
            case Challenge() if lines:
                base64.b64decode(step.line, validate=True)
                step = exchange.respond(lines.pop(0))
            case SaslFailure(text):
                assert text.isprintable()
                return
            case _:
                assert isinstance(step, Challenge | ScramDone)
                return


def _line(octets: bytes, *, encoded: bool) -> bytes:
    """As it stands, or in base64, in which no mutation of what is said would be base64 any more."""
    return base64.b64encode(octets) if encoded and octets != b"*" else octets


def saslprep_twice(data: bytes) -> None:
    """What is prepared is prepared for good, or refused."""
    text = data.decode("utf-8", "replace")
    try:
        once = saslprep(text)
    except NotPrepared:
        return
    assert saslprep(once) == once
    assert text.isascii() or once.isascii() or len(once) <= 18 * len(text)


def stored_hash(data: bytes) -> None:
    """A stored hash can be judged, or is an UnknownScheme; those that are cheap match no other."""
    choices = Choices(data)
    kind = choices.one_of((*PASSWORD_TYPES, None, "", "nonsense"))
    stored = text_of(choices.rest)
    is_current(stored)
    try:
        cheap = is_cheap(stored, kind)
        source = scram_source(stored, kind)
    except UnknownScheme as error:
        assert str(error).isprintable()
        assert len(str(error)) < 200
        return
    assert len(stored) <= MAX_STORED
    if isinstance(source, ScramKeys):
        assert 0 < source.iterations <= MAX_ITERATIONS
    if cheap:
        assert not verify("", stored, kind)
        verify("secret", stored, kind)
    offered = offer(Credentials(ACCOUNT, stored, kind), "iain", b"k" * 32)
    assert offered.salt or isinstance(source, ScramKeys)
    digest(b"k" * 32, "iain", stored)


ACCOUNT = Account("iain", 1000, 1000, "/home/iain")
assert len(digest(b"", "", "")) == DIGEST_SIZE


def checkpassword_messages(data: bytes) -> None:
    """Questions and answers: bounded, refused, or what was written."""
    try:
        question = decode_question(data)
        assert len(data) <= MAX_QUESTION
        assert encode_question(question) == data
    except BadMessage:
        pass
    try:
        answer = decode_answer(data)
        assert len(data) <= MAX_ANSWER
        assert decode_answer(encode_answer(answer)) == answer
    except BadMessage:
        pass


def shadow_question(data: bytes) -> None:
    """What a worker asks the registrar: a login, or a ValueError."""
    try:
        attempt = _attempt(data)
    except ValueError:
        return
    assert isinstance(attempt.login, str)


def _scram(*messages: bytes) -> bytes:
    return b"\n".join(messages)


def _b64(text: bytes) -> bytes:
    return binascii.b2a_base64(text, newline=False)


HASHES = (
    b"\2secret", b"\0*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19", b"\0565491d704013245",
    b"\1$6$rounds=5000$saltsalt$" + b"x" * 86, b"\1$5$saltsalt$" + b"x" * 43,
    b"\1$1$salt$" + b"x" * 22, b"\1abJnggxhB/yWI", b"\1_J9..rasmBYk8r9AiWNc",
    b"\1$2b$05$" + b"x" * 53, b"\1$y$j9T$salt$" + b"x" * 43, b"\1$7$CU..../....salt$" + b"x" * 43,
    b"\1$sha1$4000$salt$" + b"x" * 28, b"\1$gy$j9T$salt$" + b"x" * 43,
    b"\1$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
    b"\3{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
    b"\3{SSHA256}" + _b64(b"d" * 32 + b"salt"), b"\3{SHA}" + _b64(b"d" * 20),
    b"\3{SHA256.HEX}" + b"ab" * 32, b"\3{SMD5}" + _b64(b"d" * 16 + b"s"),
    b"\3{PLAIN-MD5}" + b"0a" * 16,
    b"\3{CRAM-MD5}" + b"0a" * 32, b"\3{PBKDF2}$1$salt$5000$" + b"0a" * 20,
    b"\3{SCRAM-SHA-256}4096," + _b64(b"salt") + b"," + _b64(b"k" * 32) + b"," + _b64(b"s" * 32),
    b"\3{SCRAM-SHA-1}4096," + _b64(b"salt") + b"," + _b64(b"k" * 20) + b"," + _b64(b"s" * 20),
    b"\3{PLAIN}secret", b"\3{PLAIN.B64}c2VjcmV0", b"\3{BLF-CRYPT}$2y$05$" + b"x" * 53,
    b"\1!", b"\3{}",
)  # fmt: skip
SCRAM_FIRST = b"n,,n=user,r=nonce"
SCRAM_FINAL = b"c=biws,r=nonceserver,p=" + PROOF
BOUND_FINAL = b"c=" + _b64(b"p=tls-exporter,,binding") + b",r=nonceserver,p=" + PROOF

TARGETS = (
    Target(
        sasl_passwords,
        [b"\0\1\0ann\0secret", b"\1\1ann\nsecret", b"\1\0YW5u\nc2VjcmV0", b"\0\0\n=", b"\1\1*"],
        (b"\0", b"\n", b"*", b"=", b"\xff", b"\xc3\xa9", b"YW5u", b"x" * 200),
        longest=1500,
    ),
    Target(
        sasl_scram,
        [
            b"\0\0\1" + _scram(SCRAM_FIRST, SCRAM_FINAL, b""),
            b"\1\1\1" + _scram(b"p=tls-exporter,,n=us=2Cer,r=nonce", BOUND_FINAL, b""),
            b"\0\1\1" + _scram(b"y,a=user,n=user,r=nonce,x=y", SCRAM_FINAL),
            b"\0\0\0biws\n*",
        ],
        (b",", b"n=", b"r=", b"c=", b"p=", b"a=", b"m=", b"=2C", b"=3D", b"biws", b"\n", b"server"),
    ),
    Target(
        saslprep_twice,
        ["I\u00adX".encode(), b"user", "\u00aa\u2168".encode(), "\u0627\u0031".encode(), b"a\x07"],
        [each.encode() for each in "\u00ad\u3000\u0627\u0301\ufb01"],
        longest=60,
    ),
    Target(
        stored_hash,
        HASHES,
        (
            b"$", b"{", b"}", b".HEX}", b".B64}", b"rounds=", b"$argon2i$", b"v=16", b"m=1,t=1,p=1",
            b"$2x$", b"$y$", b"$7$", b"$gy$", b"!", b"*", b"\xff", b"\xc2\xb2", b"999999999",
        ),
        longest=300,
    ),
    Target(
        checkpassword_messages,
        [
            b"check\0ann\0secret\x00192.0.2.1\0", b"find\0ann\0\0\0", b"no\0", b"later\0",
            b"yes\0ann\x001000\x001000\0/home/ann\0",
        ],
        (b"\0", b"check", b"find", b"yes\0", b"99999999999", b"\xff"),
        longest=700,
    ),
    Target(
        shadow_question,
        [b'{"login": "ann", "password": "secret", "peer": "192.0.2.7"}', b"[]", b'"x"'],
        (b"[", b"{", b'"login":', b"\\ud800", b"1e999", b"null", b"\xff\xfe"),
    ),
)  # fmt: skip

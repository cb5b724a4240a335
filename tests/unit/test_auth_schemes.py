"""Every password scheme against vectors that Restante did not make."""

from __future__ import annotations

import base64
import hashlib

import pytest

from restante.auth import schemes
from restante.auth.login import NOBODY
from restante.auth.schemes import Argon2Cost, UnknownScheme, hash_password, is_cheap, verify

MYSQL, CRYPT, CLEAR = "MySQL-Password", "Crypt-Password", "Password"
MYPASS_41 = "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4"  # MySQL's manual, PASSWORD('mypass')
MYPASS_16 = "6f8c114b58f2ce9e"  # MySQL's manual, OLD_PASSWORD('mypass')
MD5_HEX = "5f4dcc3b5aa765d61d8327deb882cf99"
# RFC 6070 §2: P = "password", S = "salt", c = 4096
PBKDF2 = "$1$salt$4096$4b007901b765489abead49d926f721d065a429c1"
SHA1_HEX = "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8"
SHA256_HEX = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
# openssl passwd -1, -5, -6
MD5_CRYPT = "$1$saltstri$YMyguxXMBpd2TEZ.vS/3q1"
SHA256_CRYPT = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
SHA512_CRYPT = (
    "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS"
    "35inz1"
)
# crypt_blowfish's own tests
BCRYPT = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
BCRYPT_LONG = "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui"
LONG = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# the argon2 reference implementation's tests
ARGON2ID = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
ARGON2I = "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8"


def b64(data: bytes) -> str:
    """As the digests are stored."""
    return base64.b64encode(data).decode()


SALTED = {
    "SSHA": b64(hashlib.sha1(b"passwordNaCl").digest() + b"NaCl"),
    "SSHA256": b64(hashlib.sha256(b"passwordNaCl").digest() + b"NaCl"),
    "SMD5": b64(hashlib.md5(b"passwordNaCl").digest() + b"NaCl"),
    "SSHA512": b64(hashlib.sha512(b"passwordNaCl").digest() + b"NaCl"),
}

VECTORS = [
    ("mypass", MYPASS_41, MYSQL),
    ("mypass", MYPASS_41.lower(), MYSQL),
    ("mypass", MYPASS_41, None),
    ("mypass", MYPASS_41, ""),
    ("mypass", MYPASS_41, "mysql-password"),
    ("mypass", MYPASS_16, None),
    ("mypass", MYPASS_16.upper(), MYSQL),
    ("my pa\tss", MYPASS_16, MYSQL),
    ("Hello world!", MD5_CRYPT, CRYPT),
    ("Hello world!", SHA256_CRYPT, CRYPT),
    ("Hello world!", SHA512_CRYPT, CRYPT),
    ("Hello world!", "abMbH7WsHr7wQ", CRYPT),
    ("U*U", BCRYPT, CRYPT),
    ("U*U", BCRYPT.replace("$2a$", "$2y$"), CRYPT),
    ("U*U", BCRYPT.replace("$2a$", "$2b$"), CRYPT),
    (LONG, BCRYPT_LONG, CRYPT),
    (LONG + "chars after 72 are ignored", BCRYPT_LONG, CRYPT),
    ("password", ARGON2ID, CRYPT),
    ("clear text", "clear text", CLEAR),
    ("Grüße", "Grüße", CLEAR),
    ("password", "{ARGON2ID}" + ARGON2ID, None),
    ("password", "{ARGON2I}" + ARGON2I, None),
    ("password", "{argon2id}" + ARGON2ID, CLEAR),
    ("U*U", "{BLF-CRYPT}" + BCRYPT, None),
    ("U*U", "{bcrypt}" + BCRYPT, None),
    ("Hello world!", "{SHA512-CRYPT}" + SHA512_CRYPT, None),
    ("Hello world!", "{SHA256-CRYPT}" + SHA256_CRYPT, CLEAR),
    ("Hello world!", "{MD5-CRYPT}" + MD5_CRYPT, None),
    ("Hello world!", "{CRYPT}" + SHA512_CRYPT, None),
    ("password", "{SHA}" + b64(bytes.fromhex(SHA1_HEX)), None),
    ("password", "{SHA}" + SHA1_HEX, None),
    ("password", "{SHA256}" + b64(bytes.fromhex(SHA256_HEX)), None),
    ("password", "{SHA256.HEX}" + SHA256_HEX, None),
    ("password", "{SHA512}" + b64(hashlib.sha512(b"password").digest()), None),
    ("password", "{SSHA}" + SALTED["SSHA"], None),
    ("password", "{ssha256.b64}" + SALTED["SSHA256"], None),
    ("password", "{SSHA256.hex}" + base64.b64decode(SALTED["SSHA256"]).hex(), None),
    ("password", "{SSHA512}" + SALTED["SSHA512"], None),
    ("password", "{SMD5}" + SALTED["SMD5"], None),
    ("password", "{smd5.hex}" + base64.b64decode(SALTED["SMD5"]).hex(), None),
    ("password", "{PLAIN-MD5}" + MD5_HEX, None),
    ("password", "{LDAP-MD5}" + b64(bytes.fromhex(MD5_HEX)), None),
    ("password", "{LDAP-MD5}" + MD5_HEX, None),
    ("Hello world!", "{MD5}" + MD5_CRYPT, None),
    ("Hello world!", "{DES-CRYPT}abMbH7WsHr7wQ", None),
    ("Hello world!", "{CRYPT.b64}" + b64(SHA512_CRYPT.encode()), None),
    ("password", "{ARGON2ID.hex}" + ARGON2ID.encode().hex(), None),
    ("password", "{PBKDF2}" + PBKDF2, None),
    ("password", "{pbkdf2.Base64}" + b64(PBKDF2.encode()), None),
    ("x", "{PLAIN.HEX}78", None),
    ("Grüße", "{PLAIN.b64}" + b64("Grüße".encode()), None),
    ("clear text", "{CLEAR}clear text", None),
    ("clear text", "{PLAIN}clear text", None),
    ("clear text", "{CLEARTEXT}clear text", CRYPT),
    ("{PLAIN}x", "{PLAIN}{PLAIN}x", None),
    ("password", "{SSHA}" + SALTED["SSHA"], "SHA"),
    ("password", "{ARGON2ID}" + ARGON2ID, "Dovecot"),
    ("clear text", "{PLAIN}clear text", "argon2"),
]


@pytest.mark.parametrize(("password", "stored", "kind"), VECTORS)
def test_right_password(password: str, stored: str, kind: str | None) -> None:
    assert verify(password, stored, kind)


@pytest.mark.parametrize(("password", "stored", "kind"), VECTORS)
def test_wrong_password(password: str, stored: str, kind: str | None) -> None:
    assert not verify("x" + password, stored, kind)
    assert not verify(password.swapcase(), stored, kind)


@pytest.mark.parametrize("size", [1, 8, 9, 10, 11, 40])
def test_salt_of_any_length_is_read(size: int) -> None:
    salt = bytes(range(size))
    assert verify("x", "{SSHA}" + b64(hashlib.sha1(b"x" + salt).digest() + salt), None)


@pytest.mark.parametrize("kind", [None, MYSQL, CRYPT, CLEAR])
@pytest.mark.parametrize("stored", [None, ""])
def test_empty_hash_never_authenticates(stored: str | None, kind: str | None) -> None:
    assert not verify("", stored, kind)
    assert not verify("x", stored, kind)


@pytest.mark.parametrize("stored", ["{PLAIN}", "{SHA256}", "{CRYPT}", "{ARGON2ID}", "{BLF-CRYPT}"])
def test_empty_hash_behind_a_prefix_never_authenticates(stored: str) -> None:
    assert not verify("x", stored, None)
    assert not verify("", stored, None)


def test_empty_password_never_authenticates() -> None:
    assert not verify("", hash_of_nothing(), MYSQL)
    assert not verify("", "{SHA}" + hashlib.sha1(b"").hexdigest(), None)


def hash_of_nothing() -> str:
    """What PASSWORD('') would be if MySQL hashed it."""
    return "*" + hashlib.sha1(hashlib.sha1(b"").digest()).hexdigest()


@pytest.mark.parametrize("kind", [MYSQL, CRYPT])
@pytest.mark.parametrize("stored", ["!", "*", "!!", "*LK*", "!" + SHA512_CRYPT])
def test_locked_account_never_authenticates(stored: str, kind: str) -> None:
    assert not verify(stored, stored, kind)
    assert not verify("Hello world!", stored, kind)


@pytest.mark.parametrize("stored", [SHA512_CRYPT, "abMbH7WsHr7wQ", BCRYPT])
def test_nul_never_matches_crypt(stored: str) -> None:
    password = "U*U" if stored is BCRYPT else "Hello world!"
    assert not verify(password + "\0", stored, CRYPT)
    assert not verify(password + "\0more", stored, CRYPT)


def test_long_password_never_matches() -> None:
    longest = "x" * schemes.MAX_PASSWORD
    assert verify(longest, longest, CLEAR)
    assert not verify(
        longest + "x", "{SHA}" + hashlib.sha1(longest.encode() + b"x").hexdigest(), ""
    )


def test_undecodable_octets_of_a_password_are_kept() -> None:
    assert verify("caf\udce9", "{SHA}" + hashlib.sha1(b"caf\xe9").hexdigest(), None)
    assert not verify("\ud800", "x", CLEAR)


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        ("x", "Rot13-Password"),
        ("{ROT13}x", None),
        ("{PLAIN.HEX}7", None),
        ("{PLAIN.ROT13}x", None),
        ("{SMD5}" + b64(bytes(16)), None),
        ("{CRAM-MD5}" + "0" * 62, None),
        ("{PBKDF2}$1$salt$0$" + "0" * 40, None),
        ("{PBKDF2}$1$salt$1000001$" + "0" * 40, None),
        ("{PBKDF2}$2$salt$4096$" + "0" * 40, None),
        ("{SCRAM-SHA-256}4096,c2FsdA==,AAAA,AAAA", None),
        ("{SCRAM-SHA-256}1000001,c2FsdA==" + f",{b64(bytes(32))}" * 2, None),
        ("{SCRAM-SHA-256}0,c2FsdA==" + f",{b64(bytes(32))}" * 2, None),
        ("{SCRAM-SHA-1}4096,c2FsdA==" + f",{b64(bytes(32))}" * 2, None),
        ("{SCRAM-SHA-256}4096,c2F=sdA=" + f",{b64(bytes(32))}" * 2, None),
        ("{SHA256.ROT13}x", None),
        ("{SHA256}not base64", None),
        ("{SHA256}" + SHA1_HEX, None),
        ("{SSHA}" + b64(bytes.fromhex(SHA1_HEX)), None),
        (SHA512_CRYPT, MYSQL),
        ("secret", MYSQL),
        (MYPASS_41[:16], MYSQL),
        (MYPASS_41[:40], None),
        ("x", CRYPT),
        ("$7$CU..../....salt$hash", CRYPT),
        ("$6$rounds=1000001$saltstring$" + "a" * 86, CRYPT),
        ("$2a$16" + BCRYPT[6:], CRYPT),
        ("$2a$03" + BCRYPT[6:], CRYPT),
        ("$2z$05" + BCRYPT[6:], CRYPT),
        (BCRYPT[:-1], CRYPT),
        ("{ARGON2ID}" + ARGON2ID.replace("m=256", "m=262145"), None),
        ("{ARGON2ID}" + ARGON2ID.replace("m=256,t=2", "m=262144,t=9"), None),
        ("{ARGON2ID}" + ARGON2ID.replace("t=2", "t=4294967295"), None),
        ("{ARGON2ID}" + ARGON2ID.replace("p=1", "p=17"), None),
        ("{ARGON2ID}" + ARGON2ID.replace("argon2id", "argon2d"), None),
        ("{ARGON2ID}" + ARGON2ID.replace("t=2", "t=0"), None),
        ("{ARGON2ID}" + ARGON2ID.replace("v=19", "v=20"), None),
        ("x" * (schemes.MAX_STORED + 1), CLEAR),
        ("*" + "٣" * 40, "Password-MySQL"),
    ],
)
def test_hash_that_cannot_be_judged(stored: str, kind: str | None) -> None:
    with pytest.raises(UnknownScheme) as caught:
        verify("x", stored, kind)
    assert stored not in str(caught.value)


@pytest.mark.parametrize("kind", [CLEAR, "plain"])
def test_error_shows_nothing_of_a_clear_text_password(kind: str) -> None:
    with pytest.raises(UnknownScheme) as caught:
        verify("x", "{hunter2}x", kind)
    assert "HUNTER2" not in str(caught.value).upper()


@pytest.mark.parametrize(
    ("stored", "kind", "cheap"),
    [
        (None, None, True),
        (MYPASS_41, None, True),
        ("{PLAIN}x", None, True),
        ("{SSHA}" + SALTED["SSHA"], None, True),
        (SHA512_CRYPT, CRYPT, False),
        ("{BLF-CRYPT}" + BCRYPT, None, False),
        ("{ARGON2ID}" + ARGON2ID, None, False),
    ],
)
def test_cheap(stored: str | None, kind: str | None, cheap: bool) -> None:
    assert is_cheap(stored, kind) is cheap


CHEAP = Argon2Cost(passes=1, memory=8, lanes=1)


def test_new_hash() -> None:
    made = hash_password("secret", CHEAP)
    assert made.startswith("{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$")
    assert verify("secret", made, MYSQL)
    assert not verify("Secret", made, MYSQL)
    assert made != hash_password("secret", CHEAP)


@pytest.mark.parametrize("clear", ["", "x" * (schemes.MAX_PASSWORD + 1)])
def test_no_hash_for_an_unusable_password(clear: str) -> None:
    with pytest.raises(ValueError, match="octets"):
        hash_password(clear, CHEAP)


def test_nobody_costs_what_a_new_hash_costs() -> None:
    head = NOBODY.rsplit("$", 2)[0]
    assert hash_password("secret").startswith(head + "$")
    assert not verify("secret", NOBODY, None)

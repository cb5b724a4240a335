"""crypt(3): the vectors of each method's own authors, and what a hash may ask for."""

from __future__ import annotations

import pytest

from restante.auth.schemes import UnknownScheme, verify

ENDLESS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
BLOWFISH = "05$/OK.fbVrR/bpIqNJ5ianF."
# crypt_blowfish's wrapper.c; the octets that were taken for signed collide in $2x$
BCRYPTS = [
    (b"U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
    (ENDLESS.encode() + b"ignored", "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui"),
    (b"\xa3", f"$2x${BLOWFISH}CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
    (b"\xff\xff\xa3", f"$2x${BLOWFISH}CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
    (b"\xff\xff\xa3", f"$2y${BLOWFISH}CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
    (b"\xff\xff\xa3", f"$2b${BLOWFISH}CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
    (b"\xff\xff\xa3", f"$2a${BLOWFISH}nqd1wy.pTMdcvrRWxyiGL2eMz.2a85."),
    (b"\xa3", f"$2y${BLOWFISH}Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"),
    (b"\xa3", f"$2a${BLOWFISH}Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"),
    (b"\xd1\x91", "$2x$05$6bNw2HLQYeqHYyBfLMsv/OiwqTymGIGzFsA4hOTWebfehXHNprcAS"),
    (
        b"\xd0\xc1\xd2\xcf\xcc\xd8",
        "$2x$05$6bNw2HLQYeqHYyBfLMsv/O9LIGgn8OMzuDoHfof8AQimSGfcSWxnS",
    ),
]
# the tests of UFC-crypt and of FreeSec
DES = [
    (b"U*U*U*U*", "CCNf8Sbh3HDfQ"),
    (b"U*U*U*U*ignored", "CCNf8Sbh3HDfQ"),
    (b"U*U***U*", "CC4rMpbg9AMZ."),
    (b"U*U*U*U*", "_J9..CCCCXBrJUJV154M"),
    (b"U*U***U", "_J9..CCCCXUhOBTXzaiE"),
    (b"U*U***U*", "_J9..CCCC4gQ.mB/PffM"),
    (b"*U*U*U*U", "_J9..XXXXvlzQGqpPPdk"),
]
# the specification of SHA-crypt
SHA_2 = [
    (
        b"Hello world!",
        "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
    ),
    (
        b"Hello world!",
        (
            "$6$rounds=10000$saltstringsaltst$"
            "OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."
        ),
    ),
]
SHA_1 = [(b"password", "$sha1$10$c.mcTzCw$gF8UeYst9yXX7WNZKc5Fjkq0.au7")]
# RFC 7914 §12 (the third), and the tests of yescrypt's reference implementation
SCRYPT = [
    (
        b"pleaseletmein",
        "$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D",
    ),
    (
        b"pleaseletmein",
        "$7$06..../....SodiumChloride$ENlyo6fGw4PCcDBOFepfSZjFUnVatHzCcW55.ZGz3B0",
    ),
    (
        b"pleaseletmein",
        "$y$jD5.7$LdJMENpBABJJ3hIHjB1Bi.$HboGM6qPrsK.StKYGt6KErmUYtioHreJd98oIugoNB6",
    ),
    (
        b"pleaseletmein",
        "$y$jC4$LdJMENpBABJJ3hIHjB1B$jVg4HoqqpbmQv/NCpin.QCMagJ8o4QX7lXdzvVV0xFC",
    ),
    # libxcrypt's test of gost-yescrypt
    (
        b"pleaseletmein",
        "$gy$jD5.7$LdJMENpBABJJ3hIHjB1Bi.$sMNUMCXbajS4xLo0qpnLO2n.3IkhA1XbbW5StOp3d51",
    ),
]
# the first of these, with bits set that count for nothing
BCRYPTS += [
    (b"U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXPAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
    (b"U*U*U", "$2x$05$XXXXXXXXXXXXXXXXXXXXXdAcXxm9kjPGEMsLznoKqmqw7tc8WCx4b"),
]
VECTORS = [*BCRYPTS, *DES, *SHA_2, *SHA_1, *SCRYPT]


def text(password: bytes) -> str:
    return password.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(("password", "stored"), VECTORS)
def test_right_password(password: bytes, stored: str) -> None:
    assert verify(text(password), stored, "Crypt-Password")
    assert verify(text(password), "{CRYPT}" + stored, None)


@pytest.mark.parametrize(("password", "stored"), VECTORS)
def test_wrong_password(password: bytes, stored: str) -> None:
    assert not verify("x" + text(password), stored, "Crypt-Password")


@pytest.mark.parametrize(
    "stored", [stored for _, stored in (*DES, *SHA_2, *SHA_1, BCRYPTS[2], BCRYPTS[6])]
)
def test_password_that_crypt_does_not_take_is_wrong(stored: str) -> None:
    """And no failure of the system, which would tell that there is such an account."""
    assert not verify("x" * 511, stored, "Crypt-Password")
    assert not verify("x" * 512, stored, "Crypt-Password")
    assert not verify("é" * 512, stored, "Crypt-Password")


HASH = "a" * 43


@pytest.mark.parametrize(
    "stored",
    [
        "_zzzzCCCCdZhvNtHlU8.",
        "$sha1$1000001$abcdefgh$R1KcSduwyZZHg9bUC5MATQGdVy1a",
        f"$5$rounds=1000001$salt${HASH}",
        f"$5$rounds=99999999999$salt${HASH}",
        f"$7$HU..../....salt${HASH}",  # 2 GiB
        f"$7$C6....z/...salt${HASH}",  # 127 lanes of 16 MiB
        f"$7$zzzzzzzzzzzsalt${HASH}",
        f"$y$jET$salt${HASH}",  # 512 MiB
        f"$gy$jET$salt${HASH}",
        f"$y$j9Tzz$salt${HASH}",
        f"$y$jDT/1$salt${HASH}",  # four passes over 256 MiB
        f"$y$j9T5.$salt${HASH}",  # a ROM
        f"$y$j9T.$salt${HASH}",
        f"$y$jz9$salt${HASH}",
        "$2y$16$" + BLOWFISH[3:] + "CE5elHaaO4EbggVDjb8P19RukzXSM3e",
        "$3$$87ee0af454a9cb8d90d24196068637a8",
        "$9$salt$hash",
    ],
)
def test_hash_that_is_unknown_or_asks_for_too_much(stored: str) -> None:
    with pytest.raises(UnknownScheme):
        verify("x", stored, "Crypt-Password")

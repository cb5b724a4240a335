"""Dovecot and GNU SASL make hashes that are verified here, and the other way round."""

from __future__ import annotations

import subprocess

import pytest

from restante.auth.schemes import hash_password, verify
from tests.support.dovecot import VERSIONS_OF_SETTINGS, is_of_2_4

pytestmark = pytest.mark.peer

SCHEMES = [
    "PLAIN",
    "CLEAR",
    "CLEARTEXT",
    "CRYPT",
    "MD5",
    "MD5-CRYPT",
    "SHA",
    "SHA1",
    "SSHA",
    "SHA256",
    "SSHA256",
    "SHA512",
    "SSHA512",
    "SMD5",
    "LDAP-MD5",
    "PLAIN-MD5",
    "CRAM-MD5",
    "HMAC-MD5",
    "PBKDF2",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "ARGON2I",
    "ARGON2ID",
    "BLF-CRYPT",
    "SHA256-CRYPT",
    "SHA512-CRYPT",
    "DES-CRYPT",
]
UMLAUTS = "Grüße, 2 €"


@pytest.fixture(scope="module")
def doveadm(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command, with no settings but those that it needs."""
    directory = tmp_path_factory.mktemp("dovecot")
    settings = directory / "dovecot.conf"
    versions = VERSIONS_OF_SETTINGS if is_of_2_4() else ""
    settings.write_text(f"{versions}ssl = no\nbase_dir = {directory}\nlog_path = /dev/stderr\n")
    return ["doveadm", "-c", str(settings), "pw"]


def output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize(
    ("encoding", "password"),
    [("", "secret"), ("", UMLAUTS), (".B64", UMLAUTS), (".HEX", "secret")],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_hash_that_dovecot_made(
    doveadm: list[str], scheme: str, encoding: str, password: str
) -> None:
    made = output([*doveadm, "-s", scheme + encoding, "-p", password]).rstrip("\n")
    assert made.startswith(f"{{{scheme}{encoding}}}")
    assert verify(password, made, None)
    assert not verify(password[1:], made, None)


def test_dovecot_verifies_what_is_written_here(doveadm: list[str]) -> None:
    made = hash_password("secret")
    assert "verified" in output([*doveadm, "-t", made, "-p", "secret"])


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
@pytest.mark.parametrize("password", ["secret", "\u2168 and \u00aa"])
def test_keys_that_gnu_sasl_made(mechanism: str, password: str) -> None:
    command = ["gsasl", "--mkpasswd", f"--mechanism={mechanism}", f"--password={password}"]
    made = output(command).rstrip("\n")
    assert verify(password, made, None)
    assert not verify(password + "x", made, None)

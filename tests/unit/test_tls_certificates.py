"""Which certificate a client gets, and what becomes of it when the files change."""

from __future__ import annotations

import errno
import os
import ssl
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography import x509

from restante.config import Settings
from restante.config.tree import Tls
from restante.tls import CertificateRefused
from restante.tls.certificate import PairFiles
from restante.tls.certificates import LOOK_INTERVAL, Certificates, pairs_of
from restante.tls.files import HandedFiles, open_pem
from tests.support.certificates import DAY, NOW, Issued, issue, replace, write
from tests.support.events import capture_logs


@dataclass
class Clock:
    """Time that passes when told to."""

    seconds: float = 0.0
    now: datetime = NOW

    def pass_by(self) -> None:
        self.seconds += LOOK_INTERVAL

    def certificates(self, *files: PairFiles) -> Certificates:
        return Certificates(files, now=lambda: self.now, monotonic=lambda: self.seconds)


def shake_hands(certificates: Certificates, name: str | None) -> tuple[x509.Certificate, str]:
    """What a client that asks for ``name`` is shown, and what the server knows that it asked."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_hostname=name)
    server = certificates.for_handshake().wrap_bio(up, down, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown), certificates.server_name(server)


def shown(certificates: Certificates, name: str | None = None) -> x509.Certificate:
    return shake_hands(certificates, name)[0]


@pytest.fixture
def hosts() -> dict[str, Issued]:
    return {
        "first": issue("mx.example.com", "mail.example.com"),
        "second": issue("mail.example.com", "*.example.net"),
        "third": issue("special.example.net"),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "first"),
        ("mx.example.com", "first"),
        ("MX.Example.COM", "first"),
        ("mail.example.com", "first"),
        ("any.example.net", "second"),
        ("special.example.net", "third"),
        ("two.labels.example.net", "first"),
        ("example.net", "first"),
        ("nobody.example.org", "first"),
    ],
)
def test_a_client_gets_the_certificate_of_the_host_it_asks_for(
    tmp_path: Path, hosts: dict[str, Issued], name: str | None, expected: str
) -> None:
    files = [write(tmp_path, each, issued) for each, issued in hosts.items()]
    certificate, asked = shake_hands(Clock().certificates(*files), name)
    assert certificate == hosts[expected].certificate
    assert asked == (name or "").lower()


def test_new_files_are_served_without_a_restart(tmp_path: Path) -> None:
    clock, old, new = Clock(), issue("mx.example.com"), issue("mx.example.com", "new.example.com")
    certificates = clock.certificates(write(tmp_path, "mx", old))
    write(tmp_path, "mx", new)
    assert shown(certificates) == old.certificate, "files are not looked at for each handshake"
    clock.pass_by()
    assert shown(certificates, "new.example.com") == new.certificate


def test_new_files_of_another_than_the_default(tmp_path: Path) -> None:
    clock, default = Clock(), issue("mx.example.com")
    files = [write(tmp_path, "mx", default), write(tmp_path, "net", issue("mx.example.net"))]
    certificates = clock.certificates(*files)
    new = issue("mx.example.net", "mx.example.org")
    write(tmp_path, "net", new)
    clock.pass_by()
    assert shown(certificates, "mx.example.org") == new.certificate
    assert shown(certificates) == default.certificate


def test_files_written_in_place(tmp_path: Path) -> None:
    clock, new = Clock(), issue("mx.example.com")
    files = write(tmp_path, "mx", issue("mx.example.com"))
    certificates = clock.certificates(files)
    Path(files.certificate).write_bytes(new.certificate_pem)
    Path(files.key).write_bytes(new.key_pem())
    clock.pass_by()
    assert shown(certificates) == new.certificate


def test_a_wrong_pair_keeps_the_one_that_was_served(tmp_path: Path) -> None:
    """As between the two steps of a program that writes the certificate first."""
    clock, old, new = Clock(), issue("mx.example.com"), issue("mx.example.com")
    files = write(tmp_path, "mx", old)
    certificates = clock.certificates(files)

    replace(files.certificate, new.certificate_pem)
    clock.pass_by()
    assert shown(certificates) == old.certificate

    replace(files.key, new.key_pem())
    clock.pass_by()
    assert shown(certificates) == new.certificate


@pytest.mark.parametrize("damage", [os.unlink, lambda path: replace(path, b"nonsense")])
def test_damaged_files_keep_the_one_that_was_served(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    clock, old = Clock(), issue("mx.example.com")
    files = write(tmp_path, "mx", old)
    certificates = clock.certificates(files)
    damage(files.certificate)
    clock.pass_by()
    assert shown(certificates) == old.certificate


@pytest.fixture
def heeds_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is closed if its mode says so, also to root, who may run these tests."""

    def may_open(path: str) -> int:
        if not os.stat(path).st_mode & stat.S_IRUSR:
            raise CertificateRefused(f"{path} cannot be read: Permission denied")
        return open_pem(path)

    monkeypatch.setattr("restante.tls.files.open_pem", may_open)


@pytest.mark.usefixtures("heeds_modes")
def test_a_key_whose_rights_are_mended_is_read(tmp_path: Path) -> None:
    """Its octets, and the time at which they were written, are what they were."""
    clock, new = Clock(), issue("mx.example.com")
    files = write(tmp_path, "mx", issue("mx.example.com"))
    certificates = clock.certificates(files)
    write(tmp_path, "mx", new)
    os.chmod(files.key, 0)
    clock.pass_by()
    with capture_logs() as events:
        assert shown(certificates) != new.certificate
    assert "Permission denied" in events[0]["why"]

    os.chmod(files.key, 0o600)
    clock.pass_by()
    assert shown(certificates) == new.certificate


def test_a_key_that_is_not_exposed_any_more_is_not_told_of(tmp_path: Path) -> None:
    clock, pair = Clock(), issue("mx.example.com", by=issue())
    files = write(tmp_path, "mx", pair)
    os.chmod(files.key, 0o644)
    with capture_logs() as events:
        certificates = clock.certificates(files)
    assert "that everybody can read" in events[0]["why"]
    os.chmod(files.key, 0o600)
    clock.pass_by()
    shown(certificates)
    clock.seconds += DAY.total_seconds()
    with capture_logs() as events:
        shown(certificates)
    assert events == []


@pytest.mark.parametrize("handed", [False, True])
def test_what_could_not_be_read_for_a_moment_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handed: bool
) -> None:
    """It is told once, though nothing has changed by the time it is tried again."""
    clock, new = Clock(), issue("mx.example.com")
    files = write(tmp_path, "mx", issue("mx.example.com"))
    paths = (files.certificate, files.key)
    source = HandedFiles.opened(paths, open_pem) if handed else None
    certificates = Certificates([files], source, monotonic=lambda: clock.seconds)

    def look() -> list[str]:
        if source:
            for path in paths:
                source.take(path, open_pem(path))
        clock.pass_by()
        with capture_logs() as events:
            shown(certificates)
        return [event["event"] for event in events]

    write(tmp_path, "mx", new)
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", lambda *_: fail(errno.EIO))
        assert [look(), look()] == [["certificate_refused"], []]
    assert look()[0] == "certificate_loaded"
    assert shown(certificates) == new.certificate


def fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


def test_a_pair_that_is_wrong_is_told_of_again_when_it_was_touched(tmp_path: Path) -> None:
    clock = Clock()
    files = write(tmp_path, "mx", issue("mx.example.com"))
    certificates = clock.certificates(files)
    told = []
    for _ in range(2):
        replace(files.key, issue().key_pem())
        for _ in range(2):
            clock.pass_by()
            with capture_logs() as events:
                shown(certificates)
            told.append([event["event"] for event in events])
    assert told == [["certificate_refused"], []] * 2


def test_an_expired_certificate_takes_the_place_of_none_that_lasts_longer(tmp_path: Path) -> None:
    clock, old = Clock(), issue("mx.example.com")
    certificates = clock.certificates(write(tmp_path, "mx", old))
    write(tmp_path, "mx", issue("mx.example.com", begins=NOW - 9 * DAY, ends=NOW - DAY))
    clock.pass_by()
    assert shown(certificates) == old.certificate


def test_an_expired_certificate_is_better_than_no_server(tmp_path: Path) -> None:
    old = issue("mx.example.com", begins=NOW - 9 * DAY, ends=NOW - DAY)
    certificates = Clock().certificates(write(tmp_path, "mx", old))
    assert shown(certificates) == old.certificate


def test_what_expires_while_it_is_served_is_told_of(tmp_path: Path) -> None:
    """Once a day, for a server that runs for a year."""
    clock, authority = Clock(), issue(subject="an authority")
    pair = write(tmp_path, "mx", issue("mx.example.com", by=authority, ends=NOW + 20 * DAY))
    certificates = clock.certificates(pair)
    told = {}
    for days in (0, 10, 10.1, 19, 21):
        clock.seconds, clock.now = days * DAY.total_seconds(), NOW + days * DAY
        with capture_logs() as events:
            shown(certificates)
        told[days] = [event["why"].removeprefix(pair.certificate).split()[0] for event in events]
    assert told == {0: [], 10: ["expires"], 10.1: [], 19: ["expires"], 21: ["expired"]}


def test_a_pair_that_is_wrong_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateRefused):
        Certificates([PairFiles(str(tmp_path / "mx.pem"), str(tmp_path / "mx.key"))])


def test_files_lie_in_the_instance_directory() -> None:
    tls = Tls("mx.pem", "keys/mx.key", {"/etc/net.pem": "/etc/net.key"})
    assert list(pairs_of(Settings("/srv/restante", tls=tls))) == [
        PairFiles("/srv/restante/mx.pem", "/srv/restante/keys/mx.key"),
        PairFiles("/etc/net.pem", "/etc/net.key"),
    ]
    assert list(pairs_of(Settings("/srv/restante"))) == []

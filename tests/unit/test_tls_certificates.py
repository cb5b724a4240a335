"""Which certificate a client gets, and what becomes of it when the files change."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509

from restante.config import Settings
from restante.config.tree import Tls
from restante.tls import CertificateRefused
from restante.tls.certificate import PairFiles
from restante.tls.certificates import LOOK_INTERVAL, Certificates, pairs_of
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

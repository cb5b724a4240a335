"""Users' programs from Debian send mail through the submission ports, over TLS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.test_clients import ANN, IAIN, command
from tests.support.certificates import issue, write
from tests.support.instance import Instance, new_instance

pytestmark = pytest.mark.peer

HOST = "mx.example.com"
LETTER = b"To: ann@example.com\nSubject: a letter\n\nHello.\n"


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    directory = tmp_path_factory.mktemp("submission") / "instance"
    environ = {
        "RESTANTE_SUBMISSION__LISTEN": '["127.0.0.1:0"]',
        "RESTANTE_SUBMISSION__LISTEN_TLS": '["127.0.0.1:0"]',
        "RESTANTE_TLS__CERTIFICATE": "own.pem",
        "RESTANTE_TLS__KEY": "own.key",
        "RESTANTE_AUTH__PLAINTEXT": "never",
    }
    with new_instance(directory, environ=environ) as running:
        write(directory, "own", issue(HOST))
        for address in (IAIN, ANN):
            running.add_mailbox(address)
        running.start()
        yield running


def arrived(instance: Instance) -> str:
    """The only message of ann's, which came by TLS and a login; it is removed."""
    home = Path(json.loads(instance.here("mailbox", "show", ANN, "--json").stdout)["home"])
    (file,) = (home / "Maildir" / "new").iterdir()
    message = file.read_text()
    file.unlink()
    received = message[message.index("Received: ") :].partition(";")[0]
    # UTF8SMTPSA where the client says SMTPUTF8, as newer ones always do (RFC 6531 §4.3).
    assert re.search(
        r"from client\.invalid\n\tby mx\.example\.com with (ESMTPSA|UTF8SMTPSA)\n\t\(TLSv1\.3 ",
        received,
    )
    assert "\nFrom: " in message
    assert "\nMessage-ID: <" in message or "\nMessage-Id: <" in message
    return message


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_by_starttls_and_by_tls(instance: Instance, mechanism: str) -> None:
    for service, how in (("submission", "--tls"), ("submissions", "--tls-on-connect")):
        out = command(
            "swaks", "--server", f"127.0.0.1:{instance.port(service)}", how, "--auth", mechanism,
            "--auth-user", IAIN, "--auth-password", "secret", "--from", IAIN, "--to", ANN,
        )  # fmt: skip
        assert "235 2.7.0" in out
        assert "This is a test mailing" in arrived(instance)


def test_swaks_is_offered_no_password_in_clear_text(instance: Instance) -> None:
    with pytest.raises(AssertionError, match=r"(?i)did not advertise auth"):
        command(
            "swaks", "--server", f"127.0.0.1:{instance.port('submission')}", "--auth", "PLAIN",
            "--auth-user", IAIN, "--auth-password", "secret", "--from", IAIN, "--to", ANN,
        )  # fmt: skip


def test_swaks_may_not_send_as_somebody_else(instance: Instance) -> None:
    with pytest.raises(AssertionError, match=r"553 5\.7\.1 this account may not send"):
        command(
            "swaks", "--server", f"127.0.0.1:{instance.port('submission')}", "--tls",
            "--auth", "PLAIN", "--auth-user", IAIN, "--auth-password", "secret",
            "--from", ANN, "--to", ANN,
        )  # fmt: skip


@pytest.mark.parametrize(("service", "starttls"), [("submission", "on"), ("submissions", "off")])
def test_msmtp(instance: Instance, service: str, starttls: str) -> None:
    command(
        "msmtp", "--host=127.0.0.1", f"--port={instance.port(service)}", "--tls=on",
        f"--tls-starttls={starttls}", f"--tls-trust-file={instance.directory / 'own.pem'}",
        f"--tls-host-override={HOST}", "--auth=on", f"--user={IAIN}",
        "--passwordeval=echo secret", f"--from={IAIN}", ANN, stdin=LETTER,
    )  # fmt: skip
    assert "Subject: a letter" in arrived(instance)


@pytest.mark.parametrize(
    ("scheme", "service", "options"),
    [("smtp", "submission", ["--ssl-reqd"]), ("smtps", "submissions", [])],
)
def test_curl(instance: Instance, scheme: str, service: str, options: list[str]) -> None:
    port = instance.port(service)
    command(
        "curl", "-sS", "--crlf", *options, "--cacert", str(instance.directory / "own.pem"),
        "--resolve", f"{HOST}:{port}:127.0.0.1", "--user", f"{IAIN}:secret",
        "--mail-from", IAIN, "--mail-rcpt", ANN, "-T", "-", f"{scheme}://{HOST}:{port}/laptop",
        stdin=LETTER,
    )  # fmt: skip
    message = arrived(instance)
    assert f"\nFrom: {IAIN}\n" in message
    assert "\nDate: " in message

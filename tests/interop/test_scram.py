"""GNU SASL, msmtp and mpop prove passwords that they do not send."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import PATIENCE
from tests.support.serving import ANN, IAIN, maildir
from tests.support.tls_serving import Secured, tls_server

pytestmark = pytest.mark.peer

ONLY_TLS_1_2 = "NORMAL:-VERS-ALL:+VERS-TLS1.2"
"""For GnuTLS: what has bindings that ssl knows, which newer clients insist on."""
TLS_1_2 = f"--priority={ONLY_TLS_1_2}"
MECHANISMS = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Iain's password in clear text, Ann's as keys that GNU SASL made; no SCRAM for Bob."""
    directory = tmp_path_factory.mktemp("scram")
    with tls_server(directory, {"auth": {"mechanisms": MECHANISMS}}) as running:
        made = subprocess.run(
            ["gsasl", "--mkpasswd", "--mechanism=SCRAM-SHA-256", "--password=secret"],
            check=True, capture_output=True, text=True, timeout=PATIENCE,
        ).stdout.strip()  # fmt: skip
        with sqlite3.connect(running.instance.directory / "restante.db") as database:
            database.execute(
                "INSERT INTO mailbox SELECT 'bob@example.com', uid, gid, home, password, "
                "password_type FROM mailbox WHERE username = ?",
                (ANN,),
            )
            database.executemany(
                "UPDATE mailbox SET password = ? WHERE username = ?",
                [("{PLAIN}secret", IAIN), (made, ANN)],
            )
        database.close()
        yield running


def gsasl(server: Secured, login: str, password: str, *options: str) -> tuple[bool, str]:
    """Whether a login succeeded, and all that was said."""
    done = subprocess.run(
        [
            "gsasl", "--smtp", f"--connect=127.0.0.1:{server.instance.port('submission')}",
            "--x509-ca-file=", f"--authentication-id={login}",
            "--authorization-id=", f"--password={password}", *options,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    return done.returncode == 0, done.stdout


@pytest.mark.parametrize("login", [IAIN, ANN])
def test_gnu_sasl_over_tls_1_3(server: Secured, login: str) -> None:
    """Its own command refuses to go without a channel binding that it could do, unless told to."""
    good, said = gsasl(server, login, "secret", "--no-cb")
    assert good, said
    assert "AUTH SCRAM-SHA-256\n" in said
    assert "SCRAM-SHA-256-PLUS" not in said
    assert "\n235 2.7.0" in said


@pytest.mark.parametrize("login", [IAIN, ANN])
def test_gnu_sasl_binds_tls_1_2(server: Secured, login: str) -> None:
    good, said = gsasl(server, login, "secret", TLS_1_2)
    assert good, said
    assert "AUTH SCRAM-SHA-256-PLUS\n" in said
    assert "\n235 2.7.0" in said


@pytest.mark.parametrize("option", [TLS_1_2, "--no-cb"])
def test_wrong_password_is_refused(server: Secured, option: str) -> None:
    for login in (IAIN, ANN, "nobody@example.com", "bob@example.com"):
        good, said = gsasl(server, login, "hunter2", option)
        assert not good
        assert "\n535 5.7.8" in said


def test_client_without_channel_bindings(server: Secured) -> None:
    good, said = gsasl(server, IAIN, "secret", TLS_1_2, "--no-cb", "--mechanism=SCRAM-SHA-256")
    assert good, said


def best_of(program: str) -> str:
    """Newer ones bind to the connection, and will not do without where that is possible."""
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    return "scram-sha-256-plus" if "scram-sha-256-plus" in said else "scram-sha-256"


def test_msmtp_submits(server: Secured) -> None:
    message = b"From: iain@example.com\nSubject: msmtp and SCRAM\n\nhello\n"
    done = subprocess.run(
        [
            "msmtp", "--file=/dev/null", "--host=127.0.0.1",
            f"--port={server.instance.port('submission')}", "--tls=on", "--tls-starttls=on",
            "--tls-certcheck=off", f"--tls-priorities={ONLY_TLS_1_2}", f"--auth={best_of('msmtp')}",
            "--debug", f"--user={IAIN}", "--passwordeval=echo secret", f"--from={IAIN}", ANN,
        ],
        input=message, check=True, stdout=subprocess.PIPE, timeout=PATIENCE,
    )  # fmt: skip
    assert b"\n--> AUTH SCRAM-SHA-256" in done.stdout
    found = [path.read_text() for path in (maildir(server.instance, ANN) / "new").iterdir()]
    assert any("Subject: msmtp and SCRAM" in text for text in found)


def test_mpop_fetches(server: Secured, tmp_path: Path) -> None:
    with server.instance.smtp() as client:
        client.sendmail("x@example.net", [IAIN], b"Subject: mpop and SCRAM\r\n\r\nhello\r\n")
    settings = tmp_path / "mpoprc"
    settings.write_text(
        f"account default\nhost 127.0.0.1\nport {server.instance.pop3_port}\n"
        f"auth {best_of('mpop')}\nuser {IAIN}\npasswordeval echo secret\n"
        f"tls on\ntls_starttls on\ntls_certcheck off\ntls_priorities {ONLY_TLS_1_2}\n"
        f"uidls_file {tmp_path}/uidls\ndelivery mbox {tmp_path}/mbox\n"
    )
    settings.chmod(0o600)
    command = ["mpop", "--debug", f"--file={settings}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=PATIENCE)
    assert b"\n--> AUTH SCRAM-SHA-256" in done.stdout
    assert "Subject: mpop and SCRAM" in (tmp_path / "mbox").read_text()
    assert "service=pop3" in server.instance.log()

"""Real clients over TLS: swaks, curl, openssl, fetchmail, and Python's own."""

from __future__ import annotations

import poplib
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import PATIENCE
from tests.support.serving import ANN, IAIN, maildir
from tests.support.tls_serving import HOST, IAIN_PLAIN, Secured, tls_server

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Passwords in TLS alone, as for clients from elsewhere."""
    directory = tmp_path_factory.mktemp("clients")
    with tls_server(directory, {"auth": {"plaintext": "never"}}) as running:
        (directory / "ca.pem").write_bytes(running.authority.certificate_pem)
        yield running


def authority(server: Secured) -> str:
    return str(server.instance.directory.parent / "ca.pem")


def command(*words: str, stdin: bytes = b"") -> str:
    """Run a client; all that it said. A failure shows it."""
    done = subprocess.run(
        words,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        check=False,
    )
    said = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, f"{words}: {done.returncode}\n{said}"
    return said


def newest(server: Secured, address: str) -> str:
    new = maildir(server.instance, address) / "new"
    return max(new.iterdir(), key=lambda path: path.stat().st_mtime_ns).read_text()


def test_swaks_with_starttls(server: Secured) -> None:
    said = command(
        "swaks", "--server", "127.0.0.1", "--port", str(server.instance.smtp_port), "--tls",
        "--from", "me@example.net", "--to", ANN, "--header", "Subject: swaks and TLS",
    )  # fmt: skip
    assert "=== TLS started with cipher TLSv1.3:" in said
    assert "Subject: swaks and TLS" in newest(server, ANN)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("how", ["--tls", "--tls-on-connect"])
def test_swaks_submits(server: Secured, how: str, mechanism: str) -> None:
    service = "submission" if how == "--tls" else "submissions"
    subject = f"Subject: {service} {mechanism}"
    command(
        "swaks", "--server", "127.0.0.1", "--port", str(server.instance.port(service)), how,
        "--auth", mechanism, "--auth-user", IAIN, "--auth-password", "secret",
        "--from", IAIN, "--to", ANN, "--header", subject,
    )  # fmt: skip
    text = newest(server, ANN)
    assert subject in text
    assert "with ESMTPSA\n\t(TLSv1.3 " in text


def test_swaks_will_not_send_a_password_in_clear_text(server: Secured) -> None:
    with pytest.raises(AssertionError, match="did not advertise authentication"):
        command(
            "swaks", "--server", "127.0.0.1", "--port", str(server.instance.port("submission")),
            "--auth", "PLAIN", "--auth-user", IAIN, "--auth-password", "secret", "--to", ANN,
        )  # fmt: skip


@pytest.mark.parametrize(("service", "scheme"), [("submission", "smtp"), ("submissions", "smtps")])
def test_curl_submits(server: Secured, service: str, scheme: str) -> None:
    port = server.instance.port(service)
    command(
        "curl", "-sS", "--ssl-reqd", "--cacert", authority(server),
        "--resolve", f"{HOST}:{port}:127.0.0.1", f"{scheme}://{HOST}:{port}/client.example",
        "--user", f"{IAIN}:secret", "--mail-from", IAIN, "--mail-rcpt", ANN, "--upload-file", "-",
        stdin=f"Subject: curl to {service}\r\n\r\nhello\r\n".encode(),
    )  # fmt: skip
    assert f"Subject: curl to {service}" in newest(server, ANN)


@pytest.mark.parametrize(("service", "scheme"), [("pop3", "pop3"), ("pop3s", "pop3s")])
def test_curl_fetches(server: Secured, service: str, scheme: str) -> None:
    port = server.instance.port(service)
    command(
        "curl", "-sS", "--ssl-reqd", "--cacert", authority(server),
        "--resolve", f"{HOST}:{port}:127.0.0.1", f"{scheme}://{HOST}:{port}/",
        "--user", f"{IAIN}:secret",
    )  # fmt: skip


def test_python_submits(server: Secured) -> None:
    with smtplib.SMTP("127.0.0.1", server.instance.port("submission"), timeout=PATIENCE) as client:
        trust = server.trust
        trust.check_hostname = False  # smtplib checks the name that it connected to
        client.starttls(context=trust)
        client.login(IAIN, "secret")
        client.sendmail(IAIN, [ANN], b"Subject: smtplib\r\n\r\nhello\r\n" + b"x" * 70 * 14_000)
    assert "Subject: smtplib" in newest(server, ANN)


def test_python_fetches(server: Secured) -> None:
    session = poplib.POP3("127.0.0.1", server.instance.pop3_port, timeout=PATIENCE)
    session.host = HOST
    session.stls(context=server.trust)
    session.user(IAIN)
    assert session.pass_("secret").startswith(b"+OK")
    session.quit()


@pytest.mark.parametrize(
    ("service", "starttls"), [("submission", "smtp"), ("submissions", ""), ("pop3", "pop3")]
)
def test_openssl_verifies_us(server: Secured, service: str, starttls: str) -> None:
    port = server.instance.port(service)
    how = ["-starttls", starttls] if starttls else []
    said = command(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", *how, "-servername", HOST,
        "-CAfile", authority(server), "-verify_hostname", HOST, "-verify_return_error", "-crlf",
        stdin=b"QUIT\n",
    )  # fmt: skip
    assert "Verification: OK" in said


def test_openssl_resumes_a_session(server: Secured, tmp_path: Path) -> None:
    address = f"127.0.0.1:{server.instance.port('submissions')}"
    trust, ticket = ("-CAfile", authority(server)), str(tmp_path / "ticket")
    common = ("openssl", "s_client", "-connect", address, "-servername", HOST, *trust, "-crlf")
    # With TLS 1.2 the ticket comes within the handshake, before the client is done.
    command(*common, "-tls1_2", "-sess_out", ticket, stdin=b"QUIT\n")
    assert "Reused, TLSv1.2" in command(*common, "-tls1_2", "-sess_in", ticket, stdin=b"QUIT\n")


def test_openssl_is_given_no_old_tls(server: Secured) -> None:
    with pytest.raises(AssertionError, match=r"(?i)alert|error"):
        command(
            "openssl", "s_client", "-connect", f"127.0.0.1:{server.instance.port('submissions')}",
            "-tls1_1", "-cipher", "ALL:@SECLEVEL=0",
        )  # fmt: skip


def test_renegotiation_is_refused(server: Secured) -> None:
    """In TLS 1.2 a client could have the server shake hands again and again."""
    process = subprocess.Popen(
        [
            "openssl", "s_client", "-tls1_2", "-connect",
            f"127.0.0.1:{server.instance.port('submissions')}",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    while not process.stdout.readline().startswith(b"220 "):
        pass
    process.stdin.write(b"R\n")
    process.stdin.flush()
    said, _ = process.communicate(timeout=PATIENCE)
    assert b"no renegotiation" in said.lower()


def test_fetchmail_over_stls(server: Secured, tmp_path: Path) -> None:
    with server.smtp("submissions") as wire:
        assert wire.ask(f"AUTH PLAIN {IAIN_PLAIN}").startswith("235 ")
        assert wire.ask(f"MAIL FROM:<{IAIN}>").startswith("250 ")
        assert wire.ask(f"RCPT TO:<{IAIN}>").startswith("250 ")
        assert wire.ask("DATA").startswith("354 ")
        wire.send(b"Subject: for fetchmail\r\n\r\nhello\r\n.\r\n")
        assert wire.reply().startswith("250 ")
    rc = tmp_path / "fetchmailrc"
    rc.write_text(
        f"poll 127.0.0.1 protocol pop3 port {server.instance.pop3_port} user {IAIN} "
        f"password secret sslproto 'TLS1.2+' sslcertck sslcertfile {authority(server)} "
        f"sslcommonname {HOST} fetchall mda 'cat > {tmp_path}/mail'\n"
    )
    rc.chmod(0o600)
    command("fetchmail", "-f", str(rc), "--pidfile", str(tmp_path / "pid"), "-v")
    assert "Subject: for fetchmail" in (tmp_path / "mail").read_text()

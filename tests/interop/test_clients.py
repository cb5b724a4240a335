"""Real clients from Debian send and fetch through a whole instance."""

from __future__ import annotations

import hashlib
import poplib
import random
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance

pytestmark = pytest.mark.peer

IAIN = "iain@example.com"
ANN = "ann@example.com"


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with new_instance(tmp_path_factory.mktemp("clients") / "instance") as running:
        for address in (IAIN, ANN, "jürgen@example.com"):
            running.add_mailbox(address)
        running.start()
        yield running


@pytest.fixture
def empty(instance: Instance) -> Instance:
    """The instance with its maildrops emptied."""
    for login in (IAIN, ANN):
        session = instance.pop3(login)
        for number in range(1, session.stat()[0] + 1):
            session.dele(number)
        session.quit()
    return instance


def command(*words: str, stdin: bytes = b"", cwd: Path | None = None) -> str:
    """Run a client; its standard output. A failure shows everything it said."""
    done = subprocess.run(words, input=stdin, capture_output=True, cwd=cwd, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout!r}\n{done.stderr!r}"
    return done.stdout.decode("utf-8", "replace")


def only_message(instance: Instance, login: str) -> bytes:
    messages = instance.messages(login)
    assert len(messages) == 1
    return messages[0]


def test_swaks_sends(empty: Instance) -> None:
    out = command(
        "swaks", "--server", f"127.0.0.1:{empty.smtp_port}", "--from", "me@example.net",
        "--to", f"{IAIN},{ANN}", "--header", "Subject: by swaks", "--body", ".dot\n..two\nend",
    )  # fmt: skip
    assert "250 2.0.0" in out
    for login in (IAIN, ANN):
        text = only_message(empty, login)
        assert b"Subject: by swaks" in text
        assert b"\n.dot\n..two\nend" in text
        assert f"Delivered-To: {login}".encode() in text


def test_swaks_pipelines(empty: Instance) -> None:
    command(
        "swaks", "--server", f"127.0.0.1:{empty.smtp_port}", "--from", "me@example.net",
        "--to", IAIN, "--pipeline",
    )  # fmt: skip
    assert b"This is a test mailing" in only_message(empty, IAIN)


def test_curl_sends_and_fetches(empty: Instance) -> None:
    text = b"From: me@example.net\nTo: iain@example.com\nSubject: by curl\n\nline\n.\nafter a dot\n"
    command(
        "curl", "-sS", "--crlf", f"smtp://127.0.0.1:{empty.smtp_port}/client.example.net",
        "--mail-from", "me@example.net", "--mail-rcpt", IAIN, "-T", "-", stdin=text,
    )  # fmt: skip
    base = f"pop3://127.0.0.1:{empty.pop3_port}/"
    listing = command("curl", "-sS", "--user", f"{IAIN}:secret", base)
    assert listing.split()[0] == "1"
    fetched = command("curl", "-sS", "--user", f"{IAIN}:secret", base + "1")
    assert "by curl" in fetched
    assert "line\r\n.\r\nafter a dot\r\n" in fetched


def test_curl_fetches_by_sasl(empty: Instance) -> None:
    for mechanism in ("PLAIN", "LOGIN"):
        command(
            "curl", "-sS", "--user", f"{IAIN}:secret", "--login-options", f"AUTH={mechanism}",
            f"pop3://127.0.0.1:{empty.pop3_port}/",
        )  # fmt: skip


def test_mpop_fetches(empty: Instance, tmp_path: Path) -> None:
    send(empty, IAIN, "by mpop")
    inbox = tmp_path / "inbox"
    for folder in ("cur", "new", "tmp"):
        (inbox / folder).mkdir(parents=True)
    command(
        "mpop", "--host=127.0.0.1", f"--port={empty.pop3_port}", f"--user={IAIN}",
        "--passwordeval=echo secret", "--auth=user", "--tls=off", f"--delivery=maildir,{inbox}",
        f"--uidls-file={tmp_path / 'uidls'}", "--keep=off",
    )  # fmt: skip
    (fetched,) = (inbox / "new").iterdir()
    assert b"Subject: by mpop" in fetched.read_bytes()
    assert empty.messages(IAIN) == []


def test_fetchmail_fetches(empty: Instance, tmp_path: Path) -> None:
    send(empty, ANN, "by fetchmail")
    box = tmp_path / "box"
    control = tmp_path / "fetchmailrc"
    control.write_text(
        f'poll 127.0.0.1 service {empty.pop3_port} protocol pop3 user "{ANN}" '
        f'password "secret" sslproto "" mda "cat >> {box}" fetchall\n'
    )
    control.chmod(0o600)
    command(
        "fetchmail", "-f", str(control), "--nodetach", "--nosyslog", "-i", str(tmp_path / "ids")
    )
    assert "Subject: by fetchmail" in box.read_text()
    assert empty.messages(ANN) == []


def send(instance: Instance, recipient: str, subject: str) -> None:
    with instance.smtp() as client:
        client.sendmail("me@example.net", [recipient], f"Subject: {subject}\r\n\r\nhello\r\n")


def test_smtplib_sends_twenty_mebibytes(empty: Instance) -> None:
    lines = random.Random(1).randbytes(20 * 1024 * 1024 // 2).hex()
    body = "\r\n".join(lines[at : at + 76] for at in range(0, len(lines), 76))
    with empty.smtp() as client:
        client.sendmail("me@example.net", [IAIN], f"Subject: big\r\n\r\n{body}\r\n")
    text = only_message(empty, IAIN)
    got = text.partition(b"\n\n")[2].replace(b"\n", b"\r\n")
    assert hashlib.sha256(got.rstrip()).digest() == hashlib.sha256(body.encode()).digest()


def test_smtplib_sends_eight_bit_and_utf8(empty: Instance) -> None:
    text = (
        "From: søren@example.net\r\nTo: jürgen@example.com\r\nSubject: grüße\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
        "\r\nschöne grüße\r\n"
    ).encode()
    with empty.smtp() as client:
        client.sendmail(
            "søren@example.net", ["jürgen@example.com"], text, ["SMTPUTF8", "BODY=8BITMIME"]
        )
    got = only_message(empty, "jürgen@example.com")
    assert got.endswith(text.replace(b"\r\n", b"\n").rstrip())
    assert b"with UTF8SMTP id" in got


def test_smtplib_sends_to_two_hundred_recipients(empty: Instance) -> None:
    recipients = [f"iain+{number}@example.com" for number in range(200)]
    with empty.smtp() as client:
        refused = client.sendmail("me@example.net", recipients, "Subject: many\r\n\r\nhello\r\n")
    assert refused == {}
    assert b"Subject: many" in only_message(empty, IAIN)


def test_one_unknown_recipient_among_many(empty: Instance) -> None:
    with empty.smtp() as client:
        refused = client.sendmail(
            "me@example.net", [IAIN, "nobody@example.com"], "Subject: one\r\n\r\nhello\r\n"
        )
    assert refused["nobody@example.com"][0] == 550
    assert refused["nobody@example.com"][1].startswith(b"5.1.1 ")
    only_message(empty, IAIN)


def test_stranger_may_not_relay(empty: Instance) -> None:
    with empty.smtp() as client, pytest.raises(smtplib.SMTPRecipientsRefused) as raised:
        client.sendmail("me@example.net", ["far@elsewhere.test"], "Subject: x\r\n\r\nx\r\n")
    assert raised.value.recipients["far@elsewhere.test"][1].startswith(b"5.7.1 ")


def test_poplib_reads_everything(empty: Instance) -> None:
    for subject in ("first", "second"):
        send(empty, IAIN, subject)
    session = empty.pop3(IAIN)
    count, size = session.stat()
    assert count == 2
    sizes = [int(line.split()[1]) for line in session.list()[1]]
    assert sum(sizes) == size
    assert [session.retr(number)[2] for number in (1, 2)] == sizes
    assert len({line.split()[1] for line in session.uidl()[1]}) == 2
    assert b"Subject: first" in session.top(1, 0)[1]
    assert b"hello" not in session.top(1, 0)[1]
    assert session.capa()["UIDL"] == []
    session.dele(1)
    session.quit()
    assert b"Subject: second" in only_message(empty, IAIN)


def test_wrong_password_and_unknown_user_are_told_the_same(instance: Instance) -> None:
    answers = set()
    for login, password in ((IAIN, "wrong"), ("nobody@example.com", "secret")):
        session = poplib.POP3("127.0.0.1", instance.pop3_port, timeout=60)
        session.user(login)
        with pytest.raises(poplib.error_proto) as raised:
            session.pass_(password)
        answers.add(bytes(raised.value.args[0]))
        session.close()
    assert len(answers) == 1
    assert b"[AUTH]" in answers.pop()

"""TLS on a running server: what may be said before it, what survives it, and whose it is."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.certificates import issue, trusting, write
from tests.support.instance import until
from tests.support.serving import (
    IAIN,
    SAMPLE,
    Sections,
    Wire,
    begin_data,
    is_alive,
    maildir,
    new_server,
    one_place_each,
    reload,
    resident,
    smtp,
    workers,
)
from tests.support.tls_ends import TlsClient
from tests.support.tls_serving import HOST, IAIN_PLAIN, Secured, tls_server

NEVER: Sections = {"auth": {"plaintext": "never"}, "tls": {"handshake_timeout": 2}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """One that takes no password in clear text."""
    with tls_server(tmp_path_factory.mktemp("tls"), NEVER) as running:
        yield running


def delivered(server: Secured) -> bytes:
    """The newest message in Iain's mailbox."""
    new = maildir(server.instance, IAIN) / "new"
    return max(new.iterdir(), key=lambda path: path.stat().st_mtime_ns).read_bytes()


# SMTP


def test_mail_over_starttls(server: Secured) -> None:
    with server.smtp() as wire:
        begin_data(wire, IAIN)
        wire.send(SAMPLE + b".\r\n")
        assert wire.reply().startswith("250 ")
    assert re.search(rb"with ESMTPS\n\t\(TLSv1\.3 TLS_\w+\) id \w+\n\tfor ", delivered(server))
    said = server.instance.log()
    assert re.search(r"event=tls_started session=\S+ version=TLSv1.3 cipher=TLS_\w+ sni=mx\.", said)


@pytest.mark.parametrize("service", ["submission", "submissions"])
def test_submission(server: Secured, service: str) -> None:
    with server.smtp(service) as wire:
        assert wire.ask(f"MAIL FROM:<{IAIN}>").startswith("530 5.7.0 Authentication required")
        assert wire.ask(f"AUTH PLAIN {IAIN_PLAIN}").startswith("235 2.7.0 ")
        assert wire.ask(f"MAIL FROM:<{IAIN}>").startswith("250 ")
        assert wire.ask(f"RCPT TO:<{IAIN}>").startswith("250 ")
        assert wire.ask("DATA").startswith("354 ")
        wire.send(SAMPLE + b".\r\n")
        assert wire.reply().startswith("250 ")
    assert b"with ESMTPSA\n\t(TLSv1.3 " in delivered(server)
    assert f"service=submission peer=127.0.0.1 login={IAIN}" in server.instance.log()


def test_no_password_in_clear_text(server: Secured) -> None:
    with smtp(server.instance.port("submission")) as wire:
        assert "AUTH" not in wire.ask("EHLO client.example")
        assert wire.ask(f"AUTH PLAIN {IAIN_PLAIN}").startswith("538 5.7.11 ")
        assert wire.ask(f"MAIL FROM:<{IAIN}>").startswith("530 5.7.0 Must issue a STARTTLS")


def test_port_25_has_no_logins(server: Secured) -> None:
    with server.smtp() as wire:
        assert "AUTH" not in wire.ask("EHLO client.example")
        assert wire.ask(f"AUTH PLAIN {IAIN_PLAIN}").startswith("502 5.5.1 ")


def test_guessing_ends_the_session(server: Secured) -> None:
    with server.smtp("submissions") as wire:
        for _ in range(3):
            assert wire.ask("AUTH PLAIN AGlhaW4Ad3Jvbmc=").startswith("535 5.7.8 ")
        assert wire.reply() == "421 4.7.0 Too many refused logins"
        assert wire.at_end()


def test_a_session_forgets_who_logged_in_before_starttls(tmp_path: Path) -> None:
    """On loopback a password may be sent in clear text; after STARTTLS it counts for nothing."""
    with tls_server(tmp_path) as server, smtp(server.instance.port("submission")) as wire:
        assert wire.ask(f"AUTH PLAIN {IAIN_PLAIN}").startswith("235 ")
        assert wire.ask(f"MAIL FROM:<{IAIN}>").startswith("250 ")
        assert wire.ask("STARTTLS").startswith("220 ")
        wire.start_tls(server.trust, HOST)
        assert wire.ask("RCPT TO:<x@example.net>").startswith("503 5.5.1 Send EHLO")
        assert "AUTH PLAIN LOGIN" in wire.ask("EHLO client.example")
        assert wire.ask(f"MAIL FROM:<{IAIN}>").startswith("530 5.7.0 Authentication required")


@pytest.mark.parametrize(("plaintext", "offered"), [("always", True), ("never", False)])
def test_logins_on_port_25_where_they_are_set(
    tmp_path: Path, plaintext: str, offered: bool
) -> None:
    settings: Sections = {"smtp": {"auth": True}, "auth": {"plaintext": plaintext}}
    with new_server(tmp_path / "instance", settings) as instance, smtp(instance.smtp_port) as wire:
        hello = wire.ask("EHLO client.example")
        assert ("AUTH PLAIN LOGIN" in hello) == offered
        assert "STARTTLS" not in hello
        code = "235" if offered else "538"
        assert wire.ask(f"AUTH PLAIN {IAIN_PLAIN}").startswith(code)
        assert wire.ask("MAIL FROM:<>").startswith("250 ")


def test_a_login_that_cannot_be_checked_is_temporary(tmp_path: Path) -> None:
    with tls_server(tmp_path) as server, server.smtp("submissions") as wire:
        (server.instance.directory / "restante.db").write_bytes(b"no database" * 1000)
        assert wire.ask(f"AUTH PLAIN {IAIN_PLAIN}").startswith("454 4.7.0 ")
        assert wire.ask(f"MAIL FROM:<{IAIN}>").startswith("530 ")


# POP3


def test_stls(server: Secured) -> None:
    with Wire(server.instance.pop3_port) as wire:
        assert wire.line().startswith("+OK ")
        wire.send(f"USER {IAIN}\r\n".encode())
        assert wire.line().startswith("-ERR [AUTH] ")
        wire.send(b"STLS\r\n")
        assert wire.line().startswith("+OK ")
        wire.start_tls(server.trust, HOST)
        wire.send(f"USER {IAIN}\r\nPASS secret\r\n".encode())
        assert wire.line().startswith("+OK ")
        assert wire.line().startswith("+OK maildrop has ")


def test_pop3s(server: Secured) -> None:
    with Wire(server.instance.port("pop3s")) as wire:
        wire.start_tls(server.trust, HOST)
        assert wire.line().startswith("+OK ")
        wire.send(f"USER {IAIN}\r\nPASS secret\r\n".encode())
        assert wire.line().startswith("+OK ")
        assert wire.line().startswith("+OK maildrop has ")


# Injection (CVE-2011-0411)


@pytest.mark.parametrize(
    ("service", "hello", "command", "injected"),
    [
        ("smtp", b"EHLO c\r\n", b"STARTTLS\r\n", b"EHLO evil\r\nMAIL FROM:<e@evil.example>\r\n"),
        ("submission", b"EHLO c\r\n", b"STARTTLS\r\n", b"AUTH PLAIN eA==\r\n"),
        ("pop3", b"", b"STLS\r\n", b"USER evil\r\n"),
    ],
)
def test_what_is_sent_with_starttls_never_reaches_the_session(
    server: Secured, service: str, hello: bytes, command: bytes, injected: bytes
) -> None:
    with Wire(server.instance.port(service)) as wire:
        wire.line()
        if hello:
            wire.send(hello)
            wire.reply()
        wire.send(command + injected)
        refusal = wire.line()
        assert refusal.startswith(("503 5.5.1 Nothing may follow", "-ERR nothing may follow"))
        assert wire.at_end()


@pytest.mark.parametrize(
    ("service", "hello", "command", "injected", "probe", "answer"),
    [
        ("smtp", b"EHLO c\r\n", b"STARTTLS\r\n", b"EHLO evil\r\n", "MAIL FROM:<>", "503 5.5.1 "),
        ("pop3", b"", b"STLS\r\n", b"USER iain@example.com\r\n", "PASS secret", "-ERR USER first"),
    ],
)
def test_what_is_sent_right_after_starttls_never_reaches_the_session(
    server: Secured,
    service: str,
    hello: bytes,
    command: bytes,
    injected: bytes,
    probe: str,
    answer: str,
) -> None:
    """Whether it comes before the handshake begins or as its first octets: nothing of it counts."""
    with Wire(server.instance.port(service)) as wire:
        wire.line()
        if hello:
            wire.send(hello)
            wire.reply()
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.send(command)
        wire.send(injected)
        said = wire.line()
        if not said.startswith(("220 ", "+OK ")):
            assert "othing may follow" in said
            return
        try:
            wire.start_tls(server.trust, HOST)
        except OSError:
            return  # they were taken for a handshake, which they are not
        wire.send(f"{probe}\r\n".encode())
        assert wire.line().startswith(answer)


# Handshakes that fail


ALERT = b"\x15"
"""How the record of an alert begins, with which some versions of OpenSSL end it."""


def failures(server: Secured) -> int:
    return server.instance.log().count("event=tls_failed")


@pytest.mark.parametrize("service", ["submissions", "pop3s"])
def test_what_is_no_handshake_is_closed(server: Secured, service: str) -> None:
    before = failures(server)
    with Wire(server.instance.port(service)) as wire:
        wire.send(b"EHLO client.example\r\n")
        assert wire.rest()[:1] in {b"", ALERT}
    until(lambda: failures(server) > before, "it is logged")
    assert "event=unplanned" not in server.instance.log()


@pytest.mark.parametrize("service", ["smtp", "submissions"])
def test_a_handshake_that_never_comes(server: Secured, service: str) -> None:
    before = failures(server)
    with Wire(server.instance.port(service)) as wire:
        if service == "smtp":
            wire.reply()
            wire.ask("EHLO client.example")
            wire.ask("STARTTLS")
        assert wire.at_end()
    until(lambda: failures(server) > before, "it is logged")
    assert "why=timeout" in server.instance.log()


@pytest.mark.parametrize("service", ["smtp", "submissions"])
def test_a_client_that_hangs_up_in_its_handshake(server: Secured, service: str) -> None:
    before = failures(server)
    with Wire(server.instance.port(service)) as wire:
        if service == "smtp":
            wire.reply()
            wire.ask("EHLO client.example")
            wire.ask("STARTTLS")
        wire.send(b"\x16\x03\x01")
    until(lambda: failures(server) > before, "it is logged")
    assert "event=unplanned" not in server.instance.log()


def test_tls_1_1_is_refused(server: Secured) -> None:
    before = failures(server)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with Wire(server.instance.port("submissions")) as wire, pytest.raises(OSError, match=r"\S"):
        wire.start_tls(old, HOST)
    until(lambda: failures(server) > before, "it is logged")
    assert "unsupported protocol" in server.instance.log()


def test_tls_1_2_is_taken(server: Secured) -> None:
    trust = server.trust
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    with Wire(server.instance.port("submissions")) as wire:
        assert wire.start_tls(trust, HOST).version() == "TLSv1.2"
        assert wire.reply().startswith("220 ")


def test_a_client_that_does_not_trust_us_is_named(server: Secured) -> None:
    with (
        Wire(server.instance.port("submissions")) as wire,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        wire.start_tls(trusting(), HOST)
    until(lambda: "unknown ca" in server.instance.log(), "the alert is logged")


def test_a_host_that_nobody_can_have_leaves_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with tls_server(tmp_path) as server:
        client = TlsClient(server.trust, "xxxx.example.com")
        with Wire(server.instance.port("submissions")) as wire:
            wire.send(client.shake_hands().replace(b"xxxx", b"\xff\n\r\xfe"))
            wire.socket.recv(100)
        until(lambda: failures(server), "it is logged")
    assert "UnicodeDecodeError" not in capfd.readouterr().err


def test_handshakes_count_against_the_limits(tmp_path: Path) -> None:
    limit = {"server": {"max_connections_per_address": 1}}
    with tls_server(tmp_path, limit) as server:
        until(lambda: "event=session_closed" in server.instance.log(), "the first has ended")
        with Wire(server.instance.port("submissions")) as first:
            until(lambda: "service=submission" in server.instance.log(), "it is let in")
            with Wire(server.instance.port("submissions")) as second:
                assert second.at_end()
            first.start_tls(server.trust, HOST)
            assert first.reply().startswith("220 ")
        assert "event=session_refused service=submission" in server.instance.log()


def test_a_server_stops_in_the_middle_of_a_handshake(tmp_path: Path) -> None:
    """At once: a handshake has nothing to lose, and its time-out is far away."""
    with tls_server(tmp_path, {"server": {"drain_timeout": 3600}}) as server:
        with Wire(server.instance.port("submissions")), Wire(server.instance.smtp_port) as plain:
            plain.reply()
            plain.ask("EHLO client.example")
            plain.ask("STARTTLS")
            assert server.instance.stop() == 0
        assert "event=unplanned" not in server.instance.log()


# Certificates


def greets(server: Secured, host: str) -> bool:
    """Whether a new connection is shown a certificate for ``host`` that a client trusts."""
    with Wire(server.instance.port("submissions")) as wire:
        try:
            wire.start_tls(server.trust, host)
        except ssl.SSLCertVerificationError:
            return False
        return wire.reply().startswith("220 ")


def test_a_certificate_changes_under_open_connections(tmp_path: Path) -> None:
    with tls_server(tmp_path) as server, server.smtp("submissions") as before:
        write(tmp_path, "mx", issue(HOST, "new.example.com", by=server.authority))
        until(lambda: greets(server, "new.example.com"), "the new certificate is served")
        assert "event=certificate_loaded" in server.instance.log()
        assert before.ask("NOOP").startswith("250 ")

        (tmp_path / "mx.key").write_text("nonsense")
        until(
            lambda: greets(server, HOST) and "certificate_refused" in server.instance.log(),
            "the wrong pair is refused, and the one from before is served",
        )
        assert before.ask("NOOP").startswith("250 ")


def test_sni(tmp_path: Path) -> None:
    authority = issue()
    files = write(tmp_path, "net", issue("*.example.net", by=authority))
    more = {"tls": {"certificates": {files.certificate: files.key}}}
    with tls_server(tmp_path, more, authority) as server:
        assert greets(server, "mail.example.net")
        assert greets(server, HOST)
        assert not greets(server, "elsewhere.example.org")
        assert "sni=mail.example.net" in server.instance.log()


def test_a_reload_keeps_the_old_generation_where_a_key_does_not_match(tmp_path: Path) -> None:
    with tls_server(tmp_path) as server, server.smtp("submissions") as before:
        other = write(tmp_path, "other", issue(HOST))
        (tmp_path / "mx.key").write_bytes(Path(other.key).read_bytes())
        refused = reload(server.instance)
        assert "event=reload_refused" in refused
        assert "mx.key is not the key of" in refused
        assert before.ask("NOOP").startswith("250 ")
        assert greets(server, HOST)


def test_a_server_does_not_start_with_another_certificates_key(tmp_path: Path) -> None:
    """One message, which says what and where; afterwards it starts with the right one."""
    with tls_server(tmp_path) as server:
        instance = server.instance
        assert instance.stop() == 0
        good = (tmp_path / "mx.key").read_bytes()
        (tmp_path / "mx.key").write_bytes(issue().key_pem())

        refused = instance.run("serve", check=False)

        assert refused.returncode == 69
        assert refused.stderr.count("restante: ") == 1
        assert "mx.key is not the key of" in refused.stderr
        (tmp_path / "mx.key").write_bytes(good)
        instance.start()
        assert instance.stop() == 0


def test_a_worker_that_ends_has_a_successor_though_a_key_is_wrong_by_now(tmp_path: Path) -> None:
    """It serves as the one before it did, and renews the certificate as that would have."""
    with tls_server(tmp_path) as server:
        instance = server.instance
        key = tmp_path / "mx.key"
        good = key.read_bytes()
        for damage in (lambda: key.write_bytes(issue().key_pem()), key.unlink):
            damage()
            (worker,) = workers(instance, 1)
            os.kill(worker, signal.SIGKILL)
            until(lambda former=worker: not is_alive(former), "it has ended")
            until(lambda: greets(server, HOST), "its successor serves, over TLS")
        assert "mx.key is not the key of" in instance.log()
        assert "mx.key cannot be read: No such file" in instance.log()
        assert "event=worker_failed" not in instance.log()

        write(tmp_path, "mx", issue(HOST, "new.example.com", by=server.authority))
        until(lambda: greets(server, "new.example.com"), "the new certificate is served")
        key.write_bytes(good)
        assert "event=reload_refused" in reload(instance), "a new generation needs good files"


# Clients that come again


def test_every_worker_knows_them(tmp_path: Path) -> None:
    with tls_server(tmp_path, {"server": {"workers": 3}}) as server:
        seen = workers(server.instance, 3)
        trust = server.trust
        session = None
        known = []
        for _ in range(12):
            with one_place_each(server.instance, 3), ExitStack() as beside:
                for _ in range(3):
                    wire = beside.enter_context(Wire(server.instance.port("submissions")))
                    secured = wire.start_tls(trust, HOST, session)
                    assert wire.reply().startswith("220 ")
                    known.append(secured.session_reused)
                session = secured.session
        assert known.count(False) == 3, "those without a ticket"
        assert seen == workers(server.instance, 3)


def come_again(
    server: Secured, trust: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession | None]:
    """Whether a client is known by its session, and the one that it has afterwards."""
    with Wire(server.instance.port("submissions")) as wire:
        secured = wire.start_tls(trust, HOST, session)
        assert wire.reply().startswith("220 ")
        return bool(secured.session_reused), secured.session


def test_who_takes_the_place_of_a_worker_knows_its_clients(tmp_path: Path) -> None:
    with tls_server(tmp_path, {"server": {"workers": 1}}) as server:
        (victim,) = workers(server.instance, 1)
        trust = server.trust
        _, session = come_again(server, trust, None)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in workers(server.instance, 1), "another worker")
        known, _ = come_again(server, trust, session)
        assert known


def test_a_reload_brings_new_keys_and_ends_sessions_in_tls(tmp_path: Path) -> None:
    with tls_server(tmp_path, {"server": {"workers": 1}}) as server:
        trust = server.trust
        _, session = come_again(server, trust, None)
        with server.smtp("submissions") as before:
            assert "event=server_reloaded" in reload(server.instance)
            known, session = come_again(server, trust, session)
            assert not known, "its ticket is for a key that nobody has any more"
            assert come_again(server, trust, session)[0]
            assert before.reply().startswith("421 4.3.2 ")
            assert before.at_end()


# Limits


@pytest.mark.parametrize("service", ["smtp", "submissions"])
def test_who_does_not_let_go_after_the_session_counts(tmp_path: Path, service: str) -> None:
    """A server's end of TLS waits for the client's, and for so long there is a connection."""

    def is_let_in(port: int) -> bool:
        with Wire(port) as wire:
            return wire.reply().startswith("220 ")

    with tls_server(tmp_path, {"server": {"max_connections_per_address": 2}}) as running:
        port = running.instance.smtp_port
        until(lambda: is_let_in(port), "whoever waited for the server has gone")
        lingering = [running.smtp(service) for _ in range(2)]
        for wire in lingering:
            assert wire.ask("QUIT").startswith("221 ")
        assert not is_let_in(port)
        for wire in lingering:
            wire.close()
        until(lambda: is_let_in(port), "room for others")


# What it takes


def test_a_session_that_does_nothing_takes_little_memory(tmp_path: Path) -> None:
    """Hardly more than OpenSSL keeps of a connection, which is more in 3.5 than in 3.0."""
    begin, more, limit = 20, 60, 56 * 1024
    with tls_server(tmp_path) as server, ExitStack() as sessions:
        (worker,) = workers(server.instance, 1)
        before = 0
        for number in range(begin + more):
            wire = sessions.enter_context(server.smtp("submission"))
            assert wire.ask(f"AUTH PLAIN {IAIN_PLAIN}").startswith("235 ")
            if number + 1 == begin:
                before = resident(worker)
        assert (resident(worker) - before) / more < limit

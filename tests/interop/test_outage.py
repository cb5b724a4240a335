"""The database goes away and comes back: nothing says "no such user", nothing needs a restart."""

from __future__ import annotations

import poplib
import smtplib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest

from restante.tls.certificate import PairFiles
from tests.support.certificates import issue, replace, write
from tests.support.instance import Instance, new_instance, until
from tests.support.mariadb import MariaDB, start_mariadb, with_tls

pytestmark = pytest.mark.mariadb

IAIN = "iain@example.com"
ANSWER_WITHIN = 10.0
"""Seconds in which a peer hears that the database cannot be asked."""
BRIEF = {f"RESTANTE_DATABASE__{name}_TIMEOUT": "2" for name in ("CONNECT", "QUERY")}
"""So that what hangs is waited for as long as in a server on one of the ways to it, not on each."""

Outage = tuple[Callable[[MariaDB], None], Callable[[MariaDB], None]]
OUTAGES: dict[str, Outage] = {
    "stopped": (MariaDB.stop, MariaDB.start),
    "killed": (MariaDB.kill, MariaDB.start),
    "hanging": (MariaDB.freeze, MariaDB.thaw),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with those of the server, of a client, and of the authority of both."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = issue()
    for name in ("ca.pem", "server-ca.pem"):
        replace(str(directory / name), authority.certificate_pem)
    write(directory, "server", issue("localhost", by=authority))
    write(directory, "client", issue("mx.example.com", by=authority))
    return directory


@pytest.fixture(scope="module")
def server(certificates: Path) -> Iterator[MariaDB]:
    own = PairFiles(str(certificates / "server.pem"), str(certificates / "server.key"))
    running = start_mariadb(options=with_tls(own, str(certificates / "server-ca.pem")))
    yield running
    running.remove()


@pytest.fixture(scope="module", params=["socket", "tcp", "tls"])
def instance(
    request: pytest.FixtureRequest,
    server: MariaDB,
    certificates: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Instance]:
    url = server.url(server.new_database(), tcp=request.param != "socket")
    if request.param == "tls":
        # Where root runs these tests, only root can read the files.
        names = {"ssl_ca": "ca.pem", "ssl_cert": "client.pem", "ssl_key": "client.key"}
        options = {option: str(certificates / name) for option, name in names.items()}
        url = url.replace("127.0.0.1", "localhost") + f"?{urlencode(options)}"
    environ = {"RESTANTE_AUTH__REFUSAL_DELAY": "0.1"}
    if request.param != "tcp":
        environ |= BRIEF
    directory = tmp_path_factory.mktemp("outage") / "instance"
    with new_instance(directory, database=url, environ=environ) as running:
        running.add_mailbox(IAIN)
        running.start()
        deliver(running, "before")
        yield running


def deliver(instance: Instance, subject: str) -> None:
    with instance.smtp() as client:
        client.sendmail("me@example.net", [IAIN], f"Subject: {subject}\r\n\r\nhello\r\n")


def rcpt(instance: Instance, recipient: str) -> tuple[int, bytes]:
    with instance.smtp() as client:
        client.ehlo()
        client.mail("me@example.net")
        return client.rcpt(recipient)


def login_answer(instance: Instance) -> bytes:
    session = poplib.POP3("127.0.0.1", instance.pop3_port, timeout=60)
    try:
        session.user(IAIN)
        session.pass_("secret")
    except poplib.error_proto as error:
        return bytes(error.args[0])
    finally:
        session.close()
    return b"+OK"


@pytest.mark.parametrize("kind", OUTAGES)
def test_outage_is_temporary_and_ends_without_restart(
    instance: Instance, server: MariaDB, kind: str
) -> None:
    away, back = OUTAGES[kind]
    with instance.smtp() as held_open:
        held_open.ehlo()
        away(server)
        try:
            during_the_outage(instance, held_open)
        finally:
            back(server)
        assert held_open.rset()[0] == 250
        assert held_open.mail("me@example.net")[0] == 250
        code, _ = held_open.rcpt("nobody@example.com")
        assert code == 550, "the next command works, on the session that saw the outage"
    deliver(instance, f"after {kind}")
    assert any(f"after {kind}".encode() in text for text in instance.messages(IAIN))


def during_the_outage(instance: Instance, held_open: smtplib.SMTP) -> None:
    for recipient in (IAIN, "nobody@example.com", "far@elsewhere.test", IAIN):
        began = time.monotonic()
        code, text = told(held_open, recipient)
        assert (code, text[:6]) == (451, b"4.3.0 "), recipient
        assert time.monotonic() - began < ANSWER_WITHIN
    began = time.monotonic()
    assert login_answer(instance).startswith(b"-ERR [SYS/TEMP]")
    assert time.monotonic() - began < ANSWER_WITHIN
    assert instance.run("explain", IAIN, check=False).returncode == 75


def told(client: smtplib.SMTP, recipient: str) -> tuple[int, bytes]:
    """What RCPT is answered, or the content where the recipient was taken on trust."""
    client.mail("me@example.net")
    code, text = client.rcpt(recipient)
    if code == 250:
        code, text = client.data("Subject: during\r\n\r\nlost?\r\n")
    client.rset()
    return code, text


def test_queued_mail_waits_for_the_database(server: MariaDB, tmp_path: Path) -> None:
    """What was accepted for later is neither lost nor bounced while the database is away."""
    url = server.url(server.new_database(), tcp=True)
    with new_instance(tmp_path / "instance", database=url) as instance:
        instance.add_mailbox(IAIN)
        instance.here("alias", "add", "mixed@example.com", IAIN)
        instance.here("alias", "add", "mixed@example.com", "far@elsewhere.test")
        instance.start()
        with instance.smtp() as client:
            client.ehlo()
            client.mail("me@example.net")
            assert client.rcpt("mixed@example.com")[0] == 250
            server.stop()
            try:
                assert client.data("Subject: patient\r\n\r\nhello\r\n")[0] == 250
                until(lambda: "event=deferred" in instance.log(), "the attempt was deferred")
                assert "event=failed" not in instance.log()
                assert "event=bounced" not in instance.log()
            finally:
                server.start()
        instance.stop()
        make_due(instance)
        instance.start()
        until(lambda: has_message(instance), "the message arrived after the database was back")


def make_due(instance: Instance) -> None:
    """Spare the test the minutes until the next attempt."""
    with closing(sqlite3.connect(instance.directory / "queue" / "0" / "queue.db")) as queue:
        for table in ("recipient", "lane"):
            queue.execute(f"UPDATE {table} SET next_attempt = 0")
        queue.commit()


def has_message(instance: Instance) -> bool:
    return any(b"Subject: patient" in text for text in instance.messages(IAIN))

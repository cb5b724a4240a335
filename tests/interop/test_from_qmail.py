"""A site as qmail left it: a control directory, and tables that SQL statements alone have filled.

It is served as it is; every kind of address gets what ``explain`` has promised for it.
"""

from __future__ import annotations

import os
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.control import control_directory
from tests.support.instance import PATIENCE, Instance, until
from tests.support.mariadb import PASSWORD, USER, MariaDB
from tests.support.serving import LOOPBACK

pytestmark = pytest.mark.mariadb

AS_ROOT = os.geteuid() == 0
UIDS = {"iain": 5001, "ann": 5002, "fred": 5003}
TABLES = """
CREATE TABLE rcpthosts (host VARCHAR(100) NOT NULL);
CREATE TABLE mailbox (username VARCHAR(80), uid INT, gid INT, home VARCHAR(200),
    password VARCHAR(100), password_type VARCHAR(30) DEFAULT 'MySQL-Password');
CREATE TABLE `virtual` (username VARCHAR(80), virtual_username VARCHAR(80),
    virtual_host VARCHAR(100));
CREATE TABLE alias (username VARCHAR(80), alias VARCHAR(80), alias_username VARCHAR(200),
    alias_host VARCHAR(100));
INSERT INTO rcpthosts VALUES ('iain.cx'), ('babasse.com'), ('catch.example');
INSERT INTO `virtual` VALUES ('iain', 'example', 'babasse.com'),
    ('ann@babasse.com', 'ann', 'babasse.com'), ('iain', '', 'catch.example');
INSERT INTO alias VALUES ('iain', 'list', 'ann', 'babasse.com'), ('fred', '', './Mailbox', NULL),
    ('fred', 'prog', '|cat > $HOME/got', NULL);
"""
ACCOUNTS = [("iain", "iain"), ("ann@babasse.com", "ann"), ("fred", "fred")]
"""Names of accounts and of their homes."""


class Promise(NamedTuple):
    """What an address comes to."""

    address: str
    explained: str
    """What explain says; HOMES stands for the directory of homes."""
    where: str
    """The file that gets the message, by a pattern below HOMES."""
    header: str


PROMISES = [
    Promise(
        "example@iain.cx",
        "mailbox of iain: HOMES/iain/Maildir",
        "iain/Maildir/new/*",
        "Delivered-To: iain@babasse.com",
    ),
    Promise(
        "iain@iain.cx",
        "mailbox of iain: HOMES/iain/Maildir",
        "iain/Maildir/new/*",
        "Delivered-To: iain@iain.cx",
    ),
    Promise(
        "whoever@catch.example",
        "mailbox of iain: HOMES/iain/Maildir",
        "iain/Maildir/new/*",
        "Delivered-To: iain@catch.example",
    ),
    Promise(
        "ann+tag@babasse.com",
        "mailbox of ann@babasse.com: HOMES/ann/Maildir",
        "ann/Maildir/new/*",
        "Delivered-To: ann@babasse.com",
    ),
    Promise(
        "iain-list@iain.cx",
        "Delivered-To: ann@babasse.com (by way of iain-list@babasse.com)",
        "ann/Maildir/new/*",
        "Delivered-To: iain-list@babasse.com",
    ),
    Promise(
        "fred@iain.cx",
        "./Mailbox of fred",
        "fred/Mailbox",
        "Delivered-To: fred@iain.cx",
    ),
    Promise(
        "fred-prog@iain.cx",
        "|cat > $HOME/got of fred",
        "fred/got",
        "Subject: fred-prog@iain.cx",
    ),
]


class Site(NamedTuple):
    """The site while it is served."""

    instance: Instance
    homes: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, mariadb_server: MariaDB) -> Iterator[Site]:
    top = tmp_path_factory.mktemp("qmail")
    homes = top / "homes"
    homes.mkdir(mode=0o755)
    database = mariadb_server.new_database()
    mariadb_server.sql(
        TABLES + "".join(_account(name, homes / home) for name, home in ACCOUNTS), database
    )
    control = control_directory(
        top,
        {
            "me": "mx.iain.cx\n",
            "locals": "iain.cx\n",
            "envnoathost": "babasse.com\n",
            "sqlserver": f"server {LOOPBACK}\nport {mariadb_server.port}\nlogin {USER}\n"
            f"password {PASSWORD}\ndb {database}\n",
        },
    )
    control.chmod(0o755)
    environ = {
        "RESTANTE_CONTROL": str(control),
        "RESTANTE_SMTP__LISTEN": f'["{LOOPBACK}:0"]',
        "RESTANTE_POP3__LISTEN": f'["{LOOPBACK}:0"]',
        "RESTANTE_PROGRAMS__RUN_AS_SERVER_USER": "false" if AS_ROOT else "true",
    }
    (top / "instance").mkdir(mode=0o755)
    instance = Instance(top / "instance", environ)
    instance.start()
    yield Site(instance, homes)
    instance.kill()


def _account(name: str, home: Path) -> str:
    """A row of mailbox, and the home it names."""
    home.mkdir(mode=0o700)
    uid = UIDS[home.name] if AS_ROOT else os.geteuid()
    gid = uid if AS_ROOT else os.getegid()
    os.chown(home, uid, gid)
    return f"INSERT INTO mailbox VALUES ('{name}', {uid}, {gid}, '{home}', 'secret', 'Password');"


def send(site: Site, address: str) -> None:
    with smtplib.SMTP(LOOPBACK, site.instance.smtp_port, timeout=PATIENCE) as client:
        client.sendmail("me@example.net", [address], f"Subject: {address}\n\nhello\n")


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.address)
def test_what_explain_promises_is_done(site: Site, promise: Promise) -> None:
    told = site.instance.here("explain", promise.address).stdout
    assert promise.explained in told.replace(str(site.homes), "HOMES")
    assert "A stranger hears at RCPT: 250" in told

    send(site, promise.address)
    subject = f"Subject: {promise.address}\n"

    def arrived() -> list[str]:
        texts = [file.read_text() for file in site.homes.glob(promise.where)]
        return [text for text in texts if subject in text and promise.header in text]

    until(arrived, f"{promise.address} has its message")
    owner = UIDS[promise.where.partition("/")[0]] if AS_ROOT else os.geteuid()
    assert {file.stat().st_uid for file in site.homes.glob(promise.where)} == {owner}


@pytest.mark.parametrize(
    ("address", "reply"),
    [("nobody@babasse.com", "550 5.1.1"), ("ann@elsewhere.example", "550 5.7.1")],
)
def test_refusals_are_as_explained(site: Site, address: str, reply: str) -> None:
    told = site.instance.here("explain", address).stdout
    assert f"A stranger hears at RCPT: {reply} " in told

    with (
        smtplib.SMTP(LOOPBACK, site.instance.smtp_port, timeout=PATIENCE) as client,
        pytest.raises(smtplib.SMTPRecipientsRefused) as refused,
    ):
        client.sendmail("me@example.net", [address], "Subject: x\n\n")
    code, text = refused.value.recipients[address]
    assert f"{code} {text.decode()}".startswith(f"{reply} ")


def test_mail_is_read_by_pop3(site: Site) -> None:
    for login in ("iain", "ann@babasse.com"):
        before = len(site.instance.messages(login))
        send(site, "iain@iain.cx" if login == "iain" else "ann@babasse.com")
        assert len(site.instance.messages(login)) == before + 1


def test_nobody_else_can_be_told_the_password(site: Site) -> None:
    log = site.instance.log()

    assert re.search("event=control_read ", log)
    assert PASSWORD not in log

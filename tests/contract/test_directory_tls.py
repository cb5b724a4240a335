"""TLS to the database: what database.url demands is had, or nothing is asked at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import uvloop

from restante.config.tree import Database
from restante.directory.engine import Row, open_engine
from restante.errors import CannotKnow
from restante.tls.certificate import PairFiles
from tests.support.certificates import DAY, NOW, Issued, issue, replace, write
from tests.support.mariadb import PASSWORD, USER, MariaDB, start_mariadb, with_tls, without_tls
from tests.support.rsa_server import OK, greeting

# A connection that is refused may still be saying goodbye over TLS when its loop ends.
pytestmark = [
    pytest.mark.mariadb,
    pytest.mark.filterwarnings("ignore:unclosed (resource|transport|.socket):ResourceWarning"),
]

CIPHER = "SHOW STATUS LIKE 'Ssl_cipher'"
HOST = "localhost"
"""Whom the server's certificate is for; it does not name 127.0.0.1, where that is."""
CLIENT_SSL = 0x0800
"""The capability of a server that speaks TLS (MySQL's Internals, Capabilities Flags)."""
LOOPS: list[Callable[[Coroutine[Any, Any, list[Row]]], list[Row]]] = [asyncio.run, uvloop.run]
"""Those of commands, and of workers."""


@dataclass(frozen=True)
class Site:
    """A server with a certificate of an authority, and a client with another one of it."""

    server: MariaDB
    authority: Issued
    directory: Path
    client: PairFiles

    @property
    def ca(self) -> str:
        """The authority's certificate."""
        return str(self.directory / "ca.pem")

    def url(self, host: str = HOST, user: str = USER, **options: str) -> str:
        """By TCP, for a user whose password is like all of them."""
        url = self.server.url("mysql", tcp=True)
        url = url.replace("127.0.0.1", host).replace(f"//{USER}:", f"//{user}:")
        return f"{url}?{urlencode(options)}"

    def show(self, issued: Issued) -> None:
        """From now on the server has this certificate."""
        self.server.stop()
        for path, data in (("db.pem", issued.certificate_pem), ("db.key", issued.key_pem())):
            (self.directory / path).write_bytes(data)
        self.server.start()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("tls")
    authority = issue()
    for name in ("ca", "server-ca"):
        replace(str(directory / f"{name}.pem"), authority.certificate_pem)
    own = write(directory, "db", issue(HOST, by=authority))
    client = write(directory, "client", issue("mx.example.com", by=authority))
    server = start_mariadb(options=with_tls(own, str(directory / "server-ca.pem")))
    for user, demand in (("encrypted", "SSL"), ("shown", "X509")):
        password = PASSWORD.replace("'", "''")
        server.sql(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY '{password}' REQUIRE {demand}")
        server.sql(f"GRANT ALL ON *.* TO {user}@'127.0.0.1'")
    yield Site(server, authority, directory, client)
    server.remove()


async def fetch(url: str, sql: str = CIPHER) -> list[Row]:
    engine = open_engine(Database(url=url, connect_timeout=2.0), "/")
    try:
        return await engine.fetch(sql)
    finally:
        await engine.close()


def cipher(url: str) -> str:
    """What the connection is encrypted with, as the server says; empty: with nothing."""
    [(_, used)] = uvloop.run(fetch(url))
    return str(used)


def refusal(url: str) -> str:
    with pytest.raises(CannotKnow) as caught:
        uvloop.run(fetch(url))
    return str(caught.value)


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("mode", ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY", "verify_ca", ""])
def test_statements_go_encrypted(
    site: Site, mode: str, run: Callable[[Coroutine[Any, Any, list[Row]]], list[Row]]
) -> None:
    options = {"ssl_mode": mode} if mode else {}
    if mode != "REQUIRED":
        options["ssl_ca"] = site.ca
    [(name, used)] = run(fetch(site.url(**options)))
    assert (name, bool(used)) == ("Ssl_cipher", True)


def test_without_options_nothing_is_encrypted(site: Site) -> None:
    assert cipher(site.url()) == ""


def test_a_connection_in_use_goes_on_encrypted(site: Site) -> None:
    """Many statements, large ones, changes, and connections one after another."""

    async def work() -> None:
        engine = open_engine(Database(url=site.url(ssl_ca=site.ca)), "/")
        try:
            for _ in range(20):
                rows = await asyncio.gather(
                    *(engine.fetch("SELECT REPEAT('x', ?)", (300_000 + each,)) for each in range(8))
                )
                assert [len(str(row[0])) for [row] in rows] == [300_000 + i for i in range(8)]
                assert await engine.transaction([]) == []
        finally:
            await engine.close()

    uvloop.run(work())


def test_a_connection_that_the_server_has_ended_is_replaced(site: Site) -> None:
    async def work() -> None:
        engine = open_engine(Database(url=site.url(ssl_ca=site.ca)), "/")
        try:
            for _ in range(3):
                [(number,)] = await engine.fetch("SELECT CONNECTION_ID()")
                site.server.sql(f"KILL {number!r}")
                [(another,)] = await engine.fetch("SELECT CONNECTION_ID()")
                assert another != number
        finally:
            await engine.close()

    uvloop.run(work())


def test_the_systems_authorities_are_believed_where_none_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ssl_ca in database.url must name" in refusal(site.url(ssl_mode="VERIFY_CA"))
    monkeypatch.setenv("SSL_CERT_FILE", site.ca)
    assert cipher(site.url(ssl_mode="VERIFY_IDENTITY"))


def test_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(issue(subject="another authority").certificate_pem)
    for mode in ("VERIFY_CA", "VERIFY_IDENTITY"):
        said = refusal(site.url(ssl_mode=mode, ssl_ca=str(other)))
        assert "its certificate is refused: " in said
        assert said.endswith("; ssl_ca in database.url must name the authority that has issued it")


def test_another_name_is_refused_where_names_are_checked(site: Site) -> None:
    said = refusal(site.url("127.0.0.1", ssl_ca=site.ca))
    assert "certificate is not valid for '127.0.0.1'; call the host in database.url" in said
    assert cipher(site.url("127.0.0.1", ssl_ca=site.ca, ssl_mode="VERIFY_CA"))


def test_an_address_may_be_the_name(site: Site) -> None:
    site.show(issue("127.0.0.1", by=site.authority))
    try:
        assert cipher(site.url("127.0.0.1", ssl_ca=site.ca))
        assert "is not valid for 'localhost'" in refusal(site.url(ssl_ca=site.ca))
    finally:
        site.show(issue(HOST, by=site.authority))


def test_of_several_hosts_one_whose_certificate_is_refused_is_left_alone(site: Site) -> None:
    port = site.server.port
    url = site.url(f"127.0.0.1:{port},{HOST}:{port},127.0.0.1", ssl_ca=site.ca)
    assert cipher(url)


def test_an_expired_certificate_is_refused_where_it_is_checked(site: Site) -> None:
    site.show(issue(HOST, by=site.authority, begins=NOW - 2 * DAY, ends=NOW - DAY))
    try:
        for mode in ("VERIFY_CA", "VERIFY_IDENTITY"):
            said = refusal(site.url(ssl_mode=mode, ssl_ca=site.ca))
            assert said.endswith("certificate has expired; renew it on the server")
        assert cipher(site.url(ssl_mode="REQUIRED"))
    finally:
        site.show(issue(HOST, by=site.authority))


def test_users_who_must_be_encrypted(site: Site) -> None:
    assert "ssl_mode" in refusal(site.url(user="encrypted"))
    assert cipher(site.url(user="encrypted", ssl_ca=site.ca))


def test_users_who_must_show_a_certificate(site: Site) -> None:
    assert "Access denied" in refusal(site.url(user="shown", ssl_ca=site.ca))
    shown = {"ssl_cert": site.client.certificate, "ssl_key": site.client.key}
    assert cipher(site.url(user="shown", ssl_ca=site.ca, **shown))


def test_a_server_that_takes_nothing_else(site: Site) -> None:
    site.server.sql("SET GLOBAL require_secure_transport = ON")
    try:
        assert "ssl_mode" in refusal(site.url())
        assert cipher(site.url(ssl_ca=site.ca))
    finally:
        site.server.sql("SET GLOBAL require_secure_transport = OFF")


def test_a_server_without_tls_is_not_asked() -> None:
    server = start_mariadb(options=without_tls())
    try:
        said = refusal(server.url("mysql", tcp=True) + "?ssl_mode=REQUIRED")
        assert "the server offers no TLS, and ssl_mode in database.url demands it" in said
    finally:
        server.remove()


@dataclass
class Impostor:
    """Greets as MySQL does, and keeps what comes; it goes on in clear text, or says no more."""

    capabilities: int
    is_silent: bool
    heard: bytes = b""
    left: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    """One for each connection that the other end has closed."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = greeting(self.capabilities)
        writer.write(len(hello).to_bytes(3, "little") + b"\0" + hello)
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(4096):
                self.heard += octets
                if not self.is_silent:
                    writer.write(OK)
        writer.close()
        self.left.put_nowait(None)


@pytest.mark.parametrize("is_silent", [False, True], ids=["goes on in clear", "hangs"])
@pytest.mark.parametrize("capabilities", [0, CLIENT_SSL], ids=["without TLS", "with TLS"])
def test_no_word_is_said_in_clear_text(capabilities: int, *, is_silent: bool) -> None:
    """To one in the middle, who leaves TLS out of what the server offers, or does not do it."""

    async def talk() -> None:
        impostor = Impostor(capabilities, is_silent)
        listening = await asyncio.start_server(impostor.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        url = f"mysql://somebody:secret@127.0.0.1:{port}/mail?ssl_mode=REQUIRED"
        engine = open_engine(Database(url=url, connect_timeout=0.3), "/")
        for _ in range(3):
            with pytest.raises(CannotKnow, match=r"no TLS|TLS fails|in time"):
                await engine.fetch("SELECT 'a question'")
            await impostor.left.get()
        await engine.close()
        listening.close()
        assert impostor.heard
        for word in (b"somebody", b"mail", b"question"):
            assert word not in impostor.heard

    uvloop.run(asyncio.wait_for(talk(), 60))

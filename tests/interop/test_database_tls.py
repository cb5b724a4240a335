"""A whole server whose database is asked by TLS alone, and what becomes of its certificates."""

from __future__ import annotations

import os
import poplib
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.certificates import Issued, issue, replace, write
from tests.support.instance import NOBODY, Instance, new_instance, until
from tests.support.mariadb import MariaDB, start_mariadb, with_tls
from tests.support.owner import only_root
from tests.support.serving import reload

pytestmark = pytest.mark.mariadb

IAIN = "iain@example.com"
HOST = "localhost"


@dataclass(frozen=True)
class Site:
    """An instance, its database, and whom it believes about that."""

    instance: Instance
    server: MariaDB
    authority: Issued
    directory: Path

    @property
    def ca(self) -> str:
        """The file that ``ssl_ca`` names."""
        return str(self.directory / "ca.pem")

    def show(self, by: Issued) -> None:
        """The database is away, and back with a certificate of another authority."""
        issued = issue(HOST, by=by)
        self.server.kill()
        for name, data in (("db.pem", issued.certificate_pem), ("db.key", issued.key_pem())):
            (self.directory / name).write_bytes(data)
        self.server.start()

    def rcpt(self, recipient: str = IAIN) -> int:
        """What RCPT, or the content where that is taken on trust, is answered."""
        with self.instance.smtp() as client:
            client.ehlo()
            client.mail("me@example.net")
            code, _ = client.rcpt(recipient)
            return client.data(b"Subject: hello\r\n\r\nhello\r\n")[0] if code == 250 else code


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    authority = issue()
    for name in ("ca.pem", "server-ca.pem"):
        replace(str(tmp_path / name), authority.certificate_pem)
    own = write(tmp_path, "db", issue(HOST, by=authority))
    server = start_mariadb(options=with_tls(own, str(tmp_path / "server-ca.pem")))
    try:
        server.sql("SET GLOBAL require_secure_transport = ON")
        url = server.url(server.new_database(), tcp=True).replace("127.0.0.1", HOST)
        url += f"?{urlencode({'ssl_mode': 'VERIFY_IDENTITY', 'ssl_ca': tmp_path / 'ca.pem'})}"
        with new_instance(tmp_path / "instance", database=url) as instance:
            instance.add_mailbox(IAIN)
            yield Site(instance, server, authority, tmp_path)
    finally:
        server.remove()


def test_a_refused_certificate_is_temporary_until_the_files_are_renewed(site: Site) -> None:
    instance, another = site.instance, issue(subject="another authority")
    instance.start()
    assert site.rcpt() == 250
    site.show(by=another)
    assert site.rcpt() == 451
    assert site.rcpt("nobody@example.com") == 451, "which may be there, for all that is known"
    with pytest.raises(poplib.error_proto, match=r"SYS/TEMP"):
        instance.pop3(IAIN)
    why = "its certificate is refused: "
    assert why in instance.log()
    checked = instance.run("check", check=False)
    assert why in checked.stdout + checked.stderr
    assert "ssl_ca in database.url must name the authority" in checked.stdout + checked.stderr

    replace(site.ca, another.certificate_pem)
    assert "event=server_reloaded" in reload(instance)
    assert site.rcpt() == 250
    assert site.rcpt("nobody@example.com") == 550
    until(lambda: len(instance.messages(IAIN)) == 2, "both messages came")
    assert "event=unplanned" not in instance.log()


def test_files_that_cannot_be_used_refuse_reload_and_start(site: Site) -> None:
    instance = site.instance
    instance.start()
    assert site.rcpt() == 250
    replace(site.ca, b"no certificate")
    why = f"database.url: {site.ca} holds no certificate that can be read"
    refused = reload(instance)
    assert "event=reload_refused" in refused
    assert why in refused
    assert site.rcpt() == 250, "by what was read before"
    assert instance.stop() == 0

    started = instance.run("serve", check=False)
    assert started.returncode != 0
    assert started.stderr.startswith(f"restante: {why}"), "nobody was started for it"
    assert why in instance.run("check", check=False).stdout
    replace(site.ca, site.authority.certificate_pem)
    instance.start()
    assert site.rcpt() == 250


@only_root
def test_a_registrar_reads_what_only_root_can(site: Site) -> None:
    """Mail of another uid than the workers' needs one; a refused reload leaves it alone."""
    instance, owner = site.instance, pwd.getpwnam("mail")
    home = site.directory / "home"
    home.mkdir()
    os.chown(home, owner.pw_uid, owner.pw_gid)
    site.server.sql(
        f"UPDATE mailbox SET uid = {owner.pw_uid}, gid = {owner.pw_gid}, home = '{home}'",
        "restante_1",
    )
    instance.environ |= {"RESTANTE_MAIL__MINIMUM_UID": "1", "RESTANTE_SERVER__USER": NOBODY}
    instance.start()
    assert site.rcpt() == 250
    until(lambda: len(instance.messages(IAIN)) == 1, "a helper has delivered it")
    replace(site.ca, b"no certificate")
    assert "event=reload_refused" in reload(instance)
    assert instance.log().count("event=servant_started name=registrar") == 1

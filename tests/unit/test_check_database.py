"""``check`` and a database that is asked by the network in clear text."""

from __future__ import annotations

import pytest

from restante.cli.findings import Findings
from restante.cli.server_examination import examine_servers
from restante.config.tree import Database, Settings

FAR = "192.0.2.7"
"""An address of nobody (RFC 5737); a single server is not asked here."""


def advice(url: str) -> list[str]:
    findings = Findings()
    examine_servers(Settings(directory="/", database=Database(url=url)), findings)
    assert findings.problems == []
    return findings.advice


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///restante.db",
        "mysql://u:p@/mail?unix_socket=/s",
        "mysql://u:p@localhost/mail",
        "mysql://u:p@127.0.0.2:3307/mail",
        "mysql://u:p@[::1]/mail",
        f"mysql://u:p@{FAR}/mail?ssl_mode=REQUIRED",
        f"mysql://u:p@{FAR}/mail?ssl_ca=/ca.pem",
    ],
)
def test_what_nobody_else_hears_is_no_matter(url: str) -> None:
    assert advice(url) == []


@pytest.mark.parametrize("host", [FAR, "[2001:db8::7]", "[::ffff:192.0.2.7]"])
def test_clear_text_to_another_host_is_named(host: str) -> None:
    (said,) = advice(f"mysql://u:secret@{host}/mail")
    assert said == (
        "database.url: mail addresses and password hashes go in clear text between here and "
        f"{host.strip('[]')}; add ?ssl_mode=VERIFY_IDENTITY, and ssl_ca for an authority of your "
        "own, unless nobody else hears that network"
    )

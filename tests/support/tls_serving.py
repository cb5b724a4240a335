"""Instances that speak TLS, and clients that believe a test's own authority."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Issued, issue, trusting, write
from tests.support.instance import Instance
from tests.support.serving import Sections, Wire, new_server

HOST = "mx.example.com"
IAIN_PLAIN = "AGlhaW5AZXhhbXBsZS5jb20Ac2VjcmV0"
"""iain@example.com and his password, for AUTH PLAIN."""


@dataclass(frozen=True)
class Secured:
    """A running instance, and who vouches for it."""

    instance: Instance
    authority: Issued

    @property
    def trust(self) -> ssl.SSLContext:
        """For a client."""
        return trusting(self.authority)

    def smtp(self, service: str = "smtp") -> Wire:
        """A session over TLS, after its second EHLO, or its first on a port with TLS."""
        wire = Wire(self.instance.port(service))
        if service != "submissions":
            assert wire.reply().startswith("220 ")
            assert "STARTTLS" in wire.ask("EHLO client.example")
            assert wire.ask("STARTTLS").startswith("220 2.0.0 ")
        wire.start_tls(self.trust, HOST)
        if service == "submissions":
            assert wire.reply().startswith("220 ")
        assert "STARTTLS" not in wire.ask("EHLO client.example")
        return wire


def tls_sections(directory: Path, authority: Issued, sections: Sections | None = None) -> Sections:
    """A certificate for HOST in ``directory``, and the settings that serve it everywhere."""
    files = write(directory, "mx", issue(HOST, by=authority))
    settings: dict[str, dict[str, object]] = {
        "tls": {"certificate": files.certificate, "key": files.key},
        "submission": {"listen": ["127.0.0.1:0"], "listen_tls": ["127.0.0.1:0"]},
        "pop3": {"listen_tls": ["127.0.0.1:0"]},
    }
    for section, values in (sections or {}).items():
        settings.setdefault(section, {}).update(values)
    return settings


@contextmanager
def tls_server(
    directory: Path, sections: Sections | None = None, authority: Issued | None = None
) -> Iterator[Secured]:
    """A server with TLS in DIRECTORY/instance; its certificate lies in ``directory``."""
    authority = authority or issue()
    settings = tls_sections(directory, authority, sections)
    with new_server(directory / "instance", settings) as instance:
        yield Secured(instance, authority)

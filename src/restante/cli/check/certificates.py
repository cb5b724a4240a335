"""What ``check`` says of certificates, and of what the lack of one means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from restante.cli.check.findings import Findings
from restante.config import Settings
from restante.errors import OperatorError

if TYPE_CHECKING:
    from restante.tls.files import PemFiles


def examine_certificates(settings: Settings, findings: Findings) -> None:
    """Read every pair as the server would when it starts."""
    from restante.tls import CertificateRefused
    from restante.tls.certificate import load_pair, utc_now
    from restante.tls.certificates import pairs_of

    if not settings.tls.is_offered:
        findings.advice.append(_without_tls(settings))
        return
    names: set[str] = set()
    source = _source(settings)
    for files in pairs_of(settings):
        try:
            pair = load_pair(files, source)
        except CertificateRefused as error:
            findings.problems.append(f"tls: {error}")
            continue
        names.update(pair.names)
        findings.problems += [f"tls: {fault}" for fault in pair.faults(utc_now())]
        findings.advice += [f"tls: {advice}" for advice in pair.advice(utc_now())]
    if names and not covers(names, settings.hostname):
        findings.advice.append(
            f"tls: no certificate is for {settings.hostname}, which this host calls itself "
            f"(server.me); there are some for {', '.join(sorted(names))}"
        )


def _source(settings: Settings) -> PemFiles:
    """The files with the rights of who starts the server: root reads what is closed to others."""
    from restante.service.user import handed_files, server_user, starters_rights, starting_uid
    from restante.tls.certificates import paths_of
    from restante.tls.files import DiskFiles, HandedFiles, open_pem

    paths = paths_of(settings)
    if starting_uid(settings) != 0:
        with starters_rights(settings):
            return HandedFiles.opened(paths, open_pem)
    try:
        user = server_user(settings)
    except OperatorError:
        user = None  # there is none: a problem that is told elsewhere
    return DiskFiles() if user is None else handed_files(paths, user)


def covers(names: Iterable[str], host: str) -> bool:
    """Whether one of the names, ``*.example.com`` among them, is the host's (RFC 6125 §6.4.3)."""
    host = host.lower()
    return not {host, f"*.{host.partition('.')[2]}"}.isdisjoint(names)


def _without_tls(settings: Settings) -> str:
    passwords = {
        "never": "nobody can log in",
        "loopback": "passwords are taken from this host alone",
        "always": "passwords travel in clear text",
    }[settings.auth.plaintext]
    return (
        f"tls.certificate is not set: STARTTLS and STLS are not offered, and {passwords} "
        "(auth.plaintext)"
    )

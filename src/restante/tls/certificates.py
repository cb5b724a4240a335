"""All certificates of this host: the right one for each client, and new ones without a restart."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from weakref import WeakKeyDictionary

from restante import maillog
from restante.config import Settings
from restante.tls import CertificateRefused
from restante.tls.certificate import Pair, PairFiles, load_pair, utc_now
from restante.tls.files import DiskFiles, Identity, PemFiles
from restante.tls.tickets import TicketContexts

LOOK_INTERVAL = 5.0
"""Seconds between two looks at the files, which a handshake has to wait for."""
WARN_INTERVAL = 24 * 3600.0
"""Seconds after which a certificate that is doubtful still, or by now, is told of again."""

_Signature = tuple[Identity, Identity]


def pairs_of(settings: Settings) -> Iterator[PairFiles]:
    """The certificates that settings name, the default one first."""
    tls = settings.tls
    if tls.certificate:
        yield PairFiles(settings.path(tls.certificate), settings.path(tls.key))
    for certificate, key in tls.certificates.items():
        yield PairFiles(settings.path(certificate), settings.path(key))


def paths_of(settings: Settings) -> frozenset[str]:
    """The files that settings name as certificates and keys."""
    return frozenset(path for pair in pairs_of(settings) for path in (pair.certificate, pair.key))


@dataclass(slots=True)
class _Served:
    """A pair, and what its files looked like when they were last read, well or not."""

    pair: Pair
    signature: _Signature
    refusal: str = ""
    """Why they were not taken then. They are read again at each look: the reason may lie elsewhere
    (no descriptors, a file server that is away, the clock)."""


class Certificates:
    """Certificates by the host that a client asks for (SNI, RFC 6066 §3).

    Files that have changed are read again; where they are wrong, what was read before goes
    on being served, and ``certificate_refused`` is logged. Connections never notice.
    """

    def __init__(
        self,
        files: Iterable[PairFiles],
        source: PemFiles | None = None,
        tickets: TicketContexts | None = None,
        former: PemFiles | None = None,
        *,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``files`` must not be empty, and are read from disk unless ``source`` has them; without
        ``tickets`` nobody shares them. ``former`` has what was read before, if anything was.
        Raises CertificateRefused.
        """
        self._source = source or DiskFiles()
        self._now = now
        self._monotonic = monotonic
        self._served = [self._serve(each, former) for each in files]
        self._tickets = tickets or TicketContexts(monotonic())
        self._names: dict[str, ssl.SSLContext] = {}
        self._asked: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()
        self._index()
        self._begin()
        self._warn_of_all()

    def for_handshake(self) -> ssl.SSLContext:
        """A context that gives way to a certificate's, whether the client names a host or not."""
        if self._monotonic() >= self._look_again:
            self._look()
            self._begin()
        return self._first

    def server_name(self, handshake: ssl.SSLObject) -> str:
        """The host that the client asked for; empty if it named none."""
        return self._asked.get(handshake, "")

    def _begin(self) -> None:
        """From now on until files are looked at again, handshakes begin alike."""
        now = self._monotonic()
        self._look_again = now + LOOK_INTERVAL
        self._first = self._tickets.at(now)
        self._first.sni_callback = self._choose

    def _index(self) -> None:
        """Of certificates for the same name the first one counts."""
        self._names = {}
        for served in reversed(self._served):
            self._names |= dict.fromkeys(served.pair.names, served.pair.context)

    def _choose(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        """OpenSSL asks in each handshake; a name that nobody bears, and none, gets the default."""
        context = None
        if name is not None and isinstance(handshake, ssl.SSLObject):
            name = name.lower()
            self._asked[handshake] = name
            context = self._names.get(name) or self._names.get("*." + name.partition(".")[2])
        handshake.context = context or self._served[0].pair.context

    def _look(self) -> None:
        changed = [self._renew(served) for served in self._served]
        if any(changed):
            self._index()
        if self._monotonic() >= self._warn_again:
            self._warn_of_all()

    def _renew(self, served: _Served) -> bool:
        """Read a pair again if its files have changed, or were refused; whether it is another one
        now. A refusal is told once, and again where files have changed."""
        files = served.pair.files
        before = served.signature, served.refusal
        served.signature, served.refusal = self._signature(files), ""
        if (served.signature, served.refusal) == before:
            return False
        try:
            fresh = self._fresh(served.pair)
        except CertificateRefused as error:
            served.refusal = str(error)
            if (served.signature, served.refusal) != before:
                maillog.certificate_refused(files.certificate, served.refusal)
            return False
        served.pair = fresh
        maillog.certificate_loaded(files.certificate, fresh.names, fresh.not_after)
        self._warn(fresh)
        return True

    def _fresh(self, pair: Pair) -> Pair:
        """The pair as its files have it now; raises CertificateRefused."""
        fresh = load_pair(pair.files, self._source)
        if self._now() >= fresh.not_after and fresh.not_after <= pair.not_after:
            why = f"{pair.files.certificate} expired before the one that is served"
            raise CertificateRefused(why)
        return fresh

    def _warn_of_all(self) -> None:
        self._warn_again = self._monotonic() + WARN_INTERVAL
        for served in self._served:
            self._warn(served.pair)

    def _warn(self, pair: Pair) -> None:
        for what in (*pair.faults(self._now()), *pair.advice(self._now())):
            maillog.certificate_doubtful(pair.files.certificate, what)

    def _serve(self, files: PairFiles, former: PemFiles | None) -> _Served:
        """Read a pair; its signature first, so that a change meanwhile is seen later."""
        signature = self._signature(files)
        try:
            return _Served(load_pair(files, self._source), signature)
        except CertificateRefused as error:
            if former is None:
                raise
            maillog.certificate_refused(files.certificate, str(error))
            return _Served(load_pair(files, former), signature, str(error))

    def _signature(self, files: PairFiles) -> _Signature:
        """What changes whenever one of the files does."""
        return self._source.identity(files.certificate), self._source.identity(files.key)

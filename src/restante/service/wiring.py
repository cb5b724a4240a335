"""One worker's parts, put together and taken apart in order."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterable, Mapping

from restante import maillog
from restante.auth import SystemLogins
from restante.auth.login import PasswordAuthenticator
from restante.auth.proven import ProvenPasswords
from restante.auth.scram import load_secret
from restante.auth.upgrade import PasswordUpgrades
from restante.checkpassword.answers import Answers
from restante.checkpassword.desk import Desk
from restante.checkpassword.wire import MAX_QUESTION, socket_path
from restante.config import Settings
from restante.config.live import Derived, LiveSettings
from restante.courier import MailCourier, WaysOut
from restante.directory.engine import open_engine
from restante.directory.lookups import SqlDirectory
from restante.envelope import queue_ids
from restante.errors import OperatorError
from restante.guessing import Guard
from restante.guessing.guard import guard_of
from restante.metrics.files import figures_directory
from restante.metrics.prometheus import PrometheusMeter
from restante.metrics.server import MetricsServer
from restante.net.handshakes import Handshakes
from restante.net.pop3 import Pop3Service
from restante.net.server import ConnectionLimits, Server, Service, session_ids
from restante.net.smtp import SmtpService
from restante.processors import Berth, own_processor
from restante.queue.room import is_full
from restante.queue.store import QueueStore
from restante.receiver import ServiceName
from restante.receiver.door import Receiver
from restante.receiver.limits import SendingLimits
from restante.relay.driver import SmtpRelay
from restante.relay.routes import Routes
from restante.routing.router import Router
from restante.routing.strangers import Strangers
from restante.service.allocator import give_back_for_ever
from restante.service.dropped import Dropped
from restante.service.hands import helping_hands, own_hands
from restante.service.own_queue import ROOM_INTERVAL
from restante.service.place import WorkerPlace
from restante.service.queues import Queues, spool_of
from restante.service.renewal import renew
from restante.service.system_logins import system_logins
from restante.service.window import Window
from restante.spool import clean_spool
from restante.tls.certificates import Certificates, pairs_of
from restante.tls.files import HandedFiles
from restante.usage.ledger import UsageLedger


class Worker:
    """All services, one queue, one event loop."""

    def __init__(self, settings: Settings, place: WorkerPlace, pem: HandedFiles | None) -> None:
        """``pem``: certificates and keys, where they have to be asked for in the office."""
        self._settings = settings
        self._slot = place.slot
        self._share = place.generation.board.share(place.number)
        self._berth = Berth(own_processor(place.number, settings.server.workers), self._share)
        self._window = None if place.office is None else Window(place.office)
        self._pem = pem
        self._renewing: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._servers: list[Server] = []
        self._metrics: MetricsServer | None = None
        self._is_first = place.slot == min(place.generation.fellows)
        """It does what one worker of a generation does for all."""
        self._completing: asyncio.Task[None] | None = None
        self._adopting: asyncio.Task[None] | None = None
        self._desk: Desk | None = None
        self._ids = queue_ids(place.slot)
        self._handshakes = _handshakes(settings, pem, place)
        self._hands = (
            own_hands(settings) if self._window is None else helping_hands(settings, self._window)
        )
        self._directory = SqlDirectory(
            open_engine(settings.database, settings.directory, log_sql=settings.log.sql, pem=pem),
            self._hands.files,
        )
        live = self._live = LiveSettings(settings, _ControlLog(), _router)
        router = self._router = Derived(live, _router)
        self._dropped = Dropped(
            settings, place.slot, self._ids.__next__, lambda address: router().qualified(address)
        )
        self._strangers = Strangers()
        self._familiar = place.generation.familiar
        self._routes = Derived(live, _routes)
        self._guard = guard_of(settings)
        self._system = system_logins(settings, asks_registrar=place.office is not None)
        self._authenticator = _authenticator(
            settings, self._directory, self._guard, self._system, place.generation.proven
        )
        self._ledger = UsageLedger(settings.path(settings.queue.root))
        self._relay = SmtpRelay(settings, live)
        courier = Derived(live, self._make_courier)
        forget_silence = self._relay.forget_silence
        self._queues = Queues(settings, place, live, courier, forget_silence, self._ids)

    async def start(self, sockets: Mapping[str, list[socket.socket]]) -> None:
        """Open the queue, then serve; raises OperatorError when something cannot be opened.

        Where only room for the queue is missing, it is opened later.
        """
        self._tidying = asyncio.create_task(give_back_for_ever())
        if "metrics" in sockets:
            await self._measure(sockets["metrics"])
        if self._window is not None and self._pem is not None:
            self._renewing = asyncio.create_task(renew(self._pem, self._settings, self._window))
        store = await self._queues.open()
        # Only now: whoever has the queue has the spool of the same name as well.
        spool = self._spool_directory()
        sending = SendingLimits(self._settings.submission, self._ledger, time.time)
        receiver = Derived(self._live, lambda settings: self._make_receiver(settings, sending))
        server_settings = self._settings.server
        limits = ConnectionLimits(
            total=server_settings.max_connections,
            per_address=server_settings.max_connections_per_address,
            share=self._share,
            arrived=self._berth.arrived,
        )
        sessions = session_ids(self._slot)
        for service in self._services(receiver, spool):
            server = Server(service, limits, sessions, self._handshakes)
            self._servers.append(server)
            # The s of submissions and pop3s, as IANA has registered them.
            server.start(sockets.get(service.name, []), sockets.get(f"{service.name}s", []))
        self._share.open()
        if self._is_first:
            self._adopting = asyncio.create_task(self._queues.adopt_for_ever())
            answers = Answers(self._authenticator, self._directory, sessions)
            path = socket_path(self._settings.directory)
            self._desk = Desk(path, MAX_QUESTION, answers.respond)
            self._desk.start()
        if store is None or not self._is_first or not self._dropped.collect(store):
            self._completing = asyncio.create_task(self._complete(store))

    async def stop(self) -> None:
        """Accept no more, let commands in progress finish, and close everything."""
        patience = self._settings.server.drain_timeout
        for server in self._servers:
            server.accept_no_more()
        if self._metrics is not None:
            self._metrics.accept_no_more()
        self._share.close()  # only now: whoever sees it takes the sockets to be closed
        self._berth.close()
        await _cancel(self._completing)
        await _cancel(self._adopting)
        # Attempts, sessions and pick-up have the same time to finish, not one after the other.
        self._queues.start_no_more()
        stopping = [server.stop(patience) for server in self._servers]
        if self._desk is not None:
            stopping.append(self._desk.stop())
        await asyncio.gather(*stopping, self._dropped.stop(patience))
        await self._queues.come_to_rest()
        # Before anybody else can have a queue, and try again what is still being written for it.
        await self._hands.close()
        await self._queues.close()
        await self._relay.close(patience)
        await self._ledger.close()
        await self._authenticator.close()
        await self._system.close()
        await self._guard.close()
        await self._directory.close()
        if self._metrics is not None:
            await self._metrics.stop()
        await _cancel(self._renewing)
        await _cancel(self._tidying)
        if self._window is not None:
            self._window.close()

    async def _measure(self, sockets: list[socket.socket]) -> None:
        """Count from now on; before the queue is opened, which is what the first figure tells.

        A worker without room for its figures has none: counted from later on, they were wrong.
        """
        figures = figures_directory(self._settings.directory)
        try:
            maillog.measure_with(PrometheusMeter(figures, self._slot))
        except OSError as error:
            maillog.metrics_failed(figures, error.strerror or str(error))
        self._metrics = MetricsServer(figures)
        await self._metrics.start(sockets)

    def _make_receiver(self, settings: Settings, sending: SendingLimits) -> Receiver:
        return Receiver(
            settings,
            self._router(),
            self._directory,
            self._hands.writer,
            self._queues.own,
            self._routes(),
            self._ids,
            limits=sending,
            strangers=self._strangers,
            familiar=self._familiar,
        )

    def _make_courier(self, _: Settings) -> MailCourier:
        out = WaysOut(self._routes(), self._relay)
        return MailCourier(
            self._router(), self._directory, self._hands.writer, out, self._strangers
        )

    def _services(self, receiver: Derived[Receiver], spool: str) -> Iterable[Service]:
        settings = self._settings
        doors: tuple[ServiceName, ...] = ("smtp", "submission")
        for name in doors:
            yield SmtpService(
                name, self._live, receiver, spool, self._authenticator, self._handshakes
            )
        yield Pop3Service(
            settings.pop3,
            settings.hostname,
            settings.auth,
            self._authenticator,
            self._hands.store,
            self._handshakes,
        )

    async def _complete(self, store: QueueStore | None) -> None:
        """Begin later with what the start had no room for.

        Where another worker picks up, only what a former owner of this queue had claimed is left.
        """
        if store is None:
            store = await self._queues.open_later()
        while True:
            if self._is_first:
                is_done = self._dropped.collect(store)
            else:
                is_done = await self._dropped.settle(store)
            if is_done:
                return
            await asyncio.sleep(ROOM_INTERVAL)

    def _spool_directory(self) -> str:
        """Where there is no room for it now, it is made when the first message needs it."""
        directory = spool_of(self._settings, self._slot)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            clean_spool(directory)
        except OSError as error:
            if not is_full(error):
                raise OperatorError(
                    f"the spool {directory} cannot be used: {error.strerror}"
                ) from error
        return directory


def _router(settings: Settings) -> Router:
    return Router(settings.routing, settings.hostname)


def _routes(settings: Settings) -> Routes:
    return Routes(settings.routing.smtproutes)


def _authenticator(
    settings: Settings,
    directory: SqlDirectory,
    guard: Guard,
    system: SystemLogins,
    proven: ProvenPasswords | None,
) -> PasswordAuthenticator:
    """Logins as the settings have them; raises OperatorError."""
    auth = settings.auth
    uses_scram = "SCRAM-SHA-256" in auth.mechanisms
    return PasswordAuthenticator(
        directory,
        auth,
        guard,
        PasswordUpgrades(directory) if auth.upgrade else None,
        load_secret(settings.path(settings.queue.root)) if uses_scram else b"",
        system,
        proven,
    )


def _handshakes(
    settings: Settings, pem: HandedFiles | None, place: WorkerPlace
) -> Handshakes | None:
    """TLS with the certificates that settings name, if any; raises CertificateRefused."""
    pairs = tuple(pairs_of(settings))
    if not pairs:
        return None
    generation = place.generation
    former = generation.pem if place.is_successor else None
    certificates = Certificates(pairs, pem, generation.tickets, former)
    return Handshakes(certificates, settings.tls.handshake_timeout)


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(ended, Exception):  # long ago perhaps; the stop goes on
            maillog.unplanned("a worker's task", ended)


class _ControlLog:
    """Tells the mail log what becomes of changes in the control directory."""

    def reread(self, changed: list[str], passed_over: list[str]) -> None:
        """As ``config.live.Listener`` has it; so does ``refused``."""
        maillog.control_reread(changed, passed_over)

    def refused(self, problems: list[str]) -> None:
        """The old values stay in force."""
        maillog.control_refused(problems)

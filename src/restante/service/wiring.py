"""One worker's parts, put together and taken apart in order."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from functools import partial

from restante import maillog, metrics
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
from restante.drop import DropPaths
from restante.dsn.reporter import DsnReporter
from restante.envelope import queue_ids
from restante.errors import OperatorError, TemporaryError
from restante.guessing import Guard
from restante.guessing.guard import guard_of
from restante.net.handshakes import Handshakes
from restante.net.pop3 import Pop3Service
from restante.net.server import ConnectionLimits, Server, Service, session_ids
from restante.net.smtp import SmtpService
from restante.pickup.collector import Collector, settle
from restante.pickup.place import prepare
from restante.processors import Berth, own_processor
from restante.queue import QueueTaken, QueueUnusable
from restante.queue.clock import SystemClock
from restante.queue.retry import RetryPolicy
from restante.queue.room import is_full
from restante.queue.scheduler import Scheduler
from restante.queue.slots import queue_slots
from restante.queue.store import QueueStore
from restante.queue.traffic import Limits
from restante.receiver import ServiceName
from restante.receiver.door import Receiver
from restante.receiver.limits import SendingLimits
from restante.relay.driver import SmtpRelay
from restante.relay.routes import Routes
from restante.routing.router import Router
from restante.routing.strangers import Strangers
from restante.service.allocator import give_back_for_ever
from restante.service.hands import helping_hands, own_hands
from restante.service.own_queue import ROOM_INTERVAL, OwnQueue
from restante.service.place import WorkerPlace
from restante.service.renewal import renew
from restante.service.system_logins import system_logins
from restante.service.window import Window
from restante.spool import clean_spool
from restante.threads import in_thread
from restante.tls.certificates import Certificates, pairs_of
from restante.tls.files import HandedFiles
from restante.usage.ledger import UsageLedger

ADOPTION_INTERVAL = 10.0
"""Seconds between two looks for queues that no worker owns."""


class Worker:
    """All services, one queue, one event loop."""

    def __init__(self, settings: Settings, place: WorkerPlace, pem: HandedFiles | None) -> None:
        """``pem``: certificates and keys, where they have to be asked for in the office."""
        self._settings = settings
        self._slot = place.slot
        self._fellows = place.generation.fellows
        self._share = place.generation.board.share(place.number)
        self._berth = Berth(own_processor(place.number, settings.server.workers), self._share)
        self._window = None if place.office is None else Window(place.office)
        self._pem = pem
        self._renewing: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._servers: list[Server] = []
        self._queues: dict[int, RunningQueue] = {}
        self._unusable: dict[int, str] = {}
        """Queues that others left and why they cannot be adopted."""
        self._unsettled: dict[int, QueueStore] = {}
        """Those whose last owner's pick-up cannot be put in order yet."""
        self._metrics: metrics.MetricsServer | None = None
        self._is_first = place.slot == min(place.generation.fellows)
        """It does what one worker of a generation does for all."""
        self._needs_queue = place.needs_queue
        self._own = OwnQueue(self._directory_of(place.slot), partial(self._open_queue, place.slot))
        self._completing: asyncio.Task[None] | None = None
        self._drop_failure = ""
        self._adopting: asyncio.Task[None] | None = None
        self._collector: Collector | None = None
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
        self._router = Derived(live, _router)
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
        self._courier = Derived(live, self._make_courier)

    async def start(self, sockets: Mapping[str, list[socket.socket]]) -> None:
        """Open the queue, then serve; raises OperatorError when something cannot be opened.

        Where only room for the queue is missing, it is opened later.
        """
        self._tidying = asyncio.create_task(give_back_for_ever())
        if "metrics" in sockets:
            await self._measure(sockets["metrics"])
        if self._window is not None and self._pem is not None:
            self._renewing = asyncio.create_task(renew(self._pem, self._settings, self._window))
        store = await self._own.open(needed=self._needs_queue)
        if store is not None:
            self._run_queue(self._slot, store)
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
            self._adopting = asyncio.create_task(self._adopt_queues())
            answers = Answers(self._authenticator, self._directory, sessions)
            path = socket_path(self._settings.directory)
            self._desk = Desk(path, MAX_QUESTION, answers.respond)
            self._desk.start()
        if store is None or not self._is_first or not self._collects_dropped(store, spool):
            self._completing = asyncio.create_task(self._complete(store, spool))

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
        for queue in self._queues.values():
            queue.start_no_more()
        stopping = [server.stop(patience) for server in self._servers]
        if self._desk is not None:
            stopping.append(self._desk.stop())
        if self._collector is not None:
            stopping.append(self._collector.stop(patience))
        await asyncio.gather(*stopping)
        await asyncio.gather(*(queue.come_to_rest() for queue in self._queues.values()))
        # Before anybody else can have a queue, and try again what is still being written for it.
        await self._hands.close()
        stores = [queue.store for queue in self._queues.values()]
        await asyncio.gather(*(store.close() for store in (*stores, *self._unsettled.values())))
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
        figures = metrics.figures_directory(self._settings.directory)
        try:
            maillog.measure_with(metrics.PrometheusMeter(figures, self._slot))
        except OSError as error:
            maillog.metrics_failed(figures, error.strerror or str(error))
        self._metrics = metrics.MetricsServer(figures)
        await self._metrics.start(sockets)

    def _make_receiver(self, settings: Settings, sending: SendingLimits) -> Receiver:
        return Receiver(
            settings,
            self._router(),
            self._directory,
            self._hands.writer,
            self._own,
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

    async def _complete(self, store: QueueStore | None, spool: str) -> None:
        """Begin later with what the start had no room for.

        Where another worker picks up, only what a former owner of this queue had claimed is left.
        """
        if store is None:
            store = await self._own.open_later()
            self._run_queue(self._slot, store)
        while True:
            if self._is_first:
                is_done = self._collects_dropped(store, spool)
            else:
                is_done = await self._settles(store)
            if is_done:
                return
            await asyncio.sleep(ROOM_INTERVAL)

    def _spool_directory(self) -> str:
        """Where there is no room for it now, it is made when the first message needs it."""
        directory = self._spool_of(self._slot)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            clean_spool(directory)
        except OSError as error:
            if not is_full(error):
                raise OperatorError(
                    f"the spool {directory} cannot be used: {error.strerror}"
                ) from error
        return directory

    def _spool_of(self, slot: int) -> str:
        return os.path.join(self._settings.path(self._settings.queue.root), "spool", str(slot))

    def _collects_dropped(self, store: QueueStore, spool: str) -> bool:
        """Whether mail from programs on this host is picked up; the server serves all the same."""
        try:
            prepare(self._settings)
        except OperatorError as error:
            self._drop_failed(str(error))
            return False
        self._collector = Collector(self._settings, self._slot, store, self._ids.__next__, spool)
        self._collector.start()
        return True

    async def _settles(self, store: QueueStore) -> bool:
        """Whether nothing that was claimed for the worker's own queue lies there any more."""
        try:
            await settle(self._settings, self._slot, store)
        except (TemporaryError, OSError) as error:
            self._drop_failed(str(error))
            return False
        return True

    def _drop_failed(self, why: str) -> None:
        """Dropped mail waits; told once, not at each attempt."""
        if self._drop_failure != why:
            self._drop_failure = why
            maillog.drop_failed(DropPaths.of(self._settings.directory).root, why)

    # Queues

    def _directory_of(self, slot: int) -> str:
        return os.path.join(self._settings.path(self._settings.queue.root), str(slot))

    def _open_queue(self, slot: int) -> QueueStore:
        queue = self._settings.queue
        return QueueStore.open(self._settings.path(queue.root), slot, queue.max_waiting)

    def _run_queue(self, slot: int, store: QueueStore) -> RunningQueue:
        settings = self._settings
        scheduler = Scheduler(
            store,
            self._courier,
            Derived(self._live, _reporter),
            RetryPolicy(
                lifetime=settings.queue.queuelifetime,
                random=random.random,
                delay_notice=settings.queue.delay_notice,
            ),
            SystemClock(),
            self._ids.__next__,
            Limits(
                local=settings.queue.concurrencylocal,
                remote=settings.queue.concurrencyremote,
                per_lane=settings.relay.concurrency_per_destination,
                per_message=settings.relay.concurrency_per_message,
                programs=settings.queue.concurrencyprograms,
            ),
        )
        store.heed(self._relay.forget_silence)
        running = self._queues[slot] = RunningQueue(store, scheduler, settings.server.drain_timeout)
        return running

    async def _adopt_queues(self) -> None:
        """Deliver what other workers left; remove their queues when they are empty.

        A queue that a new generation has made and not locked yet may be taken here: it is
        empty, so it is given back at once, and its worker is patient.
        """
        while True:
            try:
                await self._adopt_once()
            except Exception as error:  # noqa: BLE001 - a bug must not end adoption, nor the stop
                maillog.unplanned("adoption of queues", error)
            await asyncio.sleep(ADOPTION_INTERVAL)

    async def _adopt_once(self) -> None:
        for slot in self._left_by_others():
            try:
                await self._adopt(slot)
            except QueueTaken:
                continue  # its worker lives
            except (QueueUnusable, TemporaryError, OSError) as error:
                self._cannot_adopt(slot, str(error))
        await self._remove_emptied()

    async def _adopt(self, slot: int) -> None:
        """Raises QueueUnusable, TemporaryError and OSError; what was opened stays open then."""
        if slot not in self._unsettled:
            # In a thread, for a long queue takes long to open, and sessions are served.
            self._unsettled[slot] = await in_thread(self._take_over, slot)
        await settle(self._settings, slot, self._unsettled[slot])
        self._unusable.pop(slot, None)
        self._run_queue(slot, self._unsettled.pop(slot))

    def _cannot_adopt(self, slot: int, why: str) -> None:
        """Mail waits there until an operator helps; told once, not at each look."""
        if self._unusable.get(slot) != why:
            self._unusable[slot] = why
            maillog.queue_failed(self._directory_of(slot), why)

    def _left_by_others(self) -> frozenset[int]:
        try:
            slots = queue_slots(self._settings.path(self._settings.queue.root))
        except QueueUnusable as error:
            maillog.queue_failed(self._settings.queue.root, str(error))
            return frozenset()
        return slots - self._fellows - self._queues.keys()

    def _take_over(self, slot: int) -> QueueStore:
        """The queue, and an end to what its worker was receiving when it was killed."""
        store = self._open_queue(slot)
        shutil.rmtree(self._spool_of(slot), ignore_errors=True)
        return store

    async def _remove_emptied(self) -> None:
        adopted = self._queues.keys() - self._fellows
        for slot in [slot for slot in adopted if not self._queues[slot].store.waiting]:
            await self._queues.pop(slot).remove()


def _router(settings: Settings) -> Router:
    return Router(settings.routing, settings.hostname)


def _routes(settings: Settings) -> Routes:
    return Routes(settings.routing.smtproutes)


def _reporter(settings: Settings) -> DsnReporter:
    return DsnReporter(settings.queue, settings.hostname)


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


class RunningQueue:
    """A queue that this worker owns, and what moves it."""

    def __init__(self, store: QueueStore, scheduler: Scheduler, grace: float) -> None:
        self.store = store
        self._scheduler = scheduler
        self._task = asyncio.create_task(scheduler.run(grace))

    def start_no_more(self) -> None:
        """Begin to stop: attempts in progress may finish."""
        self._scheduler.stop()

    async def come_to_rest(self) -> None:
        """Let attempts in progress finish; what did not is tried again later."""
        self._scheduler.stop()
        await self._task

    async def remove(self) -> None:
        """An adopted queue that is empty has served its time."""
        await self.come_to_rest()
        await self.store.remove()

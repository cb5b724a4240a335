"""The first process: binds, starts workers, replaces those that end, and passes signals on.

It has one thread and no event loop, so that a worker can be forked from it at any
time, and it never reads from the network. Where root has started it, it stays root; all
that it starts becomes the server's user, and asks for what only root can give
(restante.service.steward).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import restante
from restante import maillog
from restante.config import Settings
from restante.config.load import load_again
from restante.config.tree import HostPort
from restante.directory.engine import open_engine, pem_files
from restante.errors import ConfigurationError, OperatorError
from restante.logsetup import setup_logging
from restante.metrics.files import figures_directory, forget, prepare
from restante.queue.room import is_full
from restante.queue.slots import queue_slots
from restante.routing.instructions import BadInstruction
from restante.routing.router import Router
from restante.service.children import WATCHED, fork, reap
from restante.service.listeners import Listener, Listeners
from restante.service.manager import Manager, passed_sockets
from restante.service.marks import (
    digest_of,
    forget_marks,
    mark_read,
    mark_refused,
    marks_counting,
)
from restante.service.ownership import hand_over
from restante.service.place import READY, Generation, WorkerPlace
from restante.service.preload import preload
from restante.service.steward import Steward
from restante.service.user import ServerUser, handed_files, is_user, server_user
from restante.service.watch import Watch
from restante.service.worker import run_worker
from restante.tls.certificates import paths_of
from restante.tls.files import HandedFiles, open_pem

START_TIMEOUT = 60.0
"""Seconds that a worker may take until it serves."""
RESTART_PAUSE = 1.0
"""Seconds between the end of a worker that ended by itself and its successor's start."""
LETTING_GO = 1.0
"""Seconds that a reload waits, at most, until the former workers accept nothing more ..."""
LOOK_AGAIN = 0.005
"""... looking so many seconds apart."""
STOP_MARGIN = 10.0
"""Seconds beyond server.drain_timeout after which a worker is killed."""
MAX_DESCRIPTORS = 1024 * 1024
"""Open files that one process asks for."""
MAX_REASON = 500
"""Characters of why a reload was refused: systemd drops what has more than 4096 octets."""
_ENDING = frozenset({signal.SIGTERM, signal.SIGINT})

OnReady = Callable[[Sequence[tuple[str, HostPort]]], None]


class _ToldToStop(BaseException):
    """The server is to end, whatever it does at the moment: no error."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number).name
        super().__init__(f"the server is told to stop ({self.signal})")


@dataclass(slots=True)
class _Worker:
    pid: int
    place: WorkerPlace
    settings: Settings
    is_starting: bool = False
    """It may begin to take connections, and has not said whether it does."""

    @property
    def accepts(self) -> bool:
        """Whether it takes connections, or is about to, as far as it has said."""
        return self.is_starting or self.place.generation.board.is_open(self.place.number)


@dataclass(slots=True)
class _Starting:
    """A worker that was just forked, and what it has said of how it serves."""

    worker: _Worker
    ready: int
    said: str | None = None
    """None: nothing yet. Empty: it ended without a word."""

    def check(self, *, too_late: bool) -> None:
        """Raise OperatorError, with the worker's own words, if it does not serve."""
        slot = self.worker.place.slot
        if self.said is None and too_late:
            raise OperatorError(f"worker {slot} did not start in {START_TIMEOUT:.0f} s")
        if self.said not in (None, READY):
            reason = (self.said or "").strip() or "it ended at once; the log says why"
            raise OperatorError(f"worker {slot} did not start: {reason}")


def serve(settings: Settings, on_ready: OnReady | None = None) -> int:
    """Run the server until SIGTERM or SIGINT; returns the exit status.

    ``on_ready`` is called once, when every listener is bound and every worker
    serves, with the services and their addresses. Raises OperatorError when the
    server cannot start; nothing is left running then.
    """
    return Supervisor(settings).run(on_ready)


class Supervisor:
    """Keeps as many workers running as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._user = server_user(settings)
        self._log = setup_logging(settings.log, settings.directory)
        self._figures = figures_directory(settings.directory)
        self._manager = Manager(os.environ)
        self._listeners = Listeners(passed=passed_sockets(os.environ))
        self._fresh = Listeners()
        """Those of the settings that a reload tries; children that are forked now have them too."""
        self._workers: dict[int, _Worker] = {}
        self._retired: dict[int, _Worker] = {}
        self._missing: list[_Worker] = []
        self._restart_at = 0.0
        self._refusal = ""
        """Which reload was refused, and why; until one succeeds."""
        # Kept by all that is forked: so others can see whose server they are.
        self._place = os.open(settings.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._life_read, self._life_write = os.pipe()
        self._watch: Watch
        self._steward: Steward | None = None

    def run(self, on_ready: OnReady | None) -> int:
        """Start, wait for signals, stop."""
        old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        # Whoever started us may ignore it, and an ignored child leaves no exit status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _allow_descriptors()
        self._watch = Watch(WATCHED)
        digest = digest_of(self._settings.directory)
        try:
            self._start()
            maillog.server_ready()
            self._tell_ready()
            if on_ready is not None:
                on_ready([(listener.service, listener.bound) for listener in self._listeners])
            with self._marking(digest):
                self._go_on()
        except _ToldToStop as told:
            maillog.server_stopping(told.signal)
            self._manager.stopping()
        finally:
            self._stop()
            signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        maillog.server_stopped()
        self._log.close()
        return 0

    # Start

    def _start(self) -> None:
        _check_settings(self._settings)
        _check_database(self._settings, self._user)
        self._listeners = self._listeners.adjusted(self._settings)
        # Only now: where the ports are taken by a server of this instance, its figures stay.
        if self._user is not None:
            hand_over(self._settings, self._user)
        self._prepare_metrics(self._settings)
        maillog.server_started(
            restante.__version__, self._settings.directory, self._settings.server.workers
        )
        _tell_control(self._settings)
        _tell_addresses(self._listeners)
        if self._user is not None:
            self._steward = Steward(self._settings, self._user, self._watch, self._leave)
            self._steward.start()
        self._workers = self._start_generation(self._settings, self._listeners)

    def _prepare_metrics(self, settings: Settings) -> None:
        """Figures start at 0 with the server; a reload that only goes on keeps them."""
        if not settings.metrics.listen:
            return
        try:
            with self._rights_of_workers():
                prepare(self._figures)
        except OSError as error:
            if not is_full(error):  # or else mail is served without
                raise OperatorError(f"{self._figures} cannot be used: {error.strerror}") from error

    def _rights_of_workers(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._user is None else self._user.rights()

    def _start_generation(self, settings: Settings, listeners: Listeners) -> dict[int, _Worker]:
        """Fork all workers of a settings tree; all of them serve, or OperatorError and none."""
        preload(settings, self._rights_of_workers())
        starting: list[_Starting] = []
        try:
            with self._rights_of_workers():
                slots = self._assign_slots(settings)
            generation = Generation.begin(settings, slots, self._pem_files(settings))
            for number, slot in enumerate(slots):
                worker, ready = self._fork(
                    settings, listeners, number, slot, generation, needs_queue=bool(self._workers)
                )
                starting.append(_Starting(worker, ready))
            self._await_ready(starting)
        except _ToldToStop:
            self._retired |= _workers_of(starting)  # which end together with all others
            raise
        except Exception:
            self._end(_workers_of(starting), heeding_signals=True)
            raise
        finally:
            for each in starting:
                os.close(each.ready)
        return _workers_of(starting)

    def _pem_files(self, settings: Settings) -> HandedFiles:
        paths = paths_of(settings)
        if self._user is None:
            return HandedFiles.opened(paths, open_pem)
        return handed_files(paths, self._user)

    def _await_ready(self, starting: Sequence[_Starting]) -> None:
        """Wait until all of them serve, and answer in their offices meanwhile.

        Raises OperatorError, with the own words of one that cannot, or _ToldToStop.
        """
        deadline = time.monotonic() + START_TIMEOUT
        for each in starting:
            self._watch.add(each.ready, partial(self._note_ready, each))
        try:
            while any(each.said is None for each in starting):
                self._serve_offices(max(deadline - time.monotonic(), 0))
                for number in _ENDING.intersection(self._watch.come):
                    raise _ToldToStop(number)
                for each in starting:
                    each.check(too_late=time.monotonic() >= deadline)
        finally:
            for each in starting:
                self._watch.drop(each.ready)

    def _note_ready(self, starting: _Starting) -> None:
        starting.said = os.read(starting.ready, 65536).decode("utf-8", "replace")
        self._watch.drop(starting.ready)

    def _assign_slots(self, settings: Settings) -> list[int]:
        """The queues of a new generation.

        A generation that follows another takes queues that do not exist yet: the old one
        still has its own, or has adopted what there was. So may one that was retired before it.
        Nor does it take those of processes that still run, whose figures bear the number.
        """
        wanted = settings.server.workers
        if not (self._workers or self._retired):
            return list(range(wanted))
        existing = queue_slots(settings.path(settings.queue.root))
        running = {each.place.slot for each in (self._workers | self._retired).values()}
        free = (slot for slot in itertools.count() if slot not in existing | running)
        return list(itertools.islice(free, wanted))

    def _fork(
        self,
        settings: Settings,
        listeners: Listeners,
        number: int,
        slot: int,
        generation: Generation,
        *,
        needs_queue: bool = False,
        is_successor: bool = False,
    ) -> tuple[_Worker, int]:
        """A worker, and the descriptor on which it says that it serves; raises OperatorError."""
        ready_read, ready_write = _pipe()
        office = None
        try:
            office = self._open_office(slot, settings)
            place = WorkerPlace(
                number,
                slot,
                generation,
                needs_queue,
                ready_write,
                self._life_read,
                self._user,
                office,
                is_successor,
            )
            pid = fork("worker", partial(self._be_worker, settings, listeners, place, ready_read))
        except OperatorError:
            os.close(ready_read)
            raise
        finally:
            os.close(ready_write)
            if office is not None:
                office.close()
        maillog.worker_started(slot, pid)
        return _Worker(pid, place, settings), ready_read

    def _open_office(self, slot: int, settings: Settings) -> socket.socket | None:
        return None if self._steward is None else self._steward.open_office(slot, settings)

    def _be_worker(
        self, settings: Settings, listeners: Listeners, place: WorkerPlace, ready_read: int
    ) -> int:
        """In the child."""
        os.close(ready_read)
        self._leave(keep=listeners)
        return run_worker(settings, place, listeners.by_service())

    def _leave(self, keep: Listeners | None = None) -> None:
        """In a child: give up what is the supervisor's, but for the listeners to ``keep``."""
        os.close(self._life_write)
        if self._steward is not None:
            self._steward.abandon()
        self._watch.close()
        self._listeners.close(keep=keep)
        self._fresh.close(keep=keep)

    # Run

    def _go_on(self) -> None:
        while True:
            for number in self._watch.signals():
                if number in _ENDING:
                    raise _ToldToStop(number)
                if number == signal.SIGHUP:
                    self._manager.reloading()
                    self._reload()
                    self._tell_ready()
            self._note_ended()
            if self._restart_pause() == 0:
                self._restart_missing()
            self._serve_offices(self._restart_pause())

    def _serve_offices(self, timeout: float | None) -> None:
        """Answer whoever asks, until something happens or the time is over."""
        waits = [timeout, self._manager.timeout()]
        if self._steward is not None:
            waits.append(self._steward.timeout())
        self._watch.serve(min((each for each in waits if each is not None), default=None))
        self._manager.tick()
        if self._steward is not None:
            self._steward.tick()

    def _tell_ready(self) -> None:
        self._manager.ready(f"workers: {self._settings.server.workers}{self._refusal}")

    def _restart_pause(self) -> float | None:
        """Seconds until the successors of ended processes are started; None: none is missing."""
        if not self._missing and (self._steward is None or self._steward.is_complete):
            return None
        return max(self._restart_at - time.monotonic(), 0)

    def _note_ended(self) -> None:
        for pid, status in reap(self._retired):
            self._forget(worker := self._retired.pop(pid))
            if status == 0:
                maillog.worker_left(worker.place.slot, pid)
            else:
                maillog.worker_ended(worker.place.slot, pid, status)
        for pid, status in reap(self._workers):
            self._forget(worker := self._workers.pop(pid))
            maillog.worker_ended(worker.place.slot, pid, status)
            self._missing.append(worker)
            self._restart_at = time.monotonic() + RESTART_PAUSE
        if self._steward is not None and self._steward.note_ended():
            self._restart_at = time.monotonic() + RESTART_PAUSE

    def _forget(self, worker: _Worker) -> None:
        """Its process is gone."""
        worker.place.generation.board.forget(worker.place.number)
        with self._rights_of_workers():
            forget(self._figures, worker.place.slot)

    def _restart_missing(self) -> None:
        """Processes that ended by themselves get successors, workers at the same place."""
        self._restart_at = time.monotonic() + RESTART_PAUSE  # what cannot be started now
        if self._steward is not None:
            self._steward.restart()
        missing, self._missing = self._missing, []
        for worker in missing:
            place = worker.place
            try:
                successor, ready = self._fork(
                    self._settings,
                    self._listeners,
                    place.number,
                    place.slot,
                    place.generation,
                    is_successor=True,
                )
            except OperatorError as error:
                maillog.worker_failed(place.slot, str(error))
                self._missing.append(worker)
                continue
            successor.is_starting = True
            self._watch.add(ready, partial(self._note_started, successor, ready))
            self._workers[successor.pid] = successor

    def _note_started(self, successor: _Worker, ready: int) -> None:
        """It serves, or has ended."""
        successor.is_starting = False
        self._watch.drop(ready)
        os.close(ready)

    def _reload(self) -> None:
        """The settings as they are now count, or, if anything is wrong, the former ones do.

        A log that was moved away is made anew in any case, which all must write to: where the
        new settings are refused, new workers serve by the former ones.
        """
        file, digest = self._log.file, digest_of(self._settings.directory)
        try:
            self._follow(load_again(self._settings, os.environ))
        except Exception as error:  # noqa: BLE001 - a bug would be the end of the server
            self._refuse_reload(error)
            if self._log.file != file and not _ENDING.intersection(self._watch.come):
                try:
                    self._follow(replace(self._settings))
                except Exception as another:  # noqa: BLE001 - the same
                    self._refuse_reload(another)
        else:
            self._refusal = ""
            self._mark(partial(mark_read, digest=digest))
            maillog.server_reloaded()

    def _follow(self, settings: Settings) -> None:
        """A new generation of workers serves before the old one is told to leave."""
        try:
            _check_settings(settings)
            self._check_lasting(settings)
            _check_database(settings, self._user)
            self._change_log(settings)
            if not self._settings.metrics.listen:
                self._prepare_metrics(settings)
            self._fresh = self._listeners.adjusted(settings)
            if self._user is not None:
                hand_over(settings, self._user)
            self._guide_steward(settings)
            fresh = self._start_generation(settings, self._fresh)
        except Exception:
            self._fresh.close(keep=self._listeners)
            self._fresh = Listeners()
            with contextlib.suppress(OperatorError):  # what is missing is started later
                self._guide_steward(self._settings)
            raise
        if self._steward is not None:
            self._steward.settle()
        former, self._workers, self._missing = self._workers, fresh, []
        self._retire(former)
        _tell_addresses(self._fresh, known=self._listeners)
        self._listeners.close(keep=self._fresh)
        self._listeners, self._fresh = self._fresh, Listeners()
        self._settings = settings
        _tell_control(settings)

    def _refuse_reload(self, error: Exception) -> None:
        with contextlib.suppress(OperatorError):
            self._change_log(self._settings)
        problems = str(error).splitlines()
        if not isinstance(error, OperatorError):
            maillog.unplanned("a reload", error)
            problems = ["an unplanned exception, see the log"]
        self._mark(mark_refused)
        maillog.reload_refused(problems)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        why = "".join(problems[:1])[:MAX_REASON]
        self._refusal = f"; the reload of {when} was refused: {why}"

    @contextlib.contextmanager
    def _marking(self, digest: str) -> Iterator[None]:
        """Meanwhile ``check`` can see which settings are in force."""
        with contextlib.ExitStack() as running:
            self._mark(lambda directory: running.enter_context(marks_counting(directory)))
            self._mark(partial(mark_read, digest=digest))
            try:
                yield
            finally:
                self._mark(forget_marks)

    def _mark(self, change: Callable[[str], None]) -> None:
        """Where that cannot be done, as on a full disk, nothing is told."""
        with contextlib.suppress(OSError), self._rights_of_workers():
            change(self._settings.directory)

    def _guide_steward(self, settings: Settings) -> None:
        if self._steward is not None:
            self._steward.follow(settings)

    def _check_lasting(self, settings: Settings) -> None:
        """The old generation still writes what would be handed over to another user, and nobody
        would look any more for what waits in another place.

        New groups of the same user count from the next start on.
        """
        if server_user(settings) != self._user:
            raise OperatorError("server.user changes when the server is started, not by SIGHUP")
        former, wanted = (each.path(each.queue.root) for each in (self._settings, settings))
        if wanted != former:
            raise OperatorError(
                "queue.root changes when the server is started, not by SIGHUP, and what waits in "
                f"{former} has to be moved before: stop the server, mv {former} {wanted}, start it"
            )

    def _change_log(self, settings: Settings) -> None:
        """Open the log again; a file that was moved away is made anew."""
        old, self._log = self._log, setup_logging(settings.log, settings.directory)
        old.close()

    def _retire(self, workers: dict[int, _Worker]) -> None:
        """Ask workers to leave, and wait until they accept nothing more.

        So a reload that is told is one: no client meets the former settings after that. A worker
        that hangs is not waited for longer than LETTING_GO.
        """
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        self._retired |= workers
        deadline = time.monotonic() + LETTING_GO
        while any(worker.accepts for worker in workers.values()) and time.monotonic() < deadline:
            self._serve_offices(LOOK_AGAIN)
            self._note_ended()

    # Stop

    def _stop(self) -> None:
        self._listeners.close()
        self._fresh.close()
        self._end(self._workers | self._retired)
        if self._steward is not None:
            self._steward.stop()
        self._watch.close()
        os.close(self._place)
        os.close(self._life_read)
        os.close(self._life_write)

    def _end(self, workers: dict[int, _Worker], *, heeding_signals: bool = False) -> None:
        """Ask workers to leave, wait for them, and kill those that do not.

        ``heeding_signals``: others serve meanwhile. Raises _ToldToStop then, and those that are
        left end together with them.
        """
        left = dict(workers)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        patience = max(
            (worker.settings.server.drain_timeout for worker in left.values()), default=0
        )
        deadline = time.monotonic() + patience + STOP_MARGIN
        while left and time.monotonic() < deadline:
            for pid, _ in reap(left):
                self._forget(left.pop(pid))
            if left:
                self._serve_offices(deadline - time.monotonic())
            for number in _ENDING.intersection(self._watch.come) if heeding_signals else ():
                self._retired |= left
                raise _ToldToStop(number)
        for pid, worker in left.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._forget(worker)


def _workers_of(starting: Iterable[_Starting]) -> dict[int, _Worker]:
    return {each.worker.pid: each.worker for each in starting}


def _check_settings(settings: Settings) -> None:
    """Raise ConfigurationError for what ``config`` cannot see, which is no more than a reader."""
    problems = []
    try:
        Router(settings.routing, settings.hostname)
    except BadInstruction as error:  # no worker could route: its SMTP sessions would all end
        problems.append(f"[routing] defaultdelivery: {error}")
    if settings.mail.user and not is_user(settings.mail.user):
        problems.append(f"[mail] user: there is no user {settings.mail.user!r} on this system")
    if problems:
        raise ConfigurationError(problems)


def _check_database(settings: Settings, user: ServerUser | None) -> None:
    """Raise OperatorError where no process could ask the database: for its certificates, say."""
    paths = pem_files(settings.database, settings.directory)
    pem = None if user is None else handed_files(paths, user)
    open_engine(settings.database, settings.directory, pem=pem)


def _tell_control(settings: Settings) -> None:
    """Log what of a control directory is passed over."""
    if settings.control is not None:
        maillog.control_read(settings.control.directory, list(settings.control.warnings))


def _tell_addresses(listeners: Listeners, known: Iterable[Listener] = ()) -> None:
    """Log where services listen now, but for addresses that are known already."""
    said = {(listener.service, listener.bound) for listener in known}
    for listener in listeners:
        if (listener.service, listener.bound) not in said:
            maillog.listening(listener.service, str(listener.bound))


def _pipe() -> tuple[int, int]:
    try:
        return os.pipe()
    except OSError as error:
        raise OperatorError(f"no worker can be started: {error.strerror}") from error


def _allow_descriptors() -> None:
    """As many open files as the system grants: the usual 1024 are used up by 1024 clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

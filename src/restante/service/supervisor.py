"""The first process: binds, starts workers, replaces those that end, and passes signals on.

It has one thread and no event loop, so that a worker can be forked from it at any
time, and it never reads from the network.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import restante
from restante import maillog, metrics
from restante.config import Settings
from restante.config.load import load_again
from restante.config.tree import HostPort
from restante.errors import OperatorError
from restante.logsetup import setup_logging
from restante.queue.slots import queue_slots
from restante.service.listeners import Listener, Listeners
from restante.service.place import READY, WorkerPlace
from restante.service.worker import run_worker

START_TIMEOUT = 60.0
"""Seconds that a worker may take until it serves."""
RESTART_PAUSE = 1.0
"""Seconds between the end of a worker that ended by itself and its successor's start."""
STOP_MARGIN = 10.0
"""Seconds beyond server.drain_timeout after which a worker is killed."""
MAX_DESCRIPTORS = 1024 * 1024
"""Open files that one process asks for."""
_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

OnReady = Callable[[Sequence[tuple[str, HostPort]]], None]


@dataclass(slots=True)
class _Worker:
    pid: int
    place: WorkerPlace
    settings: Settings


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
        self._log = setup_logging(settings.log, settings.directory)
        self._figures = metrics.figures_directory(settings.directory)
        self._listeners = Listeners()
        self._workers: dict[int, _Worker] = {}
        self._retired: dict[int, _Worker] = {}
        self._missing: list[_Worker] = []
        self._life_read, self._life_write = os.pipe()

    def run(self, on_ready: OnReady | None) -> int:
        """Start, wait for signals, stop."""
        old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        # Whoever started us may ignore it, and an ignored child leaves no exit status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _allow_descriptors()
        try:
            self._start()
            maillog.server_ready()
            if on_ready is not None:
                on_ready([(listener.service, listener.bound) for listener in self._listeners])
            self._watch()
        finally:
            self._stop()
            signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        maillog.server_stopped()
        self._log.close()
        return 0

    # Start

    def _start(self) -> None:
        self._listeners = self._listeners.adjusted(self._settings)
        # Only now: where the ports are taken by a server of this instance, its figures stay.
        self._prepare_metrics(self._settings)
        maillog.server_started(
            restante.__version__, self._settings.directory, self._settings.server.workers
        )
        _tell_control(self._settings)
        _tell_addresses(self._listeners)
        self._workers = self._start_generation(self._settings, self._listeners)

    def _prepare_metrics(self, settings: Settings) -> None:
        """Figures start at 0 with the server; a reload that only goes on keeps them."""
        if not settings.metrics.listen:
            return
        try:
            metrics.prepare(self._figures)
        except OSError as error:
            raise OperatorError(f"{self._figures} cannot be used: {error.strerror}") from error

    def _start_generation(self, settings: Settings, listeners: Listeners) -> dict[int, _Worker]:
        """Fork all workers of a settings tree; all of them serve, or OperatorError and none."""
        started: dict[int, _Worker] = {}
        pending: list[tuple[_Worker, int]] = []
        try:
            slots = self._assign_slots(settings)
            for number, slot in enumerate(slots):
                worker, ready = self._fork(settings, listeners, number, slot, frozenset(slots))
                started[worker.pid] = worker
                pending.append((worker, ready))
            deadline = time.monotonic() + START_TIMEOUT
            for worker, ready in pending:
                _await_ready(worker, ready, deadline)
        except OperatorError:
            self._end(started)
            raise
        finally:
            for _, ready in pending:
                os.close(ready)
        return started

    def _assign_slots(self, settings: Settings) -> list[int]:
        """The queues of a new generation.

        A generation that follows another takes queues that do not exist yet: the old one
        still has its own, or has adopted what there was.
        """
        wanted = settings.server.workers
        if not self._workers:
            return list(range(wanted))
        existing = queue_slots(settings.path(settings.queue.root))
        free = (slot for slot in itertools.count() if slot not in existing)
        return list(itertools.islice(free, wanted))

    def _fork(
        self,
        settings: Settings,
        listeners: Listeners,
        number: int,
        slot: int,
        fellows: frozenset[int],
    ) -> tuple[_Worker, int]:
        """A worker, and the descriptor on which it says that it serves; raises OperatorError."""
        ready_read, ready_write = _pipe()
        place = WorkerPlace(number, slot, fellows, ready_write, self._life_read)
        sys.stdout.flush()
        gc.freeze()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(ready_read)
            raise OperatorError(f"no worker can be started: {error.strerror}") from error
        else:
            if pid == 0:
                os.close(ready_read)
                os.close(self._life_write)
                self._become_worker(settings, listeners, place)
        finally:
            gc.unfreeze()
            os.close(ready_write)
        maillog.worker_started(slot, pid)
        return _Worker(pid, place, settings), ready_read

    def _become_worker(self, settings: Settings, listeners: Listeners, place: WorkerPlace) -> None:
        """Never returns: the child's only way out is its exit status."""
        status = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            self._listeners.close(keep=listeners)
            listeners.close_for_worker(place.number)
            status = run_worker(settings, place, listeners.for_worker(place.number))
        except BaseException as error:  # noqa: BLE001 - the last line before the process ends
            maillog.unplanned("worker", error)
        finally:
            os._exit(status)

    # Run

    def _watch(self) -> None:
        while True:
            number = self._next_signal()
            if number in (signal.SIGTERM, signal.SIGINT):
                maillog.server_stopping(signal.Signals(number).name)
                return
            if number == signal.SIGHUP:
                self._reload()
            elif number == 0:
                self._restart_missing()
            self._note_ended()

    def _next_signal(self) -> int:
        """The next signal, or 0 when it is time to start successors of ended workers."""
        if not self._missing:
            return signal.sigwait(_WATCHED)
        info = signal.sigtimedwait(_WATCHED, RESTART_PAUSE)
        return info.si_signo if info is not None else 0

    def _note_ended(self) -> None:
        for pid, status in _reap(self._retired):
            worker = self._retired.pop(pid)
            self._ended(worker, status)
        for pid, status in _reap(self._workers):
            worker = self._workers.pop(pid)
            self._ended(worker, status)
            self._missing.append(worker)

    def _ended(self, worker: _Worker, status: int) -> None:
        maillog.worker_ended(worker.place.slot, worker.pid, status)
        metrics.forget(self._figures, worker.pid)

    def _restart_missing(self) -> None:
        """Workers that ended by themselves get successors at the same place."""
        missing, self._missing = self._missing, []
        for worker in missing:
            place = worker.place
            try:
                successor, ready = self._fork(
                    self._settings, self._listeners, place.number, place.slot, place.fellows
                )
            except OperatorError as error:
                maillog.worker_failed(place.slot, str(error))
                self._missing.append(worker)
                continue
            os.close(ready)
            self._workers[successor.pid] = successor

    def _reload(self) -> None:
        """A new generation of workers serves before the old one is told to leave."""
        listeners = self._listeners
        try:
            settings = load_again(self._settings, os.environ)
            self._change_log(settings)
            if not self._settings.metrics.listen:
                self._prepare_metrics(settings)
            listeners = self._listeners.adjusted(settings)
            fresh = self._start_generation(settings, listeners)
        except OperatorError as error:
            listeners.close(keep=self._listeners)
            with contextlib.suppress(OperatorError):
                self._change_log(self._settings)
            maillog.reload_refused(str(error).splitlines())
            return
        self._retire(self._workers)
        _tell_addresses(listeners, known=self._listeners)
        self._listeners.close(keep=listeners)
        self._listeners = listeners
        self._settings, self._workers, self._missing = settings, fresh, []
        _tell_control(settings)
        maillog.server_reloaded()

    def _change_log(self, settings: Settings) -> None:
        """Open the log again; a file that was moved away is made anew."""
        old, self._log = self._log, setup_logging(settings.log, settings.directory)
        old.close()

    def _retire(self, workers: dict[int, _Worker]) -> None:
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        self._retired |= workers

    # Stop

    def _stop(self) -> None:
        self._listeners.close()
        self._end(self._workers | self._retired)
        os.close(self._life_read)
        os.close(self._life_write)

    def _end(self, workers: dict[int, _Worker]) -> None:
        """Ask workers to leave, wait for them, and kill those that do not."""
        left = dict(workers)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        patience = max(
            (worker.settings.server.drain_timeout for worker in left.values()), default=0
        )
        deadline = time.monotonic() + patience + STOP_MARGIN
        while left and time.monotonic() < deadline:
            for pid, _ in _reap(left):
                del left[pid]
            if left:
                signal.sigtimedwait({signal.SIGCHLD}, 0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


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


def _await_ready(worker: _Worker, ready_fd: int, deadline: float) -> None:
    """Wait until the worker serves; raises OperatorError with its own words if it cannot."""
    waiting = select.poll()  # select(2) knows no descriptors from 1024 on
    waiting.register(ready_fd, select.POLLIN)
    if not waiting.poll(max(deadline - time.monotonic(), 0) * 1000):
        raise OperatorError(f"worker {worker.place.slot} did not start in {START_TIMEOUT:.0f} s")
    said = os.read(ready_fd, 65536).decode("utf-8", "replace")
    if said != READY:
        reason = said.strip() or "it ended at once; the log says why"
        raise OperatorError(f"worker {worker.place.slot} did not start: {reason}")


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


def _reap(workers: Iterable[int]) -> list[tuple[int, int]]:
    """Process ids and exit statuses (negative for a signal) of those workers that have ended."""
    ended = []
    for pid in list(workers):
        reaped, status = os.waitpid(pid, os.WNOHANG)
        if reaped:
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended

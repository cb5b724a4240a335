"""Serves the workers' offices: decides what a worker may have, and has it done.

Lives in the supervisor and never waits: whose an account is says the registrar, in its own
time, and the nursery gets its orders in one datagram. While one of the two is missing, requests
wait for its successor. What a worker asked is an answer for that worker alone; nothing of it
is remembered.

Where all mail belongs to the workers' own user, nobody ever asks, and neither process exists:
they are started by the first request, or with the server where users of the system have mail.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from restante import maillog
from restante.config import Settings
from restante.directory import objection_to_ids
from restante.errors import OperatorError
from restante.helper.limits import Limits
from restante.helper.start import order, start_nursery
from restante.mounts import FarPlaces
from restante.service.children import fork, poll
from restante.service.hands import limits
from restante.service.office import REST, Office, Request
from restante.service.registrar import run_registrar
from restante.service.user import ServerUser, open_pem_for
from restante.service.watch import Watch
from restante.tls import CertificateRefused
from restante.tls.certificates import paths_of
from restante.tls.files import close_pem

MAX_PENDING = 100
"""Requests of one worker that wait for the registrar or the nursery."""
PATIENCE = 30.0
"""Seconds that a request waits; the registrar's database has its own limits, long before."""
MAX_ANSWER = 16384
"""Octets of an answer of the registrar's."""
TICK = 1.0
"""Seconds between two looks at how long answers take."""
END_PATIENCE = 10.0
"""Seconds for registrar and nursery to end with the server."""


@dataclass(slots=True)
class _Errand:
    """A request on its way: to the registrar until its owner is known, then to the nursery."""

    office: Office
    request: Request
    until: float
    account: _Account | None = None
    is_told: bool = False
    """The question is with the registrar that there is."""

    @property
    def is_stuck(self) -> bool:
        """It could not be passed on, and is later."""
        return self.account is not None or not self.is_told


@dataclass(frozen=True, slots=True)
class _Account:
    """What the registrar says of one."""

    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Servant:
    """A process of the steward's, and the supervisor's end of its socket."""

    name: str
    pid: int
    end: socket.socket
    poll: Callable[[], int | None]
    """Its exit status; None: it runs."""


class Steward:
    """The offices of all workers, the registrar and the nursery."""

    def __init__(
        self, settings: Settings, user: ServerUser, watch: Watch, leave: Callable[[], None]
    ) -> None:
        """``leave`` gives up what is the supervisor's, in a child."""
        self._settings = settings
        self._user = user
        self._watch = watch
        self._leave = leave
        self._offices: set[Office] = set()
        self._resting: list[Office] = []
        self._registrar: _Servant | None = None
        self._nursery: _Servant | None = None
        self._former_nursery: _Servant | None = None
        """That of the settings before, to which a refused reload goes back."""
        self._former_offices: frozenset[Office] | None = None
        """Those of its workers; None: the settings that count are settled, or make no difference to
        a nursery."""
        self._is_needed = settings.routing.system_files
        """There are to be both, from the first request on until the server stops."""
        self._dismissed: list[_Servant] = []
        """Processes that were told to end."""
        self._places = FarPlaces()
        self._errands: dict[int, _Errand] = {}
        self._asked = 0

    # Processes

    def start(self) -> None:
        """Start what is missing of registrar and nursery, if any; raises OperatorError."""
        if self.is_complete:
            return
        if self._registrar is None:
            self._registrar = self._start_registrar()
        if self._nursery is None:
            self._nursery = self._start_nursery()
        for number, errand in list(self._errands.items()):
            self._go_on(number, errand)

    def restart(self) -> None:
        """The same, for what has ended by itself; what cannot be started is still missing."""
        try:
            self.start()
        except OperatorError as error:
            maillog.servant_failed(str(error))

    def follow(self, settings: Settings) -> None:
        """From now on these settings count, until ``settle`` for now; raises OperatorError.

        Until then the former ones may follow again, as a reload that is refused goes back to them:
        their workers have never left, nor has the nursery whose helpers they use. Before anything
        has followed they change nothing.
        """
        former, self._settings = self._settings, settings
        self._is_needed |= settings.routing.system_files
        if settings is not former:
            self._dismiss_registrar()
        if self._former_offices is not None:
            self._go_back()
        elif self._limits(settings) != self._limits(former):
            self._former_offices = frozenset(self._offices)
            self._former_nursery, self._nursery = self._nursery, None
        self.start()

    def settle(self) -> None:
        """There is no way back any more from the settings that count."""
        self._dismiss_nursery(self._former_nursery)
        self._former_offices = None

    def _go_back(self) -> None:
        self._dismiss_nursery(self._nursery)
        self._nursery, self._former_nursery = self._former_nursery, None
        self._former_offices = None

    def note_ended(self) -> bool:
        """Take note of processes that have ended; whether one of them had not been told to."""
        self._dismissed = [each for each in self._dismissed if each.poll() is None]
        ended = False
        for servant in self._servants():
            status = servant.poll()
            if status is not None:
                maillog.servant_ended(servant.name, servant.pid, status)
                self._part_with(servant)
                ended = True
        return ended

    @property
    def is_complete(self) -> bool:
        """Whether nothing has to be started."""
        if not self._is_needed:
            return True
        return self._registrar is not None and self._nursery is not None

    def stop(self) -> None:
        """Answer nobody any more, and have all processes end."""
        self._dismiss_registrar()
        self._dismiss_nursery(self._nursery)
        self._dismiss_nursery(self._former_nursery)
        for office in self._offices:
            self._watch.drop(office.end)
            office.close()
        self._offices.clear()
        deadline = time.monotonic() + END_PATIENCE
        while self._dismissed and time.monotonic() < deadline:
            self._watch.serve(deadline - time.monotonic())
            self.note_ended()
        for servant in self._dismissed:
            os.kill(servant.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """In a child: give up what is the supervisor's."""
        for office in self._offices:
            office.close()
        for servant in self._servants():
            servant.end.close()

    def _servants(self) -> Iterable[_Servant]:
        servants = (self._registrar, self._nursery, self._former_nursery)
        return [each for each in servants if each is not None]

    def _start_registrar(self) -> _Servant:
        ours, its = _pair(socket.SOCK_SEQPACKET)
        settings = self._settings

        def live() -> int:
            self._leave()
            ours.close()
            return run_registrar(settings, self._user, its)

        with its:
            try:
                pid = fork("registrar", live)
            except OperatorError:
                ours.close()
                raise
        return self._engage(_Servant("registrar", pid, ours, partial(poll, pid)))

    def _start_nursery(self) -> _Servant:
        try:
            process, orders = start_nursery(self._limits(self._settings))
        except OSError as error:
            raise OperatorError(f"no nursery can be started: {error.strerror}") from error
        return self._engage(_Servant("nursery", process.pid, orders, process.poll))

    def _limits(self, settings: Settings) -> Limits:
        return limits(settings, self._user.uid)

    def _engage(self, servant: _Servant) -> _Servant:
        servant.end.setblocking(False)
        self._watch.add(servant.end, partial(self._hear, servant))
        maillog.servant_started(servant.name, servant.pid)
        return servant

    def _dismiss_registrar(self) -> None:
        """It has nothing to lose: it is ended at once, and its successor asked what it was."""
        if self._registrar is not None:
            os.kill(self._registrar.pid, signal.SIGTERM)
            self._dismissed.append(self._registrar)
            self._part_with(self._registrar)

    def _dismiss_nursery(self, nursery: _Servant | None) -> None:
        """It ends when its helpers have finished what they do, or some time later."""
        if nursery is not None:
            self._dismissed.append(nursery)
            self._part_with(nursery)

    def _part_with(self, servant: _Servant) -> None:
        self._watch.drop(servant.end)
        servant.end.close()
        if servant is self._registrar:
            self._registrar = None
            for errand in self._errands.values():
                errand.is_told = False
        if servant is self._nursery:
            self._nursery = None
        if servant is self._former_nursery:
            self._former_nursery = None

    # Offices

    def open_office(self, slot: int, settings: Settings) -> socket.socket:
        """An office for the worker of a queue: that worker's end of it; raises OperatorError.

        It is closed when the other end is.
        """
        ours, its = _pair(socket.SOCK_SEQPACKET)
        office = Office(slot, paths_of(settings), ours, self._serve)
        self._offices.add(office)
        self._listen_to(office)
        return its

    def timeout(self) -> float | None:
        """Seconds after which ``tick`` is due; None: something else comes first."""
        if self._resting or any(each.is_stuck for each in self._errands.values()):
            return REST
        return TICK if self._errands else None

    def tick(self) -> None:
        """Listen again to those who asked too much, and give up what takes too long."""
        resting, self._resting = self._resting, []
        for office in resting:
            if office.is_open:
                self._listen_to(office)
        now = time.monotonic()
        for number, errand in list(self._errands.items()):
            if errand.until >= now:
                self._go_on(number, errand)
                continue
            self._refuse(number, "it takes too long to find out whose the account is")
            if errand.account is None:
                self._end_registrar()

    def _listen_to(self, office: Office) -> None:
        self._watch.add(office.end, partial(self._listen, office, office.end))

    def _listen(self, office: Office, end: socket.socket) -> None:
        if office.listen():
            return
        self._watch.drop(end)
        if office.is_open:
            self._resting.append(office)
        else:
            self._offices.discard(office)

    # Requests

    def _serve(self, office: Office, request: Request) -> None:
        if request.kind == "file":
            self._open_file(office, request)
        elif office.pending >= MAX_PENDING:
            office.refuse(request.id, "too many requests wait already")
        else:
            office.pending += 1
            self._asked += 1
            errand = _Errand(office, request, time.monotonic() + PATIENCE)
            self._errands[self._asked] = errand
            self._go_on(self._asked, errand)
            if not self._is_needed:
                self._is_needed = True
                self.restart()

    def _open_file(self, office: Office, request: Request) -> None:
        """A file that settings name as a certificate or a key, and none else."""
        if request.name not in office.files:
            maillog.request_refused(office.slot, request.name, "no certificate and no key of ours")
            office.refuse(request.id, "the settings name no such file")
            return
        try:
            descriptor = open_pem_for(self._user, request.name)
        except CertificateRefused as error:
            office.refuse(request.id, str(error))
            return
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                office.answer(request.id, {}, descriptor)
            else:
                office.refuse(request.id, f"{request.name} cannot be read: not a file")
        except OSError as error:  # its file server has forgotten it by now
            office.refuse(request.id, f"{request.name} cannot be read: {error.strerror}")
        finally:
            close_pem(descriptor)

    def _go_on(self, number: int, errand: _Errand) -> None:
        """Do what comes next for it; what nobody has planned for is the end of it alone."""
        try:
            self._take_a_step(number, errand)
        except Exception as error:  # noqa: BLE001 - it would be the end of the server
            maillog.unplanned("an errand", error)
            if number in self._errands:
                self._refuse(number, "an unplanned exception, see the log")

    def _take_a_step(self, number: int, errand: _Errand) -> None:
        """Ask the registrar; or, its answer known, tell the nursery, which ends the errand.

        What cannot be said now, because the other one is busy or gone, is said later (``tick``).
        """
        if errand.account is not None:
            nursery = self._nursery_of(errand.office)
            if nursery is not None:
                self._connect(number, errand, nursery, errand.account)
        elif self._registrar is not None and not errand.is_told:
            subject = "system" if errand.request.kind == "system" else "account"
            question = json.dumps({"id": number, subject: errand.request.name}).encode()
            with contextlib.suppress(OSError):
                self._registrar.end.send(question)
                errand.is_told = True

    def _nursery_of(self, office: Office) -> _Servant | None:
        """The one of the worker's own settings, if it is there.

        One on trial is dismissed with its helpers if the reload is refused: who serves meanwhile
        waits for the end of that, rather than lose them.
        """
        is_former = self._former_offices is not None and office in self._former_offices
        return self._former_nursery if is_former else self._nursery

    def _hear(self, servant: _Servant) -> None:
        """What a servant says. Its end is told by its process's status."""
        try:
            octets = servant.end.recv(MAX_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._watch.drop(servant.end)
        elif servant is self._registrar:
            self._take_answer(octets)

    def _take_answer(self, octets: bytes) -> None:
        try:
            answer = json.loads(octets)
            number, uid, gid = answer["id"], answer.get("uid"), answer.get("gid")
            home = str(answer.get("home", ""))
            errand = self._errands.get(number)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._end_registrar()
            return
        if errand is None or errand.account is not None:
            return
        if type(uid) is not int or type(gid) is not int:
            self._refuse(number, str(answer.get("error", "the registrar's answer is none")))
            return
        mail = self._settings.mail
        objection = objection_to_ids(uid, gid, mail.minimum_uid, mail.minimum_gid)
        if objection:
            maillog.request_refused(errand.office.slot, errand.request.name, objection)
            self._refuse(number, f"the account's {objection}")
            return
        if errand.request.kind == "home" and not home:
            self._refuse(number, "the path of its home is too long")
            return
        errand.account = _Account(uid, gid, home)
        self._go_on(number, errand)

    def _connect(self, number: int, errand: _Errand, nursery: _Servant, account: _Account) -> None:
        """One end of a new connection for the worker, the other for the helper."""
        home = account.home if errand.request.kind == "home" else ""
        place = self._places.of(account.home)
        try:
            ours, its = _pair(socket.SOCK_STREAM)
        except OperatorError as error:
            self._refuse(number, str(error))
            return
        with ours:
            try:
                order(nursery.end, account.uid, account.gid, its, home=home, place=place)
            except OSError:
                return
            self._finish(number)
            fields = {"uid": account.uid, "gid": account.gid}
            errand.office.answer(errand.request.id, fields, ours.fileno())

    def _refuse(self, number: int, why: str) -> None:
        errand = self._finish(number)
        errand.office.refuse(errand.request.id, why)

    def _finish(self, number: int) -> _Errand:
        errand = self._errands.pop(number)
        errand.office.pending -= 1
        return errand

    def _end_registrar(self) -> None:
        """It does not work: another one takes its place as soon as it is gone."""
        if self._registrar is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._registrar.pid, signal.SIGKILL)


def _pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair(socket.AF_UNIX, kind)
    except OSError as error:
        raise OperatorError(f"no sockets can be had: {error.strerror}") from error

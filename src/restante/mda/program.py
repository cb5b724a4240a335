"""Running one command with a message on its standard input (qmail-command(8)).

The command gets the rights of this process and nothing else of it: a session of its own,
the environment that it is to have, descriptors 0, 1 and 2, signals as a login leaves them.
What is left of its process group when it has ended, and does not end soon, is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from restante.config.tree import Programs
from restante.envelope import Content
from restante.errors import TemporaryError
from restante.mda.environment import SHELL

KILL_AFTER = 5.0
"""Seconds between SIGTERM and SIGKILL, and those that others of the group have to end."""
OPEN_FILES = 1024
"""Descriptors that a command may have: the custom of systems, whatever this process has itself."""
FINAL_OUTPUT = 1024 * 1024
"""Octets that may lie in a pipe when a command ends (/proc/sys/fs/pipe-max-size)."""

_READ = 64 * 1024
_LOOK_INTERVAL = 0.05
"""Seconds between two looks at who is left of a process group."""
_OUT_OF_THE_WAY = 10
"""Descriptors from here on are none of those that a command is given."""
_GATE, _HOME = 3, 4
# Waits until its limits are set and then becomes the command: nothing slips out before.
_SCRIPT = (
    f'read -r go <&{_GATE} && [ "$go" = go ] && cd -P /proc/self/fd/{_HOME} && unset OLDPWD'
    f' && exec {_GATE}<&- {_HOME}<&- && umask "$1" && exec {SHELL} -c "$2"; exit 111'
)
_OPEN_GATE = b"go\n"


class Unpassable(TemporaryError):
    """The command, or a variable, cannot be handed to a process; the text says why."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    """Its exit code, or the negative number of the signal that ended it."""
    output: bytes
    """The beginning of what it wrote."""
    cut_short: str
    """Why it was ended from here; empty: it ended by itself."""


def run_command(
    command: str,
    home: int,
    variables: Mapping[str, str],
    content: Content,
    programs: Programs,
    stops: Collection[int],
) -> Ended:
    """Run the command in the directory ``home`` and wait for its end.

    ``home`` is a descriptor of it. When one of the descriptors ``stops`` becomes readable the
    command is ended early. Raises OSError and Unpassable.
    """
    with contextlib.ExitStack() as held:
        message = held.enter_context(_message(content))
        here = held.enter_context(_raised(os.dup(home)))
        gate = held.enter_context(_Pipe())
        output = held.enter_context(_Pipe())
        given = {0: message, 1: output.write, 2: output.write, _GATE: gate.read, _HOME: here}
        pid = _spawn((SHELL, "-c", _SCRIPT, SHELL, programs.umask, command), variables, given)
        watch = _Watch(pid, output.read, programs.max_output, stops)
        try:
            _limit(pid, programs)
            os.write(gate.write, _OPEN_GATE)
            output.close_write()
            return watch.wait(programs.timeout)
        except BaseException:
            watch.kill()
            raise


class _Pipe:
    """A pipe whose ends are out of a command's way."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._writing = contextlib.ExitStack()
        read, write = os.pipe()
        try:
            self.read = self._held.enter_context(_raised(read))
        except OSError:
            os.close(write)
            raise
        try:
            self.write = self._writing.enter_context(_raised(write))
        except OSError:
            self._held.close()
            raise

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()
        self._writing.close()

    def close_write(self) -> None:
        """Close the end that others write to; theirs stays open."""
        self._writing.close()


@contextlib.contextmanager
def _raised(fd: int) -> Iterator[int]:
    """The descriptor under a higher number, closed at the end and in every child."""
    try:
        raised = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
    finally:
        os.close(fd)
    try:
        yield raised
    finally:
        os.close(raised)


@contextlib.contextmanager
def _message(content: Content) -> Iterator[int]:
    """The message as a file without a name, to be read from its beginning and rewound.

    Return-Path and Delivered-To are not in it (qmail-command(8)): RPLINE and DTLINE are them.
    """
    with tempfile.TemporaryFile() as file:
        for chunk in content.chunks():
            file.write(chunk)
        file.flush()
        again = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    with _raised(again) as fd:
        yield fd


def _spawn(argv: tuple[str, ...], variables: Mapping[str, str], given: Mapping[int, int]) -> int:
    """Start a process that has the ``given`` descriptors, by their number there, and no other."""
    stray = [fd for fd in map(int, os.listdir("/proc/self/fd")) if _is_stray(fd, given)]
    return os.posix_spawn(
        argv[0],
        [_octets(word) for word in argv],
        {_octets(name): _octets(value) for name, value in variables.items()},
        file_actions=[
            *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in given.items()),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in stray),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=signal.valid_signals(),
    )


def _is_stray(fd: int, given: Mapping[int, int]) -> bool:
    """Whether a child would inherit it (only what this process was started with can be so)."""
    try:
        return fd not in given and os.get_inheritable(fd)
    except OSError:
        return False  # gone by now, as the one that listed them is


def _octets(text: str) -> bytes:
    """The text as a process is given it, which ends at a NUL."""
    if "\0" in text:
        raise Unpassable(f"{text!r} holds a NUL and cannot be passed to a command")
    return text.encode("utf-8", "surrogateescape")


def _limit(pid: int, programs: Programs) -> None:
    """Set the resource limits of a process that has not begun yet."""
    limits = {
        resource.RLIMIT_CPU: programs.max_cpu,
        resource.RLIMIT_AS: programs.max_memory,
        resource.RLIMIT_FSIZE: programs.max_file,
        resource.RLIMIT_NPROC: programs.max_processes,
    }
    for what, limit in limits.items():
        if limit:
            most = _at_most(limit, resource.prlimit(pid, what)[1])
            resource.prlimit(pid, what, (most, most))
    # A core would hold somebody's letter.
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_at_most(OPEN_FILES, hard), hard))


def _at_most(limit: int, hard: int) -> int:
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)


class _Watch:
    """Sees a command, the leader of its process group, through to its end."""

    def __init__(self, pid: int, output: int, keep: int, stops: Collection[int]) -> None:
        self._pid = pid
        self._output = output
        self._keep = keep
        self._kept = bytearray()
        self._stops = frozenset(stops)
        self._reaped = False
        self._poll = select.poll()
        os.set_blocking(output, False)
        self._poll.register(output, select.POLLIN)

    def wait(self, timeout: float) -> Ended:
        """The command's end, after ``timeout`` seconds and what it takes to kill at the latest."""
        cut_short = ""
        pidfd = os.pidfd_open(self._pid)
        try:
            if not self._until_exit(pidfd, timeout, self._stops):
                cut_short = self._why(timeout)
                self._signal(signal.SIGTERM)
            patience_ends = time.monotonic() + KILL_AFTER
            if not self._until_exit(pidfd, KILL_AFTER):
                self._signal(signal.SIGKILL)
            if not self._until_exit(pidfd, KILL_AFTER):
                # It has made itself another user's, or hangs in the kernel.
                self._reaped = True
                cut_short += ", and it cannot be killed"
                return Ended(-signal.SIGKILL, bytes(self._kept), cut_short)
        finally:
            os.close(pidfd)
        status = self._reap()
        self._end_others(patience_ends)
        self._read_rest()
        return Ended(status, bytes(self._kept), cut_short)

    def _why(self, timeout: float) -> str:
        stopping = select.poll()
        for stop in self._stops:
            stopping.register(stop, select.POLLIN)
        return "the server stops" if stopping.poll(0) else f"no end in {timeout:g} seconds"

    def kill(self) -> None:
        """End the command, whatever it does; nothing if it has ended."""
        if not self._reaped:
            self._signal(signal.SIGKILL)
            self._reap()

    def _reap(self) -> int:
        self._reaped = True
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _until_exit(self, pidfd: int, seconds: float, stops: frozenset[int] = frozenset()) -> bool:
        """Read output until the leader ends; False if time, or the server's, is up before."""
        deadline = time.monotonic() + seconds
        watched = {pidfd, *stops}
        for fd in watched:
            self._poll.register(fd, select.POLLIN)
        try:
            while True:
                ready = self._ready(deadline - time.monotonic())
                if pidfd in ready:
                    return True
                if stops & ready or time.monotonic() >= deadline:
                    return False
        finally:
            for fd in watched:
                self._poll.unregister(fd)

    def _end_others(self, deadline: float) -> None:
        """Read output until nobody else of the group is left; at the deadline they are killed.

        Nobody else can have got the group's number as long as there is one of them.
        """
        while self._signal(0):
            if time.monotonic() >= deadline:
                self._signal(signal.SIGKILL)
                return
            self._ready(_LOOK_INTERVAL)

    def _ready(self, seconds: float) -> set[int]:
        """Which of the descriptors have something, at once or within so many seconds."""
        ready = {fd for fd, _ in self._poll.poll(max(seconds, 0) * 1000)}
        if self._output in ready and not self._read():
            self._poll.unregister(self._output)
        return ready

    def _read(self) -> int:
        """Take some output; how many octets, 0 at its end."""
        try:
            octets = os.read(self._output, _READ)
        except BlockingIOError:
            return 0
        self._kept += octets[: self._keep - len(self._kept)]
        return len(octets)

    def _read_rest(self) -> None:
        """What was written before the end; a process outside of the group may go on writing."""
        for _ in range(FINAL_OUTPUT // _READ):
            if not self._read():
                return

    def _signal(self, number: int) -> bool:
        """Send a signal to the group, or 0 for none; whether there was anybody to get it."""
        try:
            os.killpg(self._pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

"""How a process of root becomes one of a mailbox's owner, for good."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES = (b"CapPrm", b"CapEff", b"CapAmb")
_UNHEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NAME = b"restante-helper"
"""What ps(1) shows as the process's name; 15 octets at most (prctl(2))."""

_libc = ctypes.CDLL(None, use_errno=True)


class RootLeft(Exception):
    """Something of root is left in a process that should be its user's; it must end."""


def become(uid: int, gid: int, *, is_server: bool = False) -> None:
    """Give up root for this uid and gid, with no supplementary groups; raises RootLeft, OSError.

    The process can then not be traced by others of its uid, nor leave a core file
    (PR_SET_DUMPABLE). Its commands may be setuid or setgid (procmail, qmail's own), as they may
    where the user runs them; ``is_server``: not where workers have this uid, which gain no rights
    by programs either (PR_SET_NO_NEW_PRIVS).
    """
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise RootLeft("the process can be traced")
    if is_server and _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise RootLeft("the process can gain rights by programs")
    _verify(uid, gid)


def heed_no_end() -> None:
    """What ends processes ends this one no more; its children, from their beginning on, as well.

    A group that is told to end, by a terminal or a service manager, is the supervisor's to end; a
    handler, since what is ignored would stay ignored in programs that helpers run.
    """
    for number in _UNHEEDED:
        signal.signal(number, lambda *_: None)


def leave_surroundings(keep: int) -> int:
    """Drop what the parent had that is no helper's business; returns where ``keep`` is now.

    All descriptors but ``keep`` and the three standard ones are closed, signals do what they
    usually do in Python but for those of ``heed_no_end``, the working directory is /, files are
    made for their owner alone.
    """
    heed_no_end()
    signal.set_wakeup_fd(-1)
    first = 3
    if keep != first:
        os.dup2(keep, first, inheritable=False)
    os.closerange(first + 1, os.sysconf("SC_OPEN_MAX"))
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, *_UNHEEDED}:
        if signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # both are errors of a call as well
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir("/")
    os.umask(0o077)
    _libc.prctl(_PR_SET_NAME, NAME, 0, 0, 0)
    return first


def _verify(uid: int, gid: int) -> None:
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise RootLeft(f"the process is {os.getresuid()}, {os.getresgid()}, not {uid}, {gid}")
    if os.getgroups():
        raise RootLeft(f"the process has the groups {os.getgroups()}")
    with open("/proc/self/status", "rb") as status:
        held = dict(line.split(b":\t", 1) for line in status if line.startswith(b"Cap"))
    if any(int(held[name], 16) for name in _CAPABILITIES):
        raise RootLeft(f"the process has capabilities: {held}")
    for regain in (os.setuid, os.seteuid, os.setgid, os.setegid):
        try:
            regain(0)
        except PermissionError:
            continue
        raise RootLeft(f"{regain.__name__}(0) succeeded")

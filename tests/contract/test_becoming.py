"""Root is given up for good: a process in which anything is left of it does not go on."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import pytest

from restante.errors import OperatorError
from restante.helper.become import RootLeft, become
from restante.service.user import ServerUser
from tests.support.owner import as_owner

UID, GID, OTHER = 12345, 12346, 12347
USER = ServerUser("restante", UID, GID, (GID, OTHER))
PR_SET_KEEPCAPS, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 8, 28, 4
setgroups, setresuid = os.setgroups, os.setresuid
Call = Callable[..., object]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="nobody else has root to give up")


def nothing(*_: object) -> None:
    """Nor does the call fail."""


def keeping(option: int, value: int) -> Call:
    """Capabilities outlive the change of uid."""

    def call(*uids: int) -> None:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
        setresuid(*uids)

    return call


def said(work: Callable[[], None], name: str, call: Call) -> str:
    """Why it fails in a child of root's where a function of ``os`` is ``call``."""

    def trying() -> str:
        setattr(os, name, call)
        try:
            work()
        except (OperatorError, RootLeft) as error:
            return str(error)
        return ""

    return as_owner(trying, 0, 0)


INCOMPLETE: list[tuple[str, Call]] = [
    ("setresgid", lambda *_: os.setegid(GID)),
    ("setresuid", lambda *_: setresuid(-1, UID, UID)),
    ("setresuid", lambda *_: setresuid(OTHER, OTHER, OTHER)),
]


@pytest.mark.parametrize(
    ("name", "call", "why"),
    [
        *((*each, f"not {UID}, {GID}") for each in INCOMPLETE),
        ("setgroups", lambda _: setgroups([OTHER]), f"the process has the groups [{OTHER}]"),
        ("setresuid", keeping(PR_SET_KEEPCAPS, 1), "the process has capabilities"),
        *((name, nothing, "(0) succeeded") for name in ("setuid", "seteuid", "setgid", "setegid")),
    ],
)
def test_what_is_left_in_a_helper_is_noticed(name: str, call: Call, why: str) -> None:
    assert why in said(lambda: become(UID, GID), name, call)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        *INCOMPLETE,
        ("setgroups", lambda _: setgroups([GID])),
        ("setresuid", keeping(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)),
    ],
)
def test_what_is_left_in_a_worker_is_noticed(name: str, call: Call) -> None:
    assert said(USER.become, name, call) == "this process did not become restante for good"

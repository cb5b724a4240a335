"""Files of certificates and keys whose file system has trouble, and what is no file at all."""

from __future__ import annotations

import errno
import json
import os
import pty
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from restante.config.tree import Settings
from restante.service.office import Office, Request
from restante.service.steward import Steward
from restante.service.user import ServerUser
from restante.service.watch import Watch
from restante.tls import CertificateRefused
from restante.tls.files import DiskFiles, HandedFiles, open_pem


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "mx.pem"
    path.write_text("a certificate")
    return str(path)


@contextmanager
def forgetful_server() -> Iterator[None]:
    """The file server knows nothing any more of what was opened."""
    really_close = os.close

    def forgotten(_: int) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def close(descriptor: int) -> None:
        really_close(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", forgotten)
        patch.setattr(os, "close", close)
        yield


def test_a_file_that_is_forgotten_is_refused(pem: str) -> None:
    with pytest.raises(CertificateRefused, match="Stale"), forgetful_server():
        DiskFiles().read(pem)


def test_a_handed_file_that_is_forgotten_is_refused(pem: str) -> None:
    files = HandedFiles.opened([pem], open_pem)
    assert files.read(pem).octets == b"a certificate"
    known = files.identity(pem)
    with forgetful_server():
        files.take(pem, open_pem(pem))
    assert files.identity(pem) != known
    with pytest.raises(CertificateRefused, match="Stale"):
        files.read(pem)


def test_a_worker_that_asks_for_a_forgotten_file_is_refused(pem: str) -> None:
    user = ServerUser("nobody", 65534, 65534, ())
    steward = Steward(Settings("/srv/mail"), user, cast("Watch", None), lambda: None)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        office = Office(0, frozenset({pem}), ours, lambda _office, _request: None)
        with forgetful_server():
            steward._serve(office, Request(7, "file", pem))
        answer = json.loads(its.recv(1000))
    assert answer["id"] == 7
    assert "Stale" in answer["error"]


def test_a_terminal_does_not_become_that_of_whoever_opens_it() -> None:
    """Its other end could send signals then."""
    other_end, terminal = pty.openpty()
    try:
        pid = os.fork()
        if pid == 0:
            _open_as_leader(os.ttyname(terminal))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)
        os.close(other_end)


def _open_as_leader(path: str) -> None:
    """Ends the process: with 0 if it is the leader of a session and has no terminal even so."""
    status = 2
    try:
        os.setsid()
        open_pem(path)
        status = 1
        os.open("/dev/tty", os.O_RDONLY)
    except OSError as error:
        status = status if error.errno != errno.ENXIO else 0
    finally:
        os._exit(status)

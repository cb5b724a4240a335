"""The process that asks the database for the supervisor, which root's server has alone."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.support.instance import PATIENCE, new_instance
from tests.support.owner import only_root

REGISTRAR = """
import os, socket, sys
from restante.config.load import load
from restante.service.registrar import run_registrar
from restante.service.user import server_user

settings = load(sys.argv[1], {})
user = server_user(settings)
sys.exit(run_registrar(settings, user, socket.socket(fileno=int(sys.argv[2]))))
"""


@only_root
def test_it_ends_with_a_supervisor_that_has_not_read_its_answer(tmp_path: Path) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE)
    with new_instance(tmp_path / "instance") as instance, its:
        process = subprocess.Popen(
            [sys.executable, "-c", REGISTRAR, instance.directory, str(its.fileno())],
            pass_fds=[its.fileno()],
            stderr=subprocess.PIPE,
        )
        try:
            ours.send(b'{"id": 7, "account": "nobody@example.com"}')
            assert ours.recv(1000, socket.MSG_PEEK).startswith(b'{"id": 7, "error": ')
            its.close()
            ours.close()
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()
        assert (process.returncode, said) == (0, b"")

"""Users of the system log in at a running server, whose workers cannot read the shadow file."""

from __future__ import annotations

import os
import poplib
import re
import signal
from pathlib import Path

import pytest

from tests.support.instance import Instance, new_instance, until
from tests.support.serving import Sections, add_accounts, configure, reload, start
from tests.support.system_users import SystemUsers, hashed

SECTIONS: Sections = {
    "auth": {"refusal_delay": 0.01, "guess_account": 4},
    "routing": {"system_files": True},
    "server": {"workers": 2},
}


def test_users_of_the_system_read_their_mail(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        return  # only root can give the host other users
    users = SystemUsers(tmp_path)
    users.add("tess", 4242, hashed("sesame"))
    users.add("lock", 4243, "!" + hashed("sesame"))
    with new_instance(tmp_path / "instance", domains=()) as server:
        add_accounts(server)
        configure(server, SECTIONS)
        server.within = users.seen_by([])
        start(server)
        server.pop3("tess", "sesame").quit()
        for login, password in (("tess", "wrong"), ("lock", "sesame"), ("root", "sesame")):
            with pytest.raises(poplib.error_proto, match=r"\[AUTH\] wrong user name or password"):
                server.pop3(login, password)
        assert "system user lock: locked" in server.log()
        server.pop3("iain@example.com", "secret").quit()
        _kill_registrar(server)
        until(lambda: _logs_in(server), "a login by way of another registrar")
        reload(server)
        until(lambda: _logs_in(server), "a login by way of its successor")
        server.stop()
        start(server)
        assert _logs_in(server)


def _kill_registrar(server: Instance) -> None:
    (pid,) = re.findall(r"event=servant_started name=registrar pid=(\d+)", server.log())
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: f"event=servant_ended name=registrar pid={pid}" in server.log(), "its end")


def _logs_in(server: Instance) -> bool:
    try:
        server.pop3("tess", "sesame").quit()
    except poplib.error_proto as error:
        if b"[SYS/TEMP]" not in error.args[0]:
            raise  # it is never a wrong password
        return False
    return True

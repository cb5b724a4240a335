"""Mail on a file system that has become read-only under a server: nobody loses any."""

from __future__ import annotations

import contextlib
import os
import poplib
import subprocess
from pathlib import Path

import pytest

from tests.support.instance import until
from tests.support.power import mounted
from tests.support.serving import IAIN, deliver, new_server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


def test_it_is_read_and_what_comes_waits(tmp_path: Path) -> None:
    mail = tmp_path / "instance" / "mail"
    with new_server(tmp_path / "instance") as instance:
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        with mounted("--bind", mail, mail):
            assert len(instance.messages(IAIN)) == 1
            remount(mail, "ro")
            assert deliver(instance.smtp_port, IAIN).startswith("250 ")
            until(lambda: "Read-only file system" in str(instance.queued()), "it waits")
            with contextlib.closing(instance.pop3(IAIN)) as session:
                assert session.retr(1)
                session.dele(1)
                with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/TEMP\]"):
                    session.quit()
            assert len(instance.messages(IAIN)) == 1
            remount(mail, "rw")
            with contextlib.closing(instance.pop3(IAIN)) as session:
                session.dele(1)
                assert session.quit().startswith(b"+OK")
            instance.here("queue", "retry", "--all")
            until(lambda: instance.messages(IAIN), "it is delivered")
        assert "event=unplanned" not in instance.log()


def remount(directory: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,bind,{how}", directory], check=True)

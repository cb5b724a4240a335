"""``restante demo``: one command, and mail flows."""

from __future__ import annotations

import os
import poplib
import re
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from restante.cli.status import ExitCode
from tests.support.instance import ANY_PORTS
from tests.support.shell import Shell

PATIENCE = 60
SITE = {
    "RESTANTE_DATABASE__URL": "mysql://site@127.0.0.1:1/mail",
    "RESTANTE_SERVER__ME": "mail.example.org",
}
"""What a demo takes no heed of."""


def start(directory: Path, log: Path, *options: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "restante", "demo", "--dir", str(directory), *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | SITE,
        )


def await_text(process: subprocess.Popen[bytes], log: Path, text: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while text not in (said := log.read_text()):
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.02)
    return said


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE)


def test_demo_delivers_its_welcome_and_runs_again(tmp_path: Path) -> None:
    directory, log = tmp_path / "demo", tmp_path / "log"
    for messages in (1, 2):
        process = start(directory, log, *ANY_PORTS)
        try:
            said = await_text(process, log, "A welcome message was sent")
            match = re.search(r"curl --url pop3://127\.0\.0\.1:(\d+) --user (\S+):(\S+)", said)
            assert match is not None
            session = poplib.POP3("127.0.0.1", int(match[1]), timeout=PATIENCE)
            session.user(match[2])
            session.pass_(match[3])
            assert session.stat()[0] == messages
            assert b"Subject: Welcome to Restante" in session.retr(1)[1]
            session.quit()
            secure = re.search(r"curl --insecure --url pop3s://127\.0\.0\.1:(\d+)/1 ", said)
            assert secure is not None
            trust = ssl.create_default_context(cafile=directory / "tls" / "self-signed.pem")
            trust.check_hostname = False
            poplib.POP3_SSL("127.0.0.1", int(secure[1]), context=trust, timeout=PATIENCE).quit()
        finally:
            status = stop(process)
        assert status == 0


def test_a_taken_port_is_one_clear_message(tmp_path: Path) -> None:
    log, other = tmp_path / "log", tmp_path / "other"
    process = start(tmp_path / "demo", log, *ANY_PORTS)
    try:
        said = await_text(process, log, "event=worker_started")
        port = re.search(r"service=smtp address=127\.0\.0\.1:(\d+)", said)
        assert port is not None
        address = f"127.0.0.1:{port[1]}"
        second = start(tmp_path / "second", other, *ANY_PORTS, "--smtp", address)
        assert second.wait(PATIENCE) == 69
    finally:
        stop(process)

    complaints = [line for line in other.read_text().splitlines() if line.startswith("restante: ")]
    assert len(complaints) == 1
    assert f"cannot listen on {address} for smtp" in complaints[0]
    assert "demo --smtp HOST:PORT --submission HOST:PORT" in complaints[0]
    assert "Traceback" not in other.read_text()


@pytest.mark.parametrize("lacks", ["nothing", "settings", "its own host's name"])
def test_no_other_instance_becomes_a_demo(
    hosted: Shell, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    """Whoever has read the README could send by it."""
    monkeypatch.setenv("RESTANTE_DIR", str(hosted.directory))
    monkeypatch.setenv("RESTANTE_SERVER__ME", "mx.example.com")
    settings = hosted.directory / "restante.toml"
    if lacks == "settings":
        settings.unlink()
        (hosted.directory / "drop").mkdir(exist_ok=True)
        (hosted.directory / "drop" / "site").touch()
    elif lacks == "nothing":
        settings.write_text(settings.read_text().replace("mx.example.com", "mail.example.org"))
    else:
        hosted.change("UPDATE rcpthosts SET host = 'example.org'")
    before = hosted.rows("SELECT username FROM mailbox")

    done = hosted.bare("demo", *ANY_PORTS)

    assert done.code == ExitCode.REFUSED
    assert "not a demo's; nothing was changed" in done.err
    assert hosted.rows("SELECT username FROM mailbox") == before

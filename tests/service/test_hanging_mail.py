"""A file system that hangs, or is not connected: its mail waits, and nobody else's does."""

from __future__ import annotations

import poplib
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.hanging import IS_POSSIBLE, HangingSystem, hanging
from tests.support.instance import NOBODY, Instance, new_instance, until
from tests.support.serving import ANN, IAIN, SAMPLE, deliver

pytestmark = pytest.mark.skipif(not IS_POSSIBLE, reason="only root mounts, and by FUSE")


@pytest.fixture
def far(tmp_path: Path) -> Iterator[HangingSystem]:
    with hanging(tmp_path / "far") as system:
        yield system


@pytest.fixture(params=["daemon", NOBODY], ids=["another uid", "the server's uid"])
def instance(
    tmp_path: Path, far: HangingSystem, request: pytest.FixtureRequest
) -> Iterator[Instance]:
    """Ann's home is on that file system, Iain's is not; both have one uid, or the server has it."""
    environ = {"RESTANTE_SERVER__USER": request.param}
    with new_instance(tmp_path / "instance", environ=environ) as it:
        for address in (ANN, IAIN):
            it.add_mailbox(address)
        with closing(sqlite3.connect(it.directory / "restante.db")) as rows:
            rows.execute(
                "UPDATE mailbox SET home = ? WHERE username = ?", (f"{far.place}/ann", ANN)
            )
            rows.commit()
        it.start()
        yield it


def log_in(instance: Instance) -> str:
    """What Ann hears."""
    with pytest.raises(poplib.error_proto) as heard, closing(instance.pop3(ANN)):
        pass
    return str(heard.value)


def test_who_has_a_home_elsewhere_waits_for_nothing(instance: Instance, far: HangingSystem) -> None:
    with ThreadPoolExecutor(2) as clients:
        try:
            sent = clients.submit(deliver, instance.smtp_port, ANN)
            far.wait_until_asked()
            fetched = clients.submit(log_in, instance)
            for count in (1, 2):
                assert deliver(instance.smtp_port, IAIN).startswith("250 ")
                assert len(instance.messages(IAIN)) == count
            assert not sent.done()
            assert not fetched.done()
        finally:
            far.end()
        assert sent.result()[:4] in {"250 ", "451 "}
        assert "-ERR [SYS/TEMP]" in fetched.result()
    assert "event=unplanned" not in instance.log()


def test_a_message_for_both_holds_up_no_other(instance: Instance, far: HangingSystem) -> None:
    def send_to_both() -> None:
        with instance.smtp() as client:
            client.sendmail("me@example.net", [IAIN, ANN], SAMPLE)

    with ThreadPoolExecutor(1) as clients:
        try:
            sent = clients.submit(send_to_both)
            far.wait_until_asked()
            assert deliver(instance.smtp_port, IAIN).startswith("250 ")
            assert not sent.done()
        finally:
            far.end()
        sent.result()
    until(lambda: len(instance.messages(IAIN)) == 2, "each is there once")


def test_its_commands_are_refused_to_the_servers_uid_as_anywhere(
    instance: Instance, far: HangingSystem
) -> None:
    with closing(sqlite3.connect(instance.directory / "restante.db")) as rows:
        rows.execute("INSERT INTO alias VALUES (?, 'x', '|true', '')", (ANN,))
        rows.commit()
    far.end()
    deliver(instance.smtp_port, ANN.replace("@", "+x@"))
    is_server = instance.environ["RESTANTE_SERVER__USER"] == NOBODY
    why = "programs.run_as_server_user is not set" if is_server else "endpoint is not connected"
    until(lambda: why in instance.log(), "it was refused, or tried")


def test_check_says_that_homes_are_out_of_reach(instance: Instance, far: HangingSystem) -> None:
    told = instance.run("check", check=False)
    assert told.returncode == 1
    assert f"problem: the file system at {far.place} does not answer; nothing is" in told.stdout


@pytest.mark.parametrize("setting", ["mail.root", "queue.root"])
def test_check_says_that_it_does_not_answer(
    tmp_path: Path, far: HangingSystem, setting: str
) -> None:
    with new_instance(tmp_path / "instance") as instance:
        instance.environ[f"RESTANTE_{setting.replace('.', '__').upper()}"] = str(far.place)
        told = instance.run("check", check=False)
        assert told.returncode == 1
        assert f"problem: {setting}: the file system of {far.place} does not answer" in told.stdout
        far.end()
        told = instance.run("check", check=False)
        assert told.returncode == 1
        (line,) = [each for each in told.stdout.splitlines() if f"problem: {setting}" in each]
        assert "Transport endpoint is not connected (FUSE: " in line
        assert "mkdir" not in told.stdout


def test_who_has_a_home_there_is_served_once_it_is_mounted_again(
    tmp_path: Path, instance: Instance, far: HangingSystem
) -> None:
    """Without a restart, and mail that has waited is there, once."""
    far.end()
    heard = deliver(instance.smtp_port, ANN)
    assert heard[:4] in {"250 ", "451 "}
    assert "-ERR [SYS/TEMP]" in log_in(instance)
    subprocess.run(["umount", "--lazy", far.place], check=True)
    subprocess.run(["mount", "--bind", tmp_path / "instance" / "mail", far.place], check=True)
    instance.run("queue", "retry", "--all")
    until(lambda: len(instance.messages(ANN)) == 1 or heard.startswith("451 "), "it is there")
    assert deliver(instance.smtp_port, ANN).startswith("250 ")
    assert len(instance.messages(ANN)) == (2 if heard.startswith("250 ") else 1)

"""``restante queue`` beside a server that runs: what it does is done at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance, until
from tests.support.ports import free_port
from tests.support.relaying_server import relaying_server, submit
from tests.support.serving import IAIN, SAMPLE, deliver, maildir, start
from tests.support.smtp_peer import SmtpPeer, smtp_peer

BUSY = "450 4.2.0 come again"


@pytest.fixture
def peer() -> Iterator[SmtpPeer]:
    with smtp_peer(SmtpPeer()) as running:
        yield running


def queue(running: Instance, *arguments: str) -> str:
    """What a command prints, and then what it says besides."""
    done = running.run("queue", *arguments)
    return done.stdout + done.stderr


def states(running: Instance) -> dict[str, list[str]]:
    """Of the recipients of what is in the queue."""
    return {each["id"]: [r["state"] for r in each["recipients"]] for each in running.queued()}


def put_off(running: Instance, peer: SmtpPeer, *recipients: str) -> str:
    """A message that waits after its first attempt, and whose host would take it now."""
    peer.says |= {"RCPT": BUSY, "DATA": "503 5.5.1 no valid recipients"}
    queue_id = submit(running, *recipients)
    until(lambda: f"event=deferred id={queue_id} " in running.log(), "it is put off")
    peer.says.clear()
    return queue_id


def reports(running: Instance) -> list[str]:
    """The mail in the sender's mailbox."""
    return [each.read_text() for each in (maildir(running, IAIN) / "new").glob("*")]


def test_retry_is_at_once_even_where_the_host_was_down(tmp_path: Path) -> None:
    port = free_port()
    with relaying_server(tmp_path / "i", port) as running:
        queue_id = submit(running, "ann@example.net")
        until(lambda: "event=lane_blocked" in running.log(), "the host is found to be down")
        assert "Connection refused" in queue(running, "summary")
        with smtp_peer(SmtpPeer(), port=port) as peer:
            assert "put up for an attempt now" in queue(running, "retry", "--to", "example.net")
            until(lambda: peer.contents, "it is delivered")
            until(lambda: not states(running), "it has left the queue")
        assert queue_id in running.log()


def test_held_is_not_tried_and_released_is(tmp_path: Path, peer: SmtpPeer) -> None:
    with relaying_server(tmp_path / "i", peer.port) as running:
        held = put_off(running, peer, "ann@example.net")
        queue(running, "hold", held)
        assert queue(running, "retry", "--all") == (
            "Nothing that waits matches; nothing was changed.\n"
        )
        submit(running, "bob@example.net")
        until(lambda: list(states(running)) == [held], "others go on")
        assert states(running) == {held: ["held"]}
        assert len([each for each in peer.commands if "ann@" in each]) == 1

        queue(running, "release", held)

        until(lambda: not states(running), "it is delivered")
        assert len(peer.contents) == 2
        assert "event=unplanned" not in running.log()


def test_removed_is_gone_without_a_word(tmp_path: Path, peer: SmtpPeer) -> None:
    with relaying_server(tmp_path / "i", peer.port) as running:
        removed = put_off(running, peer, "ann@example.net")
        other = put_off(running, peer, "bob@example.org")

        assert "1 message (1 recipient) removed.\n" in queue(running, "remove", removed)

        assert list(states(running)) == [other]
        queue(running, "retry", "--all")
        until(lambda: not states(running), "the other one is delivered")
        assert len(peer.contents) == 1
        assert reports(running) == []


def test_removed_while_it_is_tried(tmp_path: Path, peer: SmtpPeer) -> None:
    """The host takes it all the same; nothing of that upsets the server."""
    done, reached = threading.Event(), threading.Event()

    def slowly(_: str) -> str:
        reached.set()
        done.wait()
        return "250 2.0.0 ok"

    peer.says["END"] = slowly
    with relaying_server(tmp_path / "i", peer.port) as running:
        queue_id = submit(running, "ann@example.net")
        until(reached.is_set, "its attempt is near its end")
        try:
            queue(running, "remove", queue_id)
            assert states(running) == {}
        finally:
            done.set()
        peer.says.clear()
        submit(running, "bob@example.net")
        until(lambda: len(peer.contents) == 2, "the server goes on")
        assert running.stop() == 0
        assert "event=unplanned" not in running.log()


def test_bounced_comes_back_at_once(tmp_path: Path, peer: SmtpPeer) -> None:
    with relaying_server(tmp_path / "i", peer.port) as running:
        queue_id = put_off(running, peer, "ann@example.net", "bob@example.net")

        queue(running, "bounce", queue_id, "--to", "ann@example.net")

        until(lambda: reports(running), "the sender hears of it")
        (report,) = reports(running)
        assert "554 5.0.0 returned by the operator" in report
        assert "bob@example.net" not in report.partition("Subject: for elsewhere")[0]
        until(lambda: list(states(running)) == [queue_id], "the report has left the queue")
        assert states(running) == {queue_id: ["failed", "waiting"]}


def test_bounced_while_the_server_is_stopped(tmp_path: Path, peer: SmtpPeer) -> None:
    with relaying_server(tmp_path / "i", peer.port) as running:
        queue_id = put_off(running, peer, "ann@example.net")
        running.stop()

        said = queue(running, "bounce", queue_id)
        assert "No server has the queue" in said
        assert reports(running) == []
        start(running)

        until(lambda: reports(running), "the sender hears of it")
        until(lambda: not states(running), "nothing is left")
        assert peer.contents == []


def test_held_stays_held_in_a_queue_that_is_adopted(tmp_path: Path, peer: SmtpPeer) -> None:
    with relaying_server(tmp_path / "i", peer.port) as running:
        held = put_off(running, peer, "ann@example.net")
        running.stop()
        queue(running, "hold", held)
        (running.directory / "queue" / "0").rename(running.directory / "queue" / "9")
        start(running)
        until(lambda: "/queue/9 messages=1" in running.log(), "the queue is adopted")
        deliver(running.smtp_port, IAIN, SAMPLE)
        assert states(running) == {held: ["held"]}

        queue(running, "release", held)

        until(lambda: len(peer.contents) == 1, "it is delivered")
        until(lambda: not (running.directory / "queue" / "9").exists(), "the queue is removed")

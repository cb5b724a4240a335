"""Figures: counted in several processes, added up, served over HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from restante.metrics import Meter
from restante.metrics.files import ROOM, figures_directory, forget, prepare
from restante.metrics.prometheus import PrometheusMeter
from restante.metrics.server import MAX_REQUEST, MAX_SCRAPES, MetricsServer
from tests.support.no_threads import FewThreads

WORK = """
import sys
from restante import maillog
from restante.config.tree import Log
from restante.logsetup import setup_logging
from restante.metrics.prometheus import PrometheusMeter
from restante.status import Peer, PermanentFailure, Reply, TemporaryFailure

setup_logging(Log(target="/dev/null", level="error"), "/")
maillog.measure_with(PrometheusMeter(sys.argv[1], int(sys.argv[2])))
maillog.session_opened("s1", "smtp", "192.0.2.7")
maillog.session_opened("s2", "smtp", "192.0.2.7")
maillog.session_closed("s2", "smtp", "quit", 0.3)
maillog.session_refused("pop3", "192.0.2.7", "too many")
maillog.sender_refused("s1", "a@b", "", Reply(553, "7.1", "no"), "")
maillog.recipient_refused("s1", "m1", "c@d", "a@b", Reply(550, "1.1", "no"), "")
maillog.message_refused("s1", "m1", "a@b", ["c@d"], Reply(554, "4.6", "no"), "")
maillog.message_accepted("s1", "m2", "a@b", "", 1, 1000, "delivered", 0.01)
maillog.message_accepted("s1", "m3", "a@b", "", 1, 234, "queued", 0.01)
maillog.queue_opened("queue/0", 4)
maillog.bounced("m3", "m4", "a@b")
maillog.reported("m3", "m5", "a@b", "delayed")
maillog.message_finished("m3")
maillog.delivered("m2", "a@b", "")
maillog.sent("m3", "a@b", Peer("mx", "192.0.2.1", "end of data"), "250 ok")
maillog.relay_opened("mx", "192.0.2.1", "", 0.1)
maillog.deferred("m3", "a@b", TemporaryFailure(Reply(451, "3.0", "no")), 1, 0.0)
maillog.failed("m3", "a@b", PermanentFailure(Reply(550, "1.1", "no")))
maillog.login("s", "pop3", "192.0.2.7", "iain", "iain")
maillog.login_refused("s", "pop3", "192.0.2.7", "iain", "wrong password", "")
maillog.unplanned("here", ValueError())
if sys.argv[3] == "away":
    maillog.database_away("gone")
"""

TWICE = """
restante_sessions_total{service="smtp"} 4.0
restante_sessions_refused_total{service="pop3"} 2.0
restante_sessions_open{service="smtp"} 2.0
restante_session_seconds_count{service="smtp"} 2.0
restante_refused_total{code="553",command="mail"} 2.0
restante_refused_total{code="550",command="rcpt"} 2.0
restante_refused_total{code="554",command="data"} 2.0
restante_messages_accepted_total{how="delivered"} 2.0
restante_octets_accepted_total 2468.0
restante_accept_seconds_count{how="queued"} 2.0
restante_queue_messages 12.0
restante_bounces_total 2.0
restante_recipients_total{outcome="delivered"} 4.0
restante_recipients_total{outcome="deferred"} 2.0
restante_relay_connections_total{result="good"} 2.0
restante_logins_total{result="good",service="pop3"} 2.0
restante_logins_total{result="wrong password",service="pop3"} 2.0
restante_database_up 0.0
restante_unplanned_total 2.0
"""


def work(directory: str, slot: int = 0, database: str = "up") -> None:
    """Events of one worker process."""
    subprocess.run([sys.executable, "-c", WORK, directory, str(slot), database], check=True)


def figures(directory: str) -> set[str]:
    """The lines that a scrape gives, made in a process of its own as a worker is."""
    script = (
        "import sys; from restante.metrics.server import exposition;"
        "sys.stdout.buffer.write(exposition(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, directory], check=True, capture_output=True
    )
    return set(done.stdout.decode().splitlines())


@pytest.fixture
def directory(tmp_path: Path) -> str:
    made = figures_directory(str(tmp_path))
    prepare(made)
    return made


def test_figures_of_two_workers_are_added_up(directory: str) -> None:
    work(directory, 0)
    work(directory, 1, "away")
    assert set(TWICE.split("\n")) - {""} <= figures(directory)
    forget(directory, 1)
    left = figures(directory)
    assert 'restante_sessions_open{service="smtp"} 1.0' in left
    assert "restante_database_up 1.0" in left
    assert 'restante_sessions_total{service="smtp"} 4.0' in left


def test_a_successor_goes_on_with_the_counters_in_the_same_files(directory: str) -> None:
    work(directory)
    files = sorted(os.listdir(directory))
    forget(directory, 0)
    work(directory)
    assert sorted(os.listdir(directory)) == files
    told = figures(directory)
    for line in (
        'restante_sessions_open{service="smtp"} 1.0',
        'restante_sessions_total{service="smtp"} 4.0',
        'restante_session_seconds_count{service="smtp"} 2.0',
        "restante_queue_messages 6.0",
        "restante_octets_accepted_total 2468.0",
    ):
        assert line in told


def test_all_figures_have_their_room_from_the_first(directory: str) -> None:
    """Whoever writes to memory for which a full disk has no room is killed."""
    work(directory)
    files = sorted(Path(directory).iterdir())
    names = ("counter", "gauge_livemin", "gauge_livesum", "histogram")
    assert [file.name for file in files] == [f"{name}_0.db" for name in names]
    for file in files:
        assert file.stat().st_size == ROOM
        assert file.stat().st_blocks * 512 >= ROOM


def test_a_worker_that_is_just_starting_stops_no_scrape(directory: str) -> None:
    work(directory)
    (Path(directory) / "counter_1.db").touch()
    assert 'restante_sessions_total{service="smtp"} 2.0' in figures(directory)


def test_a_new_start_counts_from_nothing(directory: str) -> None:
    work(directory)
    prepare(directory)
    assert os.listdir(directory) == []
    assert figures(directory) == set()


def test_prometheus_is_not_imported_unless_it_is_wanted() -> None:
    script = "import sys, restante.maillog; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_both_meters_count_the_same_things() -> None:
    def methods(kind: type[Meter]) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(PrometheusMeter) == methods(Meter)


@pytest.fixture
async def port(directory: str) -> AsyncIterator[int]:
    """A server of figures; the port it listens on."""
    bound = socket.create_server(("127.0.0.1", 0))
    served: int = bound.getsockname()[1]
    server = MetricsServer(directory)
    await server.start([bound])
    yield served
    await server.stop()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_scrape(port: int, directory: str) -> None:
    await asyncio.to_thread(work, directory)
    answer = await ask(port, b"GET /metrics?x=y HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"restante_bounces_total 1.0\n" in body


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\r\n\r\n", b"404"),
    ],
)
async def test_other_requests(port: int, request_head: bytes, status: bytes) -> None:
    answer = await ask(port, request_head)
    assert answer.split(b" ")[1] == status


async def test_without_a_thread_a_scrape_is_told_so(port: int) -> None:
    asyncio.get_running_loop().set_default_executor(FewThreads(1))
    for status in (b"503", b"200"):
        answer = await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert answer.split(b" ")[1] == status


async def test_endless_head_is_cut_off(port: int) -> None:
    try:
        answer = await ask(port, b"x" * (20 * MAX_REQUEST))
    except ConnectionError:
        answer = b""  # a reset is as good as an orderly end
    assert answer == b""


async def test_too_many_connections_are_closed_and_stop_waits_for_none(port: int) -> None:
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_SCRAPES)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    for _, one in [*held, (reader, writer)]:
        one.close()
        await one.wait_closed()

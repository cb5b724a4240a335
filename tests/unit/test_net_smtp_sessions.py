"""Sessions of SMTP: each has its time and its turns, and a message is accepted to its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from restante.auth.login import PasswordAuthenticator
from restante.config import Settings
from restante.config.tree import HostPort, Pop3, Smtp
from restante.config.tree import Server as ServerSettings
from restante.directory import KnownLookups
from restante.envelope import Content, Envelope
from restante.mda import Delivery, MboxDelivery, ProgramDelivery, Ran
from restante.net.server import ConnectionLimits, Server, session_ids
from restante.net.shares import Board
from restante.net.smtp import SmtpService
from restante.protocol.smtp.server import MAX_UNSENT
from restante.queue import Target
from restante.receiver.door import Receiver
from restante.receiver.trust import FamiliarRecipients
from restante.relay.routes import Routes
from restante.routing.router import Router
from restante.service.listeners import Listeners
from restante.status import Delivered, Outcome
from tests.support.deaf import flood
from tests.support.events import capture_logs
from tests.support.guards import Unguarded
from tests.support.memory_directory import MemoryDirectory, Tables, account
from tests.support.passing_time import PassingTime

ANY = HostPort("127.0.0.1", 0)
PATIENCE = 30.0
"""Seconds for what comes at once, on a busy machine."""
SESSION = 1.0
"""Seconds that a session may last here."""

MESSAGE = (
    b"EHLO client\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<iain@example.com>\r\n"
    b"BDAT 14 LAST\r\nSubject: x\r\n\r\n"
)


class SlowWriter:
    """Takes longer than the session may last."""

    async def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Outcome:
        await asyncio.sleep(1.1 * SESSION)
        return Delivered("at last")

    async def deliver_each(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery], *, again: bool
    ) -> tuple[Outcome, ...]:
        raise NotImplementedError

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        raise NotImplementedError

    async def run(self, envelope: Envelope, content: Content, program: ProgramDelivery) -> Ran:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class NoRoom:
    async def add(self, envelope: Envelope, content: Content, targets: Sequence[Target]) -> None:
        raise NotImplementedError


def tables() -> Tables:
    return Tables(
        rcpthosts=["example.com"],
        mailbox=[account("iain@example.com")],
        virtual=[("iain@example.com", "iain", "example.com")],
    )


class HangingDirectory(MemoryDirectory):
    """Answers for one address, and never for any other."""

    async def prefetch(self, addresses: Sequence[tuple[str, str]]) -> KnownLookups:
        if addresses[0][0] != "iain":
            await asyncio.Event().wait()
        return await super().prefetch(addresses)


@asynccontextmanager
async def serving(
    directory: Path,
    session_timeout: float = SESSION,
    known: MemoryDirectory | None = None,
    greeting: str = "",
    me: str = "",
) -> AsyncIterator[int]:
    """The port of a server that is ready; ``known``: what answers for its one mailbox."""
    smtp = Smtp((ANY,), session_timeout=session_timeout, greeting=greeting)
    settings = Settings(str(directory), server=ServerSettings(me), smtp=smtp, pop3=Pop3(()))
    known = known or MemoryDirectory(tables())
    ids = map(str, itertools.count())
    router = Router(settings.routing, "mx.example.com")
    receiver = Receiver(settings, router, known, SlowWriter(), NoRoom(), Routes({}), ids)
    authenticator = PasswordAuthenticator(known, settings.auth, Unguarded())
    service = SmtpService(
        "smtp", lambda: settings, lambda: receiver, str(directory), authenticator, None
    )
    limits = ConnectionLimits(10, 0, Board(1).share(0), lambda: None)
    server = Server(service, limits, session_ids(0))
    listeners = Listeners().adjusted(settings)
    (listener,) = (each for each in listeners if each.service == "smtp")
    server.start([listener.socket])
    try:
        yield listener.bound.port
    finally:
        await authenticator.close()
        await server.stop(1)
        listeners.close()


@asynccontextmanager
async def visiting(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def connected(
    directory: Path,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with serving(directory) as port, visiting(port) as (reader, writer):
        yield reader, writer


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        ("", "NAME ESMTP"),
        ("hello", "NAME hello"),
        ("NAME hello", "NAME hello"),
        ("NAME", "NAME ESMTP"),
        ("NAME.au hello", "NAME NAME.au hello"),
    ],
)
async def test_the_name_comes_first_and_once(tmp_path: Path, greeting: str, said: str) -> None:
    name = Settings("/").hostname
    async with (
        serving(tmp_path, greeting=greeting.replace("NAME", name)) as port,
        visiting(port) as (reader, _),
    ):
        assert await reader.readline() == f"220 {said}\r\n".replace("NAME", name).encode()


async def test_a_name_beyond_ascii_comes_once_too(tmp_path: Path) -> None:
    """As the setting, and the file of qmail's that it stands for, have it."""
    async with (
        serving(tmp_path, greeting="Mx.müller.example hello", me="mx.müller.example") as port,
        visiting(port) as (reader, _),
    ):
        assert await reader.readline() == b"220 mx.xn--mller-kva.example hello\r\n"


async def test_a_message_that_is_being_accepted_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its session has no more time then."""
    passing = PassingTime(monkeypatch)

    async def slowly(*_: object) -> Outcome:
        await passing.until_later(2 * PATIENCE)
        return Delivered("at last")

    monkeypatch.setattr(SlowWriter, "deliver_all", slowly)
    async with (
        serving(tmp_path, session_timeout=PATIENCE) as port,
        visiting(port) as (reader, writer),
    ):
        writer.write(MESSAGE)
        said = (await reader.read(-1)).decode().splitlines()
    assert said[-2].startswith("250 2.0.0 ok")
    assert said[-1].startswith("421 4.4.2 ")


async def test_a_message_that_was_accepted_is_answered_before_the_next_one_is_asked_about(
    tmp_path: Path,
) -> None:
    known = HangingDirectory(tables())
    async with (
        serving(tmp_path, session_timeout=60, known=known) as port,
        visiting(port) as (reader, writer),
    ):
        writer.write(MESSAGE + b"MAIL FROM:<a@example.org>\r\nRCPT TO:<other@example.com>\r\n")
        async with asyncio.timeout(PATIENCE):
            while not (await reader.readline()).startswith(b"250 2.0.0 ok"):
                pass


async def test_a_message_that_was_accepted_is_answered_though_a_bug_ends_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Receiver, "refused", failing)
    refused = MESSAGE.replace(b"EHLO client\r\n", b"").replace(b"\r\n\r\n", b"\n\r\n\r")
    async with serving(tmp_path, session_timeout=60) as port, visiting(port) as (reader, writer):
        writer.write(MESSAGE + refused)
        said = (await reader.read(-1)).decode().splitlines()
    assert [line[:3] for line in said[-2:]] == ["554", "421"]
    assert sum(line.startswith("250 2.0.0 ok") for line in said) == 1


@pytest.mark.parametrize(
    ("buggy", "told"),
    [
        ("sender", "sender_refused"),
        ("recipients", "recipient_refused"),
        ("accept", "message_refused"),
    ],
)
async def test_a_bug_is_told_of_with_its_session_and_what_it_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buggy: str, told: str
) -> None:
    async def failing(*_: object) -> None:
        raise RuntimeError("a bug")

    def failing_at_once(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Receiver, buggy, failing_at_once if buggy == "sender" else failing)
    with capture_logs() as events:
        async with (
            serving(tmp_path, session_timeout=60) as port,
            visiting(port) as (reader, writer),
        ):
            writer.write(MESSAGE + b"QUIT\r\n")
            said = (await reader.read(-1)).decode()
    assert "\r\n451 4.3.0 " in said
    session = next(each["session"] for each in events if each["event"] == "session_opened")
    bug, refused = (each for each in events if each["event"] in {"unplanned", told})
    assert bug["where"] == f"smtp session {session}"
    assert (refused["event"], refused["session"]) == (told, session)
    assert (refused["reply"][:9], refused["why"]) == ("451 4.3.0", "unplanned")


async def test_a_message_that_breaks_off_is_told_of_by_sender_and_recipient(
    tmp_path: Path,
) -> None:
    with capture_logs() as events:
        async with serving(tmp_path) as port, visiting(port) as (reader, writer):
            writer.write(MESSAGE.replace(b"BDAT 14 LAST", b"BDAT 99 LAST"))
            writer.write_eof()
            await reader.read(-1)
    (told,) = (each for each in events if each["event"] == "message_broken_off")
    assert (told["sender"], told["recipients"]) == ("a@example.org", ["iain@example.com"])
    assert (told["octets"], told["reason"]) == (len(b"Subject: x\n\n"), "lost")
    assert [each["event"] for each in events[-2:]] == ["message_broken_off", "session_closed"]


async def test_a_message_that_was_answered_or_given_up_did_not_break_off(tmp_path: Path) -> None:
    given_up = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<iain@example.com>\r\nQUIT\r\n"
    nobody = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<ian@example.com>\r\n"
    with capture_logs() as events:
        async with serving(tmp_path, session_timeout=60) as port:
            for said in (MESSAGE, MESSAGE + given_up, MESSAGE + nobody):
                async with visiting(port) as (reader, writer):
                    writer.write(said)
                    writer.write_eof()
                    await reader.read(-1)
    assert "message_broken_off" not in {each["event"] for each in events}
    (refused,) = (each for each in events if each["event"] == "recipient_refused")
    assert (refused["sender"], refused["recipient"]) == ("a@example.org", "ian@example.com")


async def test_a_bug_in_what_is_remembered_of_recipients_is_no_matter_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(FamiliarRecipients, "has", failing)
    async with serving(tmp_path, session_timeout=60) as port, visiting(port) as (reader, writer):
        writer.write(MESSAGE + b"QUIT\r\n")
        said = (await reader.read(-1)).decode().splitlines()
    assert [line[:3] for line in said[-3:]] == ["250", "250", "221"]


async def test_a_client_that_never_rests_is_ended_too(tmp_path: Path) -> None:
    async with connected(tmp_path) as (reader, writer):
        reply = await reader.readline()
        while not reply.startswith(b"421 "):
            assert reply[:3] in (b"220", b"250")
            writer.write(b"NOOP\r\n")
            reply = await reader.readline()
    assert reply.startswith(b"421 4.4.2 ")


async def test_a_client_that_reads_nothing_is_ended_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as port, asyncio.timeout(PATIENCE):
        await flood(port, b"HELP\r\n" * 4096)


async def test_a_flood_of_commands_leaves_others_their_turn(tmp_path: Path) -> None:
    turns, floods = 0, 20
    count = floods * MAX_UNSENT // len(b"250 2.0.0 Ok\r\n")

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with serving(tmp_path, session_timeout=60) as port, visiting(port) as (reader, writer):
        await reader.readline()
        writer.write(b"NOOP\r\n" * count + b"QUIT\r\n")
        counting = asyncio.create_task(others())
        answers = await reader.read(-1)
        counting.cancel()
    assert answers.count(b"\r\n") == count + 1
    assert turns > floods

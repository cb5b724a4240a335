"""TLS to other hosts with real peers: openssl's own server, and this host as another one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from restante.relay.resolver import Endpoint
from restante.relay.wire import Wire
from restante.status import Delivered
from tests.support.certificates import Issued, issue, trusting, write
from tests.support.instance import PATIENCE
from tests.support.nameserver import Zone, nameserver
from tests.support.relaying import LARGE, believed, only, send, spooled_parcel
from tests.support.serving import ANN, IAIN, maildir
from tests.support.tls_serving import HOST, tls_server

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("service", ["smtp", "submissions"])
async def test_this_host_as_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    """After STARTTLS, and where TLS comes first; with a login there."""
    authority = believed(tmp_path, monkeypatch)
    with (
        nameserver(Zone({(HOST, "A"): ["127.0.0.1"]})) as dns,
        tls_server(tmp_path, authority=authority) as server,
    ):
        port = server.instance.port(service)
        lane = f"{HOST}:{port}"
        logins = {lane: f"{IAIN}:secret"} if service == "submissions" else {}
        if logins:
            monkeypatch.setattr("restante.relay.driver.SUBMISSIONS_PORT", port)
        sent = spooled_parcel(tmp_path, LARGE, IAIN, ANN)
        attempted = await send(dns, 25, sent, lane, tls_policy={HOST: "verify"}, credentials=logins)
        outcome = only(attempted)
        assert isinstance(outcome, Delivered)
        assert outcome.peer is not None
        assert outcome.peer.tls.startswith("TLSv1.3 ")
        (message,) = (maildir(server.instance, ANN) / "new").iterdir()
        assert message.read_bytes().endswith(LARGE)


# openssl's server


@asynccontextmanager
async def s_server(
    directory: Path, issued: Issued, *options: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """It says what it is told by lines, some of which are commands, and shows what it hears."""
    files = write(directory, "peer", issued)
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", files.certificate,
        "-key", files.key, "-naccept", "1", *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        line = await _line(process, b"ACCEPT ")
        yield process, int(line.rpartition(b":")[2])
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ends with its one connection
            process.kill()
        await process.wait()


async def _line(process: asyncio.subprocess.Process, beginning: bytes) -> bytes:
    """The next line that begins so."""
    assert process.stdout is not None
    while True:
        line = await process.stdout.readline()
        assert line, f"it has ended before {beginning!r}"
        if line.startswith(beginning):
            return line.strip()


class Typing:
    """Somebody at openssl's terminal, and a wire to it that speaks TLS."""

    def __init__(self, process: asyncio.subprocess.Process, wire: Wire) -> None:
        self.process, self.wire = process, wire

    def type(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")

    async def talk(self, word: bytes) -> None:
        """A line in each direction."""
        self.wire.send(b"to it " + word + b"\n")
        assert await _line(self.process, b"to it ") == b"to it " + word
        self.type(b"from it " + word)
        assert await self.hear() == b"from it " + word + b"\n"

    async def hear(self) -> bytes:
        return await self.wire.receive(PATIENCE)


@asynccontextmanager
async def typing(directory: Path, authority: Issued, version: str) -> AsyncIterator[Typing]:
    async with s_server(directory, issue(HOST, by=authority), f"-{version}") as (process, port):
        wire = await Wire.connect(Endpoint(HOST, "127.0.0.1", port), PATIENCE)
        try:
            trust = trusting(authority)
            trust.options |= ssl.OP_NO_RENEGOTIATION
            await wire.start_tls(trust, HOST, PATIENCE)
            yield Typing(process, wire)
        finally:
            wire.abort()


@pytest.mark.parametrize(
    ("version", "command"), [("tls1_3", b"K"), ("tls1_3", b"k"), ("tls1_2", b"")]
)
def test_openssl_and_new_keys(tmp_path: Path, version: str, command: bytes) -> None:
    """``K`` asks for the client's as well."""

    async def converse() -> None:
        async with typing(tmp_path, issue(), version) as desk:
            await desk.talk(b"before")
            for _ in range(3):
                desk.type(command or b"nothing")
                if not command:
                    assert await desk.hear() == b"nothing\n"
                await desk.talk(b"afterwards")
            desk.type(b"Q")
            assert await desk.hear() == b""
            assert not desk.wire.is_quiet

    uvloop.run(converse())


def test_openssl_wants_another_handshake(tmp_path: Path) -> None:
    """It is refused, and openssl does not go on without."""

    async def converse() -> None:
        async with typing(tmp_path, issue(), "tls1_2") as desk:
            await desk.talk(b"before")
            desk.type(b"r")
            assert await desk.hear() == b""
            await desk.wire.close(PATIENCE)

    uvloop.run(converse())


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_openssl_says_something_in_clear_text(tmp_path: Path, version: str) -> None:
    async def converse() -> None:
        async with typing(tmp_path, issue(), version) as desk:
            await desk.talk(b"before")
            desk.type(b"P")
            assert await desk.hear() == b""
            assert not desk.wire.is_quiet

    uvloop.run(converse())

"""Every fault at every reply: what becomes of two recipients, and of the session."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from restante.protocol.smtp.client_events import Result
from tests.support.smtp_client import ClientDriver, Job, message

REPLIES: dict[str, bytes] = {
    "greeting": b"220 mx.example ESMTP\r\n",
    "EHLO client.example": b"250-mx.example\r\n250%b\r\n",
    "HELO client.example": b"250 mx.example\r\n",
    "MAIL FROM:<a@a.example>": b"250 2.1.0 ok\r\n",
    "RCPT TO:<b@b.example>": b"250 2.1.5 ok\r\n",
    "RCPT TO:<c@b.example>": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go\r\n",
    "end of data": b"250 2.0.0 taken\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}
COMMANDS = [name for name in REPLIES if not name.startswith("HELO")]
"""What is answered in a session where nothing goes wrong."""
FAULTS = {
    "4xx": b"450 4.2.0 not now\r\n",
    "5xx": b"550 5.7.1 never\r\n",
    "421": b"421 4.3.2 going down\r\n",
    "lines": b"550-5.7.1 never\r\n550-5.7.1\r\n550 5.7.1 ever\r\n",
    "empty": b"550\r\n",
    "nonsense": b"what?\r\n",
    "1xx": b"150 wait\r\n",
    "binary": b"\x00\xff\r\n",
    "unended": b"550 5.7.1 nev",
    "eof": b"",
}
REFUSALS = {"4xx": 450, "5xx": 550, "lines": 550, "empty": 550}
SAID = {*REFUSALS, "421"}
"""Faults in which the peer's own words are the result."""


@dataclass
class FaultyPeer:
    """Answers each command, the one named ``place`` with ``fault``; after half a fault nothing."""

    place: str
    fault: bytes
    offer: bytes
    commands: list[str] = field(default_factory=list)
    """What was answered, in order."""
    _in_content: bool = False
    _dead: bool = False
    _input: bytes = b""

    def hear(self, sent: bytes) -> bytes:
        """What is said to the next octets."""
        *lines, self._input = (self._input + sent).split(b"\r\n")
        return b"".join(self._answer(line.decode()) for line in lines)

    def _answer(self, line: str) -> bytes:
        if self._in_content and line != ".":
            return b""
        return self.answer("end of data" if self._in_content else line.split(" SIZE")[0])

    def answer(self, name: str) -> bytes:
        """The reply to this command."""
        if self._dead:
            return b""
        self.commands.append(name)
        reply = self.fault if name == self.place else REPLIES[name]
        self._in_content = name == "DATA" and reply.startswith(b"3")
        self._dead = not reply.endswith(b"\n")
        return reply.replace(b"250%b", self.offer)


def meet(peer: FaultyPeer, *, slowly: bool = False) -> ClientDriver:
    """A session with the peer, which ends the stream when it has nothing to say."""
    driver = ClientDriver([Job(message("b@b.example", "c@b.example"))])
    said = peer.answer("greeting")
    while driver.closed is None:
        pieces = [said[at : at + 1] for at in range(len(said))] if slowly else [said]
        sent = b"".join(driver.feed(piece) for piece in pieces)
        said = peer.hear(sent)
        if not said and driver.closed is None:
            driver.finish()
    return driver


def outcomes(driver: ClientDriver) -> list[tuple[int, str, bool]]:
    """Code, command and origin of the results of the one transaction."""
    assert len(driver.results) <= 1
    results: tuple[Result, ...] = driver.results[0] if driver.results else ()
    return [(result.reply.code, result.command, result.local) for result in results]


def expected(place: str, fault: str) -> list[tuple[int, str, bool]]:
    """What RFC 5321 makes of the fault."""
    taken = (250, "end of data", False)
    if place in {"greeting", "EHLO client.example"}:
        return [taken] * 2 if place.startswith("EHLO") and REFUSALS.get(fault) == 550 else []
    if place == "QUIT":
        return [taken] * 2
    refused = (REFUSALS.get(fault, 421 if fault == "421" else 451), place, fault not in SAID)
    if not place.startswith("RCPT"):
        return [refused] * 2
    both = fault not in REFUSALS
    if place == "RCPT TO:<b@b.example>":
        return [refused, refused if both else taken]
    return [refused if both else taken, refused]


@pytest.mark.parametrize("slowly", [False, True], ids=["whole", "slowly"])
@pytest.mark.parametrize("offer", [b"250-PIPELINING\r\n250 SIZE", b"250 SIZE"], ids=["all", "one"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", COMMANDS)
def test_fault(place: str, fault: str, offer: bytes, slowly: bool) -> None:
    driver = meet(FaultyPeer(place, FAULTS[fault], offer), slowly=slowly)
    assert outcomes(driver) == expected(place, fault)
    closed = driver.closed
    assert closed is not None
    ends = fault not in REFUSALS or place in {"greeting", "QUIT"}
    if place.startswith("EHLO"):
        ends = REFUSALS.get(fault) != 550
    assert closed.command == (place if ends else "QUIT")
    if fault in SAID and ends:
        assert closed.reply is not None
        assert str(closed.reply).startswith(FAULTS[fault][:3].decode())


@pytest.mark.parametrize("place", COMMANDS)
def test_the_session_without_faults(place: str) -> None:
    peer = FaultyPeer("nothing", b"", b"250-PIPELINING\r\n250 SIZE")
    driver = meet(peer)
    assert place in peer.commands
    assert [code for code, _, _ in outcomes(driver)] == [250, 250]
    assert driver.content_sent == 1

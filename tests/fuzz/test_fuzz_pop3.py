"""Whatever a client sends, the POP3 core raises nothing and holds no more than its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from restante.protocol.pop3.events import (
    Closed,
    Login,
    Need,
    ResponseCode,
    Retrieve,
    StartTls,
    Update,
)
from restante.protocol.pop3.lines import LineBuffer
from restante.protocol.pop3.profile import Limits, Profile
from restante.protocol.pop3.server import FLUSH_AT, Pop3Server
from restante.protocol.sasl import MECHANISMS, ScramBegun, ScramDone, ScramProof
from tests.support.pop3_dialog import Message, columns

MESSAGES = [Message(f"uid-{n}", b"A: 1\n\n.body\nof the mail\n") for n in range(50)]
LARGEST_RESPONSE = 4096
"""Octets in any response about MESSAGES."""

VERBS = [b"USER ", b"PASS ", b"AUTH ", b"UTF8", b"CAPA", b"STLS\r\n", b"QUIT\r\n"]
VERBS += [b"LIST", b"UIDL", b"STAT", b"RETR ", b"TOP ", b"DELE ", b"RSET", b"NOOP"]
ARGUMENTS = [b"iain", b"1", b" 2", b" 99999999999", b"PLAIN", b"LOGIN ", b"AGlhaW4Ac2VjcmV0", b"="]
ARGUMENTS += [b"SCRAM-SHA-256 ", b"biwsbj11c2VyLHI9bm9uY2U=\r\n", b"biws"]
ENDS = [b"\r\n", b"\r\n", b"\n", b"\r", b" ", b"*", b"\0", b"\xff", b"x" * 300]
LOGINS = [b"USER iain\r\nPASS secret\r\n"]

words = st.sampled_from(VERBS + ARGUMENTS + ENDS + LOGINS)
streams = st.lists(words | st.binary(max_size=20), max_size=60)


def _drive(core: Pop3Server, refuse: bool) -> Need | Closed:
    """Answer events until octets are needed or the session is over."""
    while True:
        event = core.next_event()
        assert len(core.outgoing()) < FLUSH_AT + LARGEST_RESPONSE
        match event:
            case Login() if refuse:
                core.login_refused(ResponseCode.AUTH, "refused\r\n+OK")
            case ScramBegun():
                core.scram_salt(b"salt", 4096)
            case ScramProof():
                core.scram_signature(b"signature")
            case Login() | ScramDone():
                core.login_accepted(columns(MESSAGES))
            case Retrieve(index):
                core.send_message_chunk(MESSAGES[index].content)
                core.end_message()
            case StartTls():
                core.tls_started()
            case Update():
                core.updated(True)
            case Need.DATA | Closed():
                return event
            case _:
                assert event is Need.FLUSH


@given(streams, st.booleans())
def test_any_input(stream: list[bytes], refuse: bool) -> None:
    limits = Limits(max_errors=1000)
    profile = Profile(
        "pop.example.com", limits, stls=True, plaintext_logins=True, mechanisms=MECHANISMS
    )
    core = Pop3Server(profile)
    core.greet()
    for piece in stream:
        core.receive(piece)
        if isinstance(_drive(core, refuse), Closed):
            return
    core.receive_eof()
    assert isinstance(_drive(core, refuse), Closed)


@given(st.lists(st.binary(max_size=64) | st.just(b"x" * 500), max_size=50))
def test_a_line_without_end_is_not_kept(stream: list[bytes]) -> None:
    lines = LineBuffer()
    for piece in stream:
        lines.feed(piece)
        while lines.take(255) is not None:
            pass
        assert len(lines.octets) < 255


def test_pipelined_listings_wait_until_the_client_reads() -> None:
    core = Pop3Server(Profile("pop.example.com", plaintext_logins=True))
    core.receive(b"USER iain\r\nPASS secret\r\n" + b"LIST\r\n" * 20_000)
    assert isinstance(core.next_event(), Login)
    core.login_accepted(columns(MESSAGES))
    assert core.next_event() is Need.FLUSH
    assert len(core.outgoing()) < FLUSH_AT + LARGEST_RESPONSE
    assert core.next_event() is Need.FLUSH

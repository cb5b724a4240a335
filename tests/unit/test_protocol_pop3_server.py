"""The POP3 core between its events: what a driver relies on beyond the dialogs."""

from __future__ import annotations

import pytest

from restante.protocol.pop3.events import (
    Closed,
    CloseReason,
    Login,
    Need,
    ResponseCode,
    Retrieve,
    StartTls,
    Update,
)
from restante.protocol.pop3.listing import LINES
from restante.protocol.pop3.profile import Limits, Profile
from restante.protocol.pop3.server import (
    FLUSH_AT,
    MAX_BLOCKS,
    MAX_COMMANDS,
    MAX_RESPONSE_LINE,
    Pop3Server,
)
from tests.support.pop3_dialog import Message, columns

HOST = "pop.example.com"
CONTENT = b"A: 1\n\nHello\n"


def _asking(command: bytes, limits: Limits | None = None) -> Pop3Server:
    """A core that has just handed out the login for ``command``."""
    core = Pop3Server(Profile(HOST, limits or Limits(), plaintext_logins=True))
    core.receive(b"USER iain\r\nPASS secret\r\n" + command)
    assert core.next_event() == Login("iain", "secret", "USER")
    core.outgoing()
    return core


def _open(messages: list[Message], command: bytes) -> Pop3Server:
    core = _asking(command)
    core.login_accepted(columns(messages))
    core.outgoing()
    return core


def test_an_event_waits_for_its_answer() -> None:
    core = _asking(b"STAT\r\n")
    assert core.next_event() is Need.ANSWER
    core.login_accepted(columns([]))
    assert core.next_event() is Need.DATA
    assert core.outgoing().endswith(b"+OK 0 0\r\n")


def test_an_answer_to_nothing_is_a_bug() -> None:
    core = _asking(b"")
    with pytest.raises(AssertionError):
        core.updated(True)


def test_50_000_messages_are_listed() -> None:
    core = _open([Message(f"uid-{n}", CONTENT) for n in range(50_000)], b"LIST\r\nUIDL\r\n")
    flushed = []
    while core.next_event() is Need.FLUSH:
        flushed.append(core.outgoing())
    sizes, uids = (b"".join(flushed) + core.outgoing()).split(b"+OK unique ids follow\r\n")
    assert sizes.startswith(b"+OK 50000 messages (750000 octets)\r\n1 15\r\n2 15\r\n")
    assert sizes.endswith(b"\r\n50000 15\r\n.\r\n")
    assert uids.startswith(b"1 uid-0\r\n2 uid-1\r\n")
    assert uids.endswith(b"\r\n50000 uid-49999\r\n.\r\n")
    assert max(map(len, flushed)) < 2 * FLUSH_AT


def test_pipelined_listings_wait_until_the_client_reads() -> None:
    core = _open([Message(f"uid-{n}", CONTENT) for n in range(50)], b"LIST\r\n" * 20_000)
    for _ in range(2):
        assert core.next_event() is Need.FLUSH
        assert len(core.outgoing()) < 2 * FLUSH_AT


@pytest.mark.parametrize("command", [b"LIST\r\n", b"UIDL\r\n"])
def test_what_is_marked_takes_turns_too(command: bytes) -> None:
    """Else a few octets for each command would keep the event loop for minutes."""
    blocks, times = 5, 20
    messages = [Message(f"uid-{n}", CONTENT) for n in range(blocks * LINES)]
    deletions = b"".join(b"DELE %d\r\n" % n for n in range(1, len(messages)))
    core = _open(messages, deletions + times * command)
    turns, said = 0, b""
    while core.next_event() is Need.FLUSH:
        octets = core.outgoing()
        said += octets
        turns += b"+OK message" not in octets
    assert turns >= times * blocks // MAX_BLOCKS - 1
    lines = said[said.rindex(b"marked for deletion\r\n") :] + core.outgoing()
    assert lines.count(b"\r\n%d " % len(messages)) == lines.count(b"\r\n.\r\n") == times


def test_however_short_the_answers_so_many_commands_are_a_turn() -> None:
    core = _open([], b"NOOP\r\n" * 2 * MAX_COMMANDS)
    assert core.next_event() is Need.FLUSH
    assert MAX_COMMANDS // 2 < core.outgoing().count(b"+OK\r\n") <= MAX_COMMANDS


def test_what_is_read_for_top_counts_as_a_whole() -> None:
    core = _open([Message("uid", CONTENT)], b"TOP 1 0\r\nTOP 1 0\r\n")
    assert core.next_event() == Retrieve(0, 0)
    core.send_message(CONTENT + b"x" * FLUSH_AT)
    assert core.next_event() is Need.FLUSH


@pytest.mark.parametrize(
    ("text", "begin"),
    [("é\r\n+OK\0é", "é  +OK é"), ("é\r\n+OK\0" + "é" * 600, "é  +OK éé"), ("é" * 300, "ééé")],
)
def test_no_text_of_the_driver_breaks_the_response(text: str, begin: str) -> None:
    core = _asking(b"")
    core.login_refused(ResponseCode.SYS_TEMP, text)
    response = core.outgoing()
    assert response.startswith(f"-ERR [SYS/TEMP] {begin}".encode())
    assert response.index(b"\r\n") == len(response) - 2
    assert len(response) <= MAX_RESPONSE_LINE
    response.decode("utf-8")


def test_a_message_is_sent_in_large_packets() -> None:
    core = _open([Message("u", CONTENT)], b"RETR 1\r\n")
    assert core.next_event() == Retrieve(0, None)
    core.send_message_chunk(CONTENT)
    assert not core.must_flush
    core.send_message_chunk(b"x" * FLUSH_AT)
    assert core.must_flush
    core.outgoing()
    assert not core.must_flush


@pytest.mark.parametrize("command", [b"RETR 1", b"TOP 1 1"])
def test_a_whole_message_is_sent_as_its_parts_are(command: bytes) -> None:
    messages = [Message("u", CONTENT)]
    whole, parts = (_open(messages, command + b"\r\nNOOP\r\n") for _ in range(2))
    assert whole.next_event() == parts.next_event()
    whole.send_message(CONTENT)
    parts.send_message_chunk(CONTENT)
    parts.end_message()
    assert whole.next_event() is parts.next_event() is Need.DATA
    assert whole.outgoing() == parts.outgoing()


def test_an_empty_message_is_sent() -> None:
    core = _open([Message("u", b"")], b"RETR 1\r\n")
    core.next_event()
    core.end_message()
    assert core.outgoing() == b"+OK 0 octets\r\n.\r\n"


def test_errors_are_counted_up_to_the_limit() -> None:
    core = Pop3Server(Profile(HOST, Limits(max_errors=2)))
    core.receive(b"X\r\nNOOP\r\nQUIT\r\n")
    assert core.next_event() == Closed(CloseReason.TOO_MANY_ERRORS)
    assert core.outgoing().count(b"-ERR") == 2
    assert core.next_event() == Closed(CloseReason.TOO_MANY_ERRORS)


def test_nothing_is_asked_after_quit() -> None:
    core = _open([Message("u", CONTENT)], b"DELE 1\r\nQUIT\r\nSTAT\r\n")
    assert core.next_event() == Update((0,))
    core.receive_eof()
    core.updated(True)
    assert core.next_event() == Closed(CloseReason.QUIT)


def test_an_end_of_stream_during_a_login_ends_the_session_after_it() -> None:
    core = _asking(b"")
    core.receive_eof()
    assert core.next_event() is Need.ANSWER
    core.login_accepted(columns([]))
    assert core.next_event() == Closed(CloseReason.LOST)


def test_a_password_is_not_printed() -> None:
    assert "secret" not in repr(Login("iain", "secret", "USER"))


def test_commands_behind_stls_are_never_obeyed() -> None:
    """They came in clear text, and anybody on the way may have written them."""
    core = Pop3Server(Profile(HOST, stls=True, plaintext_logins=True))
    core.receive(b"STLS\r\nUSER evil\r\n")
    assert core.next_event() == Closed(CloseReason.OUT_OF_SYNC)
    assert core.outgoing() == b"-ERR nothing may follow STLS before the handshake\r\n"


@pytest.mark.parametrize("injected", [b"USER evil\r\nPASS x\r\n", b"x" * 20_000, b"U"])
def test_octets_from_before_the_handshake_are_forgotten(injected: bytes) -> None:
    core = Pop3Server(Profile(HOST, stls=True))
    core.receive(b"STLS\r\n")
    assert core.next_event() == StartTls()
    core.receive(injected)
    assert core.next_event() is Need.ANSWER
    core.outgoing()
    core.tls_started()
    assert core.next_event() is Need.DATA
    core.receive(b"UTF8\r\n")
    assert core.next_event() is Need.DATA
    assert core.outgoing() == b"+OK UTF-8 it is\r\n"

"""TLS between a session and its socket, the client's end: servers good, broken and hostile."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restante.relay.tls import TlsContexts
from restante.tls_stream import MAX_UNREAD, RECORD, TlsStream
from tests.support.certificates import DAY, NOW, Issued, issue, trusting, write
from tests.support.tls_ends import HOST, TlsServer, nothing_in_records, objection_to
from tests.support.tls_talk import BOTH, VERSIONS, Session, Wire, counted, cuts, damaged, texts


class Talk:
    """Both ends of one connection, with nothing but the test between them."""

    def __init__(self, client: ssl.SSLContext, server: TlsServer, name: str = HOST) -> None:
        self.wire, self.session, self.server = Wire(), Session(), server
        self.outcomes: list[Exception | None] = []
        self.stream = TlsStream(
            self.wire, self.session, client, self.outcomes.append, server_name=name
        )

    def shake_hands(self, behind: bytes = b"") -> None:
        """``behind``: text in the same octets as the last of the server's handshake."""
        while not self.server.is_shaken:
            assert self.wire.said, "it is the client's turn"
            said = self.server.shake_hands(self.wire.take())
            if self.server.is_shaken and behind:
                said += self.server.seal(behind)
            self.stream.data_received(said)
        assert self.outcomes == [None]

    def hear(self) -> bytes:
        """What the client has said meanwhile."""
        return self.server.open(self.wire.take())


@pytest.fixture(scope="module")
def authority() -> Issued:
    return issue()


Serve = Callable[..., ssl.SSLContext]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    directory: Path = tmp_path_factory.mktemp("certificates")

    def serve(issued: Issued, *chain: Issued) -> ssl.SSLContext:
        files = write(directory, "mx", issued, *chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        return context

    return serve


Begin = Callable[..., Talk]


@pytest.fixture(scope="module")
def begin(serving: Serve, authority: Issued) -> Begin:
    context = serving(issue(HOST, by=authority))
    trust = trusting(authority)
    trust.options |= ssl.OP_NO_RENEGOTIATION

    def talk(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, shaken: bool = True) -> Talk:
        trust.minimum_version = trust.maximum_version = version
        talk = Talk(trust, TlsServer(context))
        if shaken:
            talk.shake_hands()
        return talk

    return talk


# Handshakes


def test_the_client_begins_and_asks_for_a_host(begin: Begin) -> None:
    talk = begin(shaken=False)
    assert talk.wire.said[:1] == b"\x16"
    assert HOST.encode() in talk.wire.said
    assert talk.session.heard == talk.outcomes == []


def test_a_host_without_a_name_is_known_by_its_address(serving: Serve, authority: Issued) -> None:
    """No name is asked for, and none will do (RFC 6066 §3)."""
    talk = Talk(trusting(authority), TlsServer(serving(issue(HOST, by=authority))), "192.0.2.1")
    assert b"192.0.2.1" not in talk.wire.said
    talk.stream.data_received(talk.server.shake_hands(talk.wire.take()))
    (error,) = talk.outcomes
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "IP address mismatch" in error.verify_message


@pytest.mark.parametrize("name", ["", "mx..example.com", f"{'x' * 64}.example.com"])
def test_what_is_no_name_of_a_host(authority: Issued, name: str) -> None:
    wire = Wire()
    with pytest.raises(ValueError, match=r"label|empty"):
        TlsStream(wire, Session(), trusting(authority), lambda _: None, server_name=name)
    assert wire.protocol is None


@BOTH
def test_text_in_the_same_octets_as_the_end_of_the_handshake(
    begin: Begin, version: ssl.TLSVersion
) -> None:
    talk = begin(version, shaken=False)
    talk.shake_hands(b"220 early\r\n")
    assert talk.session.heard == [b"220 early\r\n"]
    talk.stream.write(b"EHLO client.example\r\n")
    assert talk.hear() == b"EHLO client.example\r\n"


@BOTH
def test_a_server_that_speaks_first_does_not_wait(begin: Begin, version: ssl.TLSVersion) -> None:
    """The client's last word of the handshake is not kept for its first of the session."""
    talk = begin(version)
    assert talk.wire.take() == b""
    assert talk.server.is_shaken


CERTIFICATES: dict[str, tuple[Callable[[Issued], Issued], str, str]] = {
    "an unknown authority": (lambda by: issue(HOST), "self", "unknown[ _]ca"),
    "another host": (
        lambda by: issue("other.example.com", by=by),
        "Hostname mismatch",
        "bad[ _]certificate",
    ),
    "too old": (
        lambda by: issue(HOST, by=by, begins=NOW - 3 * DAY, ends=NOW - timedelta(hours=1)),
        "certificate has expired",
        "certificate[ _]expired",
    ),
}


@BOTH
@pytest.mark.parametrize("why", CERTIFICATES)
def test_a_server_is_told_what_is_wrong_with_its_certificate(
    serving: Serve, authority: Issued, version: ssl.TLSVersion, why: str
) -> None:
    made, words, alert = CERTIFICATES[why]
    trust = trusting(authority)
    trust.maximum_version = version
    talk = Talk(trust, TlsServer(serving(made(authority))))
    talk.stream.data_received(talk.server.shake_hands(talk.wire.take()))
    (error,) = talk.outcomes
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert words in error.verify_message
    assert talk.wire.is_closed
    with pytest.raises(ssl.SSLError, match=f"(?i){alert}"):
        talk.server.shake_hands(talk.wire.take())
    assert talk.session.heard == []
    talk.stream.connection_lost(None)
    assert len(talk.outcomes) == 1, "it is told once"


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        *(
            (octets, objection_to(octets, ssl.PROTOCOL_TLS_CLIENT))
            for octets in (b"220 clear text\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n")
        ),
        (b"\x15\x03\x03\x00\x02\x02\x28", "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "TLSV1_ALERT_PROTOCOL_VERSION"),
        (b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00", "UNEXPECTED_MESSAGE"),
        (b"\x17\x03\x03\x00\x05hello", None),
    ],
)
def test_what_is_no_server_hello(begin: Begin, octets: bytes, reason: str | None) -> None:
    talk = begin(shaken=False)
    talk.wire.take()
    talk.stream.data_received(octets)
    (error,) = talk.outcomes
    assert isinstance(error, ssl.SSLError)
    assert reason in (None, error.reason)
    assert talk.wire.is_closed
    said = talk.wire.take()
    assert said == b"" or (len(said), said[:1]) == (7, b"\x15"), "an alert, or nothing"
    assert talk.session.heard == []


@BOTH
def test_a_server_that_stops_in_the_midst_of_the_handshake(
    begin: Begin, version: ssl.TLSVersion
) -> None:
    talk = begin(version, shaken=False)
    said = talk.server.shake_hands(talk.wire.take())
    talk.stream.data_received(said[: len(said) // 2])
    assert talk.stream.eof_received() is False
    assert talk.session.heard == talk.outcomes == []
    talk.stream.connection_lost(None)
    (error,) = talk.outcomes
    assert isinstance(error, ConnectionResetError)
    assert str(error) == "the connection was closed"
    assert talk.session.heard == ["lost"]


def test_an_alert_that_cannot_go_at_once_is_not_waited_for(begin: Begin) -> None:
    talk = begin(shaken=False)
    talk.wire.is_stuck = True
    talk.stream.data_received(b"220 clear text\r\n")
    assert talk.wire.is_aborted


# Cuts


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(st.sampled_from(VERSIONS), cuts(), texts, texts, st.booleans())
def test_however_it_is_cut_it_says_the_same(
    begin: Begin,
    version: ssl.TLSVersion,
    cut: Callable[[bytes], Iterator[bytes]],
    asked: list[bytes],
    answered: list[bytes],
    ended: bool,
) -> None:
    talk = begin(version, shaken=False)
    while not talk.server.is_shaken:
        for piece in cut(talk.server.shake_hands(talk.wire.take())):
            talk.stream.data_received(piece)
    for each in asked:
        talk.stream.write(each)
    heard = b"".join(talk.server.open(piece) for piece in cut(talk.wire.take()))
    assert heard == b"".join(asked)
    records = b"".join(talk.server.seal(each) for each in answered)
    if ended:
        records += talk.server.say_goodbye()
    for piece in cut(records):
        talk.stream.data_received(piece)
    assert talk.session.text == b"".join(answered)
    assert talk.session.heard.count("end") == ended
    talk.stream.close()
    assert talk.hear() == b""
    assert talk.server.has_heard_the_end()
    assert talk.wire.is_closed == ended


@BOTH
def test_much_at_once_leaves_no_memory_behind(begin: Begin, version: ssl.TLSVersion) -> None:
    talk = begin(version)
    buffers = counted(talk.stream)
    much = b"0123456789" * 100_000
    talk.stream.write(much)
    assert talk.wire.most > len(much), "written at once"
    assert talk.hear() == much
    talk.stream.data_received(talk.server.seal(much))
    assert talk.session.heard == [much]
    assert max(each.most for each in buffers) < 2 * RECORD


# The end


@BOTH
def test_a_session_that_has_no_use_for_half_a_connection(
    begin: Begin, version: ssl.TLSVersion
) -> None:
    """The server's close_notify is answered, and that is the end."""
    talk = begin(version)
    talk.session.stays = False
    talk.stream.data_received(talk.server.seal(b"421 bye\r\n") + talk.server.say_goodbye())
    assert talk.session.heard == [b"421 bye\r\n", "end"]
    assert talk.wire.is_closed
    talk.hear()
    assert talk.server.has_heard_the_end()
    talk.stream.write(b"QUIT\r\n")
    assert talk.wire.take() == b""


@BOTH
@pytest.mark.parametrize("stays", [True, False])
def test_what_comes_behind_a_close_notify_is_ignored(
    begin: Begin, version: ssl.TLSVersion, stays: bool
) -> None:
    talk = begin(version)
    talk.session.stays = stays
    talk.stream.data_received(talk.server.say_goodbye() + b"more" * RECORD)
    for _ in range(3):
        talk.stream.data_received(b"and more" * RECORD)
    assert talk.session.heard == ["end"]
    assert talk.stream._incoming.pending <= RECORD


def test_the_end_without_a_close_notify(begin: Begin) -> None:
    talk = begin()
    talk.stream.data_received(talk.server.seal(b"250 ok\r\n"))
    assert talk.stream.eof_received() is False
    assert talk.session.heard == [b"250 ok\r\n", "end"]


@BOTH
def test_the_clients_end_waits_for_the_servers(begin: Begin, version: ssl.TLSVersion) -> None:
    talk = begin(version)
    talk.stream.close()
    talk.hear()
    assert talk.server.has_heard_the_end()
    assert not talk.wire.is_closed
    talk.stream.data_received(talk.server.say_goodbye())
    assert talk.wire.is_closed
    assert talk.session.heard == []


def test_aborted_while_writes_wait(begin: Begin) -> None:
    talk = begin()
    talk.wire.is_stuck = True
    talk.stream.write(b"x" * 1_000_000)
    waiting = talk.stream.get_write_buffer_size()
    assert waiting > 1_000_000
    talk.stream.abort()
    talk.stream.write(b"nobody hears this")
    talk.stream.close()
    talk.stream.data_received(talk.server.seal(b"250 ok\r\n"))
    assert talk.stream.get_write_buffer_size() == waiting
    talk.stream.connection_lost(None)
    assert talk.session.heard == ["lost"]


# Hostile servers


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None
)
@given(
    st.sampled_from(VERSIONS),
    st.integers(0, 2),
    st.integers(0, 5000),
    st.binary(max_size=40),
    st.integers(0, 40),
)
def test_whatever_is_damaged_a_session_hears_nothing_else_than_was_said(
    begin: Begin, version: ssl.TLSVersion, turn: int, place: int, by: bytes, skipped: int
) -> None:
    """And nothing is raised, in whichever turn of the server's: its handshake or what follows."""
    talk = begin(version, shaken=False)
    words, turns, shaken = [b"220 hello\r\n", b"250 ok\r\n"], 0, False
    try:
        while not shaken and talk.wire.said:
            said = talk.server.shake_hands(talk.wire.take())
            shaken = talk.server.is_shaken
            if shaken:
                said += b"".join(talk.server.seal(word) for word in words)
            talk.stream.data_received(damaged(said, place, by, skipped) if turns == turn else said)
            turns += 1
    except ssl.SSLError:  # of the server's, who has heard an alert, or what a liar was told
        pass
    if talk.outcomes == [None]:
        talk.stream.write(b"QUIT\r\n")
        talk.stream.close()
    talk.stream.connection_lost(None)
    assert b"".join(words).startswith(talk.session.text)
    assert talk.session.heard[-1] == "lost"
    assert len(talk.outcomes) == 1


@pytest.mark.parametrize("context", ["trusting", "verifying"])
def test_another_handshake_on_the_same_connection_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    serving: Serve,
    authority: Issued,
    context: str,
) -> None:
    """With a warning, after which the session goes on."""
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    client = getattr(TlsContexts(), context)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    talk = Talk(client, TlsServer(serving(issue(HOST, by=authority))))
    talk.shake_hands()
    wish = talk.server.renegotiate()
    assert wish
    talk.stream.data_received(wish)
    alert = talk.wire.take()
    assert alert[:1] == b"\x15", "an alert, and no handshake"
    with pytest.raises(ssl.SSLError, match=r"(?i)no[ _]renegotiation"):
        talk.server.open(alert)
    assert not talk.wire.is_closed
    talk.stream.write(b"NOOP\r\n")
    assert talk.wire.take()[:1] == b"\x17"


def test_new_keys_are_answered(begin: Begin) -> None:
    talk = begin()
    talk.stream.data_received(talk.server.ask_for_keys() + talk.server.seal(b"250 ok\r\n"))
    talk.stream.write(b"NOOP\r\n")
    assert talk.hear() == b"NOOP\r\n"
    assert talk.session.heard == [b"250 ok\r\n"]


def test_who_asks_for_keys_again_and_again_and_reads_nothing_is_cut_off(begin: Begin) -> None:
    talk = begin()
    talk.wire.is_stuck = True
    for _ in range(MAX_UNREAD // 20):
        talk.stream.data_received(talk.server.ask_for_keys())
        if talk.wire.is_aborted:
            break
    assert talk.wire.is_aborted
    assert MAX_UNREAD < len(talk.wire.said) < MAX_UNREAD + 100


def test_keys_behind_the_clients_end_take_no_memory(begin: Begin) -> None:
    talk = begin()
    talk.stream.close()
    talk.wire.take()
    for _ in range(100):
        talk.stream.data_received(b"".join(talk.server.ask_for_keys() for _ in range(100)))
    assert talk.stream._incoming.pending == talk.stream._outgoing.pending == 0
    assert len(talk.wire.said) < 100


@BOTH
def test_a_chain_without_end(serving: Serve, authority: Issued, version: ssl.TLSVersion) -> None:
    """OpenSSL takes 100 KiB of certificates; nothing of the rest is kept."""
    talk = Talk(
        _no_check(version), TlsServer(serving(issue(HOST, by=authority), *[authority] * 400))
    )
    buffers = counted(talk.stream)
    said = talk.server.shake_hands(talk.wire.take())
    assert len(said) > 150_000
    talk.stream.data_received(said)
    (error,) = talk.outcomes
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "EXCESSIVE_MESSAGE_SIZE"
    assert talk.wire.is_closed
    assert max(each.most for each in buffers) < 2 * RECORD


FLOODS = {
    "handshakes without an octet": b"\x16\x03\x03\x00\x00",
    "warnings": b"\x15\x03\x03\x00\x02\x01\x5a",
    "changes of the cipher": b"\x14\x03\x03\x00\x01\x01",
    "text without an octet": b"\x17\x03\x03\x00\x00",
    "a message of 16 MiB": b"\x16\x03\x03\x40\x00\x02\xff\xff\xff" + b"x" * (RECORD - 4),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_in_the_handshake(begin: Begin, flood: str) -> None:
    """It ends the handshake; nothing of it is kept, and at most an alert is said."""
    talk = begin(shaken=False)
    talk.wire.take()
    buffers = counted(talk.stream)
    for _ in range(1000):
        talk.stream.data_received(FLOODS[flood])
        if talk.outcomes:
            break
    (error,) = talk.outcomes
    assert isinstance(error, ssl.SSLError)
    assert talk.wire.is_closed
    assert len(talk.wire.said) < 100
    assert max(each.most for each in buffers) < 2 * RECORD


@pytest.mark.parametrize(("records", "borne"), [(32, True), (33, False)])
def test_records_without_text(
    tmp_path: Path, serving: Serve, authority: Issued, records: int, borne: bool
) -> None:
    """OpenSSL bears with some in a row."""
    context = serving(issue(HOST, by=authority))
    context.keylog_filename = str(tmp_path / "keys")
    talk = Talk(_no_check(ssl.TLSVersion.TLSv1_3), TlsServer(context))
    talk.shake_hands()
    kept = (tmp_path / "keys").read_text().split("SERVER_TRAFFIC_SECRET_0 ")[1]
    secret = bytes.fromhex(kept.split()[1])
    buffers = counted(talk.stream)
    talk.stream.data_received(nothing_in_records(secret, context.num_tickets, records))
    assert talk.wire.is_closed is not borne
    assert talk.session.heard == []
    assert max(each.most for each in buffers) < RECORD


def _no_check(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = TlsContexts().trusting
    context.maximum_version = version
    return context


# As the transport in clear text does it


def test_flow_in_both_directions_is_the_transports(begin: Begin) -> None:
    talk = begin()
    talk.stream.pause_writing()
    talk.stream.resume_writing()
    assert talk.session.heard == ["pause", "resume"]
    talk.stream.pause_reading()
    assert talk.wire.is_paused
    talk.stream.resume_reading()
    assert not talk.wire.is_paused

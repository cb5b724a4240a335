"""TLS between a session and its socket, the server's end: every way to cut, to end, to break it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restante.tls.certificates import Certificates
from restante.tls_stream import MAX_UNREAD, RECORD, TlsStream
from tests.support.certificates import Issued, issue, trusting, write
from tests.support.tls_ends import HOST, TlsClient
from tests.support.tls_talk import BOTH, VERSIONS, Session, Wire, counted, cuts, damaged, texts


class Talk:
    """Both ends of one connection, with nothing but the test between them."""

    def __init__(self, server: ssl.SSLContext, client: TlsClient) -> None:
        self.wire, self.session, self.client = Wire(), Session(), client
        self.outcomes: list[Exception | None] = []
        self.stream = TlsStream(self.wire, self.session, server, self.outcomes.append)

    def shake_hands(self, behind: bytes = b"") -> None:
        """``behind``: text in the same octets as the last of the client's handshake."""
        said = self.client.shake_hands()
        while not self.client.is_shaken:
            self.stream.data_received(said)
            assert self.wire.said, "it is the server's turn"
            said = self.client.shake_hands(self.wire.take())
        self.stream.data_received(said + (self.client.seal(behind) if behind else b""))
        assert self.outcomes == [None]

    def hear(self) -> bytes:
        """What the server has said meanwhile."""
        return self.client.open(self.wire.take())


@pytest.fixture(scope="module")
def authority() -> Issued:
    return issue()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory, authority: Issued) -> Certificates:
    directory: Path = tmp_path_factory.mktemp("certificates")
    return Certificates([write(directory, "mx", issue(HOST, by=authority))])


Begin = Callable[..., Talk]


@pytest.fixture(scope="module")
def begin(certificates: Certificates, authority: Issued) -> Begin:
    def talk(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, shaken: bool = True) -> Talk:
        trust = trusting(authority)
        trust.minimum_version = trust.maximum_version = version
        talk = Talk(certificates.for_handshake(), TlsClient(trust))
        if shaken:
            talk.shake_hands()
        return talk

    return talk


# Handshakes


@BOTH
def test_text_in_the_same_octets_as_the_end_of_the_handshake(
    begin: Begin, version: ssl.TLSVersion
) -> None:
    talk = begin(version, shaken=False)
    talk.shake_hands(b"EHLO early\r\n")
    assert talk.session.heard == [b"EHLO early\r\n"]
    talk.stream.write(b"250 hello\r\n")
    assert talk.hear() == b"250 hello\r\n"


@BOTH
def test_a_handshake_with_its_session_and_its_end_in_one_piece(
    begin: Begin, version: ssl.TLSVersion
) -> None:
    talk = begin(version, shaken=False)
    talk.stream.data_received(talk.client.shake_hands())
    last = talk.client.shake_hands(talk.wire.take())
    if not talk.client.is_shaken:  # in TLS 1.2 the server's last word is awaited
        talk.stream.data_received(last)
        last = talk.client.shake_hands(talk.wire.take())
    talk.stream.data_received(last + talk.client.seal(b"QUIT\r\n") + talk.client.say_goodbye())
    assert talk.outcomes == [None]
    assert talk.session.heard == [b"QUIT\r\n", "end"]


def test_nothing_is_told_to_the_session_before_the_handshake_is_done(begin: Begin) -> None:
    talk = begin(shaken=False)
    said = talk.client.shake_hands()
    talk.stream.data_received(said)
    assert talk.session.heard == []
    assert talk.outcomes == []
    assert talk.stream.eof_received() is False
    assert talk.session.heard == []


def test_a_connection_that_is_lost_in_the_handshake(begin: Begin) -> None:
    talk = begin(shaken=False)
    talk.stream.data_received(talk.client.shake_hands())
    talk.stream.connection_lost(None)
    assert isinstance(talk.outcomes[0], ConnectionResetError)
    assert talk.session.heard == ["lost"]


ALERTS = {
    "no cipher": "handshake failure",
    "TLS 1.1": "protocol version",
}


@pytest.mark.parametrize("name", [HOST, "other.example.com", None])
@pytest.mark.parametrize("why", ALERTS)
def test_a_client_is_told_what_is_wrong_with_its_handshake(
    certificates: Certificates, why: str, name: str | None
) -> None:
    """With or without a host that it asks for: the same rules hold for all certificates."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    if why == "TLS 1.1":
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    else:
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers("aNULL:@SECLEVEL=0")
    talk = Talk(certificates.for_handshake(), TlsClient(old, name))
    talk.stream.data_received(talk.client.shake_hands())
    assert isinstance(talk.outcomes[0], ssl.SSLError)
    assert talk.wire.is_closed
    with pytest.raises(ssl.SSLError, match=ALERTS[why].replace(" ", "[ _]")):
        talk.client.shake_hands(talk.wire.take())
    assert talk.session.heard == []
    talk.stream.connection_lost(None)
    assert len(talk.outcomes) == 1, "it is told once"


@pytest.mark.parametrize(
    "octets", [b"EHLO client.example\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05abcde"]
)
def test_what_is_no_handshake_gets_an_alert_or_nothing(begin: Begin, octets: bytes) -> None:
    talk = begin(shaken=False)
    talk.stream.data_received(octets)
    assert isinstance(talk.outcomes[0], ssl.SSLError)
    assert talk.wire.is_closed
    said = talk.wire.take()
    assert len(said) in (0, 7), "an alert is seven octets, and nothing else is said"
    assert said[:1] in (b"", b"\x15")
    assert talk.session.heard == []


def test_an_alert_of_the_client_in_the_handshake(certificates: Certificates) -> None:
    talk = Talk(certificates.for_handshake(), TlsClient(trusting()))
    talk.stream.data_received(talk.client.shake_hands())
    with pytest.raises(ssl.SSLCertVerificationError):
        talk.client.shake_hands(talk.wire.take())
    talk.stream.data_received(talk.client.outgoing())
    (error,) = talk.outcomes
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "TLSV1_ALERT_UNKNOWN_CA"
    assert talk.wire.is_closed


def test_an_alert_that_cannot_go_at_once_is_not_waited_for(begin: Begin) -> None:
    talk = begin(shaken=False)
    talk.stream.data_received(talk.client.shake_hands())
    talk.wire.is_stuck = True
    talk.stream.data_received(b"garbage, at the end of a handshake")
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
    said = talk.client.shake_hands()
    while not talk.client.is_shaken:
        for piece in cut(said):
            talk.stream.data_received(piece)
        assert talk.wire.said, "it is the server's turn"
        said = talk.client.shake_hands(talk.wire.take())
    records = said + b"".join(talk.client.seal(each) for each in asked)
    if ended:
        records += talk.client.say_goodbye()
    for piece in cut(records):
        talk.stream.data_received(piece)
    assert talk.session.text == b"".join(asked)
    assert talk.session.heard.count("end") == ended
    for each in answered:
        talk.stream.write(each)
    heard = b"".join(talk.client.open(piece) for piece in cut(talk.wire.take()))
    assert heard == b"".join(answered)
    talk.stream.close()
    assert talk.hear() == b""
    assert talk.client.has_heard_the_end()
    assert talk.wire.is_closed == ended


@BOTH
def test_much_at_once_leaves_no_memory_behind(begin: Begin, version: ssl.TLSVersion) -> None:
    """What lies between OpenSSL and the stream was never more than a record."""
    talk = begin(version)
    buffers = counted(talk.stream)
    much = b"0123456789" * 100_000
    talk.stream.data_received(talk.client.seal(much))
    assert talk.session.heard == [much]
    talk.stream.write(much)
    assert talk.wire.most > len(much), "written at once"
    assert talk.hear() == much
    assert max(each.most for each in buffers) < 2 * RECORD


# The end


@BOTH
def test_answers_go_out_behind_the_clients_close_notify(
    begin: Begin, version: ssl.TLSVersion
) -> None:
    """It has said that it sends no more, not that it reads no more."""
    talk = begin(version)
    talk.stream.data_received(talk.client.seal(b"QUIT\r\n") + talk.client.say_goodbye())
    assert talk.session.heard == [b"QUIT\r\n", "end"]
    assert talk.stream.eof_received() is True, "it may still read, as in clear text"
    assert talk.session.heard == [b"QUIT\r\n", "end"]
    talk.stream.write(b"221 bye\r\n")
    assert talk.hear() == b"221 bye\r\n"
    talk.stream.close()
    assert talk.wire.is_closed
    talk.client.open(talk.wire.take())
    assert talk.client.has_heard_the_end()


@BOTH
def test_what_comes_behind_a_close_notify_is_ignored(begin: Begin, version: ssl.TLSVersion) -> None:
    """And kept nowhere: a session may still be busy for long (RFC 8446 §6.1)."""
    talk = begin(version)
    talk.stream.data_received(talk.client.say_goodbye() + b"more" * RECORD)
    for _ in range(3):
        talk.stream.data_received(b"and more" * RECORD)
    assert talk.session.heard == ["end"]
    assert talk.stream._incoming.pending <= RECORD
    talk.stream.write(b"still here")
    assert talk.hear() == b"still here"


def test_the_end_without_a_close_notify(begin: Begin) -> None:
    talk = begin()
    talk.stream.data_received(talk.client.seal(b"QUIT\r\n"))
    assert talk.stream.eof_received() is False, "whoever ends so reads no more"
    assert talk.session.heard == [b"QUIT\r\n", "end"]


@BOTH
def test_the_servers_end_waits_for_the_clients(begin: Begin, version: ssl.TLSVersion) -> None:
    talk = begin(version)
    talk.stream.pause_reading()
    talk.stream.close()
    assert talk.stream.is_closing()
    assert not talk.wire.is_paused, "else the client's would never be read"
    assert not talk.wire.is_closed
    talk.client.open(talk.wire.take())
    assert talk.client.has_heard_the_end()
    talk.stream.write(b"too late")
    assert talk.wire.take() == b""
    talk.stream.data_received(talk.client.say_goodbye())
    assert talk.wire.is_closed
    assert talk.session.heard == []


@BOTH
def test_text_that_crosses_the_servers_end_is_for_nobody(
    begin: Begin, version: ssl.TLSVersion
) -> None:
    talk = begin(version)
    talk.stream.close()
    talk.stream.data_received(talk.client.seal(b"MAIL FROM:<>\r\n"))
    assert talk.session.heard == []
    assert talk.wire.is_closed


@BOTH
def test_the_end_comes_once(begin: Begin, version: ssl.TLSVersion) -> None:
    talk = begin(version)
    talk.stream.close()
    said = len(talk.wire.said)
    talk.stream.close()
    assert len(talk.wire.said) == said
    assert talk.stream.eof_received() is False
    talk.stream.connection_lost(None)
    assert talk.session.heard == ["lost"]


def test_nothing_is_sent_behind_an_abort(begin: Begin) -> None:
    talk = begin()
    talk.wire.take()
    talk.stream.abort()
    assert talk.stream.is_closing()
    talk.stream.write(b"nobody hears this")
    talk.stream.close()
    assert talk.wire.take() == b""
    talk.stream.connection_lost(None)
    assert talk.stream._session is not talk.session, "no circle is left"


# Breaking it


@BOTH
def test_a_record_that_was_tampered_with(begin: Begin, version: ssl.TLSVersion) -> None:
    talk = begin(version)
    talk.hear()
    record = talk.client.seal(b"RCPT TO:<iain@example.com>\r\n")
    talk.stream.data_received(record[:-1] + bytes([record[-1] ^ 1]))
    assert talk.session.heard == []
    assert talk.wire.is_closed
    assert talk.stream.is_closing()
    with pytest.raises(ssl.SSLError, match=r"(?i)bad[ _]record[ _]mac"):
        talk.hear()
    talk.stream.data_received(record)
    talk.stream.write(b"nothing")
    talk.stream.close()
    assert talk.session.heard == []
    assert talk.wire.take() == b""


@BOTH
def test_what_came_with_a_broken_record_is_for_nobody(
    begin: Begin, version: ssl.TLSVersion
) -> None:
    """It could not be answered any more."""
    talk = begin(version)
    good = talk.client.seal(b"DELE 1\r\nQUIT\r\n")
    record = talk.client.seal(b"NOOP\r\n")
    talk.stream.data_received(good + record[:-1] + bytes([record[-1] ^ 1]))
    assert talk.wire.is_closed
    assert talk.session.heard == []


@BOTH
def test_clear_text_after_the_handshake(begin: Begin, version: ssl.TLSVersion) -> None:
    talk = begin(version)
    talk.hear()
    talk.stream.data_received(b"RCPT TO:<iain@example.com>\r\n")
    assert talk.session.heard == []
    assert talk.wire.is_closed
    with pytest.raises(ssl.SSLError):
        talk.hear()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None
)
@given(
    st.sampled_from(VERSIONS),
    st.integers(0, 3),
    st.integers(0, 5000),
    st.binary(max_size=40),
    st.integers(0, 40),
)
def test_whatever_is_damaged_a_session_hears_nothing_else_than_was_said(
    begin: Begin, version: ssl.TLSVersion, turn: int, place: int, by: bytes, skipped: int
) -> None:
    """And nothing is raised, in whichever turn of the client's: its handshake or what follows."""
    talk = begin(version, shaken=False)
    words = [b"USER iain\r\n", b"PASS secret\r\n"]
    said, turns = talk.client.shake_hands(), 0
    try:
        while not talk.client.is_shaken:
            talk.stream.data_received(damaged(said, place, by, skipped) if turns == turn else said)
            turns += 1
            heard = talk.wire.take()
            if not heard:
                break
            said = talk.client.shake_hands(heard)
        else:
            said += b"".join(talk.client.seal(word) for word in words)
            talk.stream.data_received(damaged(said, place, by, skipped) if turns <= turn else said)
    except ssl.SSLError:  # of the client's, who has heard an alert, or what a liar was told
        pass
    if talk.outcomes == [None]:
        talk.stream.write(b"+OK\r\n")
        talk.stream.close()
    talk.stream.connection_lost(None)
    assert b"".join(words).startswith(talk.session.text)
    assert talk.session.heard[-1] == "lost"
    assert len(talk.outcomes) == 1


def test_renegotiation_is_refused(begin: Begin) -> None:
    """With a warning, after which the session goes on."""
    talk = begin(ssl.TLSVersion.TLSv1_2)
    before = talk.client.tls.cipher()
    talk.stream.data_received(talk.client.renegotiate())
    alert = talk.wire.take()
    assert alert[:1] == b"\x15"
    with pytest.raises(ssl.SSLError, match=r"(?i)no[ _]renegotiation"):
        talk.client.shake_hands(alert)
    assert talk.client.tls.cipher() == before
    assert talk.session.heard == []


def test_new_keys_are_answered(begin: Begin) -> None:
    talk = begin()
    talk.hear()
    talk.stream.data_received(talk.client.ask_for_keys())
    talk.stream.data_received(talk.client.seal(b"NOOP\r\n"))
    talk.stream.write(b"250 ok\r\n")
    assert talk.hear() == b"250 ok\r\n"
    assert talk.session.heard == [b"NOOP\r\n"]


def test_who_asks_for_keys_again_and_again_and_reads_nothing_is_cut_off(begin: Begin) -> None:
    talk = begin()
    talk.wire.is_stuck = True
    for _ in range(MAX_UNREAD // 20):
        talk.stream.data_received(talk.client.ask_for_keys())
        if talk.wire.is_aborted:
            break
    assert talk.wire.is_aborted
    assert MAX_UNREAD < len(talk.wire.said) < MAX_UNREAD + 100


def test_keys_behind_the_servers_end_take_no_memory(begin: Begin) -> None:
    talk = begin()
    talk.stream.close()
    talk.wire.take()
    for _ in range(100):
        talk.stream.data_received(b"".join(talk.client.ask_for_keys() for _ in range(100)))
    assert talk.stream._incoming.pending == talk.stream._outgoing.pending == 0
    assert len(talk.wire.said) < 100


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
    talk.wire.is_stuck = True
    talk.stream.write(b"x" * 100)
    assert talk.stream.get_write_buffer_size() == len(talk.wire.said) > 100

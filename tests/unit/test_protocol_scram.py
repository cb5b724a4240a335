"""SCRAM inside SMTP and POP3: what the cores ask their drivers, and what clients read."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from restante.auth.scram import Offer
from restante.protocol import sasl
from restante.protocol.pop3 import events as pop3
from restante.protocol.pop3 import profile as pop3_profile
from restante.protocol.pop3.server import Pop3Server
from restante.protocol.sasl import Bindings, ScramBegun, ScramDone, ScramProof
from restante.protocol.sasl.scram import MAX_NONCE
from restante.protocol.smtp import events as smtp
from restante.protocol.smtp.profile import BASIC, Extension, Profile
from restante.protocol.smtp.server import SmtpServer
from restante.status import Reply
from tests.support.pop3_dialog import columns
from tests.support.scram import ScramClient, b64

STORED = Offer(b"salt", 4096, None, "secret")
UNIQUE: Bindings = {"tls-unique": b"this connection"}
WELCOME = Reply(235, "7.0", "Welcome")
REFUSED = Reply(535, "7.8", "No")
SMTP = Profile("mx.example", extensions=(*BASIC, Extension.AUTH), mechanisms=sasl.MECHANISMS)
POP3 = pop3_profile.Profile("pop.example", mechanisms=sasl.MECHANISMS)


def smtp_server(bindings: Bindings = sasl.NO_BINDINGS, profile: Profile = SMTP) -> SmtpServer:
    core = SmtpServer(profile, tls=True, bindings=bindings)
    core.receive(b"EHLO client.example\r\n")
    assert core.next_event() is smtp.Wait.NEED_DATA
    return core


def challenge(core: SmtpServer | Pop3Server) -> bytes:
    """The challenge that the client reads now."""
    line = core.outgoing()
    prefix = b"334 " if isinstance(core, SmtpServer) else b"+ "
    assert line.startswith(prefix)
    assert line.endswith(b"\r\n")
    return base64.b64decode(line.removeprefix(prefix))


def say(core: SmtpServer | Pop3Server, line: bytes) -> object:
    core.outgoing()
    core.receive(line + b"\r\n")
    return core.next_event()


def hold(core: SmtpServer | Pop3Server, client: ScramClient, mechanism: bytes) -> bytes:
    """All but the last line of an exchange; the server's proof."""
    event = say(core, b"AUTH " + mechanism + b" " + b64(client.first()))
    assert event == ScramBegun("iain")
    core.scram_salt(STORED.salt, STORED.iterations)
    proof = say(core, b64(client.final(challenge(core))))
    assert isinstance(proof, ScramProof)
    signature = STORED.check(proof.message, proof.proof)
    assert signature is not None
    core.scram_signature(signature)
    return challenge(core)


def test_smtp() -> None:
    core = smtp_server()
    client = ScramClient("iain", "secret")
    assert client.trusts(hold(core, client, b"scram-sha-256"))
    assert say(core, b"") == ScramDone()
    assert core.next_event() is smtp.Wait.NEED_REPLY
    core.reply(WELCOME)
    assert core.outgoing() == b"235 2.7.0 Welcome\r\n"
    assert say(core, b"AUTH SCRAM-SHA-256") is smtp.Wait.NEED_DATA
    assert core.outgoing().startswith(b"503 ")
    assert isinstance(say(core, b"MAIL FROM:<iain@example.com>"), smtp.Mail)


def test_smtp_without_an_initial_response_bound_to_its_connection() -> None:
    core = smtp_server(UNIQUE)
    client = ScramClient("iain", "secret", "p=tls-unique", UNIQUE["tls-unique"])
    assert say(core, b"AUTH SCRAM-SHA-256-PLUS") is smtp.Wait.NEED_DATA
    assert challenge(core) == b""
    assert say(core, b64(client.first())) == ScramBegun("iain")
    core.scram_salt(STORED.salt, STORED.iterations)
    assert isinstance(say(core, b64(client.final(challenge(core)))), ScramProof)


@pytest.mark.parametrize("nonce", ["n" * 24, "n" * MAX_NONCE])
@pytest.mark.parametrize("service", ["smtp", "pop3"])
def test_a_challenge_of_whatever_size_is_whole(service: str, nonce: str) -> None:
    """A reply line of SMTP ends at 512 octets, a challenge does not (RFC 4954 §4)."""
    core = smtp_server() if service == "smtp" else Pop3Server(POP3, tls=True)
    client = ScramClient("iain", "secret", nonce=nonce)
    assert say(core, b"AUTH SCRAM-SHA-256 " + b64(client.first())) == ScramBegun("iain")
    core.scram_salt(b"s" * 300, 4096)
    assert isinstance(say(core, b64(client.final(challenge(core)))), ScramProof)


def test_pop3() -> None:
    core = Pop3Server(POP3, tls=True, bindings=UNIQUE)
    client = ScramClient("iain", "secret", "p=tls-unique", UNIQUE["tls-unique"])
    assert client.trusts(hold(core, client, b"SCRAM-SHA-256-PLUS"))
    assert say(core, b"") == ScramDone()
    assert core.next_event() is pop3.Need.ANSWER
    core.login_accepted(columns([]))
    assert core.outgoing().startswith(b"+OK maildrop")
    assert say(core, b"STAT") is pop3.Need.DATA
    assert core.outgoing() == b"+OK 0 0\r\n"


def test_smtp_refused_at_each_step() -> None:
    core = smtp_server()
    first = b"AUTH SCRAM-SHA-256 " + b64(b"n,,n=iain,r=nonce")
    say(core, first)
    core.reply(Reply(454, "7.0", "later"))
    assert core.outgoing().startswith(b"454 ")
    assert say(core, b"NOOP") is smtp.Wait.NEED_DATA
    assert core.outgoing().startswith(b"250 ")
    client = ScramClient("iain", "wrong")
    for _ in range(3):
        say(core, b"AUTH SCRAM-SHA-256 " + b64(client.first()))
        core.scram_salt(STORED.salt, STORED.iterations)
        proof = say(core, b64(client.final(challenge(core))))
        assert isinstance(proof, ScramProof)
        assert STORED.check(proof.message, proof.proof) is None
        core.reply(REFUSED)
        assert core.outgoing().startswith(b"535 ")
    assert isinstance(core.next_event(), smtp.Closed)


def test_pop3_refused_at_each_step() -> None:
    core = Pop3Server(POP3, tls=True)
    say(core, b"AUTH SCRAM-SHA-256 " + b64(b"n,,n=iain,r=nonce"))
    core.login_refused(pop3.ResponseCode.SYS_TEMP, "later")
    assert core.outgoing().startswith(b"-ERR [SYS/TEMP]")
    client = ScramClient("iain", "wrong")
    say(core, b"AUTH SCRAM-SHA-256 " + b64(client.first()))
    core.scram_salt(STORED.salt, STORED.iterations)
    assert isinstance(say(core, b64(client.final(challenge(core)))), ScramProof)
    core.login_refused(pop3.ResponseCode.AUTH, "no")
    assert core.outgoing() == b"-ERR [AUTH] no\r\n"
    hold(core, ScramClient("iain", "secret"), b"SCRAM-SHA-256")
    assert say(core, b"") == ScramDone()
    core.login_refused(pop3.ResponseCode.IN_USE, "in use")
    assert core.outgoing() == b"-ERR [IN-USE] in use\r\n"
    assert isinstance(core.next_event(), pop3.Closed)


@pytest.mark.parametrize("line", [b"*", b"AAAA", b"!"])
def test_client_that_does_not_take_the_servers_proof_is_not_logged_in(line: bytes) -> None:
    core = smtp_server()
    hold(core, ScramClient("iain", "secret"), b"SCRAM-SHA-256")
    assert say(core, line) is smtp.Wait.NEED_DATA
    assert core.outgoing().startswith(b"501 ")
    assert say(core, b"AUTH PLAIN AGlhaW4AeA==") == smtp.Authenticate("iain", "x", "PLAIN")
    reader = Pop3Server(POP3, tls=True)
    hold(reader, ScramClient("iain", "secret"), b"SCRAM-SHA-256")
    assert say(reader, line) is pop3.Need.DATA
    assert reader.outgoing().startswith(b"-ERR")
    assert say(reader, b"STAT") is pop3.Need.DATA
    assert reader.outgoing() == b"-ERR log in first\r\n"


def announced(core: SmtpServer | Pop3Server) -> list[str]:
    """The lines about logins."""
    core.outgoing()
    say(core, b"CAPA" if isinstance(core, Pop3Server) else b"EHLO client.example")
    text = core.outgoing().decode()
    lines = [line.removeprefix("250-") for line in text.split("\r\n")]
    return [line for line in lines if line.startswith(("AUTH ", "SASL ", "USER"))]


def test_what_is_announced() -> None:
    everything = "SCRAM-SHA-256 SCRAM-SHA-256-PLUS"
    assert announced(smtp_server()) == ["AUTH PLAIN LOGIN SCRAM-SHA-256"]
    assert announced(smtp_server(UNIQUE)) == [f"AUTH PLAIN LOGIN {everything}"]
    assert announced(SmtpServer(SMTP)) == []
    usual = Profile("mx.example", extensions=(*BASIC, Extension.AUTH))
    assert announced(smtp_server(UNIQUE, usual)) == ["AUTH PLAIN LOGIN"]
    assert announced(Pop3Server(POP3, tls=True)) == ["USER", "SASL PLAIN LOGIN SCRAM-SHA-256"]
    assert announced(Pop3Server(POP3, tls=True, bindings=UNIQUE)) == [
        "USER",
        f"SASL PLAIN LOGIN {everything}",
    ]
    only = pop3_profile.Profile("pop.example", mechanisms=("SCRAM-SHA-256",))
    core = Pop3Server(only, tls=True)
    assert announced(core) == ["SASL SCRAM-SHA-256"]
    assert say(core, b"USER iain") is pop3.Need.DATA
    assert core.outgoing().startswith(b"-ERR [AUTH] no passwords are taken")
    bound = replace(only, mechanisms=("SCRAM-SHA-256-PLUS",), plaintext_logins=True)
    assert announced(Pop3Server(bound)) == []  # nor "SASL" without a mechanism


def test_bindings_of_a_handshake_count_from_then_on() -> None:
    core = SmtpServer(
        Profile("mx.example", extensions=tuple(Extension), mechanisms=sasl.MECHANISMS)
    )
    core.receive(b"EHLO client.example\r\nSTARTTLS\r\n")
    assert core.next_event() == smtp.StartTls()
    core.tls_started(UNIQUE)
    assert announced(core) == ["AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS"]
    reader = Pop3Server(pop3_profile.Profile("p", stls=True, mechanisms=sasl.MECHANISMS))
    assert say(reader, b"STLS") == pop3.StartTls()
    reader.tls_started(UNIQUE)
    assert announced(reader)[1].endswith("SCRAM-SHA-256-PLUS")

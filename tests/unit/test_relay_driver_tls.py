"""TLS and passwords on the way to other hosts, with certificates good and bad."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from restante.config.tree import HOUR, HostPort
from restante.relay.driver import PATIENCE
from restante.status import Delivered, TemporaryFailure
from tests.support.certificates import Issued, issue, write
from tests.support.jumping_clock import until
from tests.support.nameserver import Zone, nameserver
from tests.support.passing_time import PassingTime
from tests.support.relaying import (
    LANE,
    believed,
    only,
    parcel,
    relay,
    send,
    told,
    two_exchangers,
)
from tests.support.smtp_peer import DROP, HANG, Said, SmtpPeer, smtp_peer

NAME = "mx1.peer.example"


@pytest.fixture
def zone() -> Zone:
    return two_exchangers()


@pytest.fixture
async def passing(monkeypatch: pytest.MonkeyPatch) -> PassingTime:
    """Time for hosts that work, however long others are silent."""
    return PassingTime(monkeypatch)


@pytest.fixture
def dns(zone: Zone) -> Iterator[HostPort]:
    with nameserver(zone) as address:
        yield address


@pytest.fixture
def first() -> Iterator[SmtpPeer]:
    with smtp_peer(SmtpPeer(), "127.0.0.2") as peer:
        yield peer


@pytest.fixture
def second(first: SmtpPeer) -> Iterator[SmtpPeer]:
    with smtp_peer(SmtpPeer(), "127.0.0.3", first.port) as peer:
        yield peer


def secured(directory: Path, issued: Issued, *chain: Issued) -> ssl.SSLContext:
    """A server's context."""
    files = write(directory, "peer", issued, *chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.fixture
def tls_peer(tmp_path: Path) -> Iterator[SmtpPeer]:
    """A host with STARTTLS and a certificate that nobody knows."""
    peer = SmtpPeer(tls=secured(tmp_path, issue(NAME)), offers=("STARTTLS", "PIPELINING"))
    with smtp_peer(peer, "127.0.0.2") as running:
        yield running


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Issued:
    """Whom this host believes, and nobody else."""
    return believed(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("policy", "encrypted"), [("none", False), ("may", True), ("encrypt", True)]
)
async def test_a_certificate_that_nobody_knows(
    dns: HostPort, tls_peer: SmtpPeer, policy: str, encrypted: bool
) -> None:
    outcome = only(await send(dns, tls_peer.port, tls_policy={LANE: policy}))
    assert isinstance(outcome, Delivered)
    assert tls_peer.encrypted == [encrypted]
    assert outcome.peer is not None
    assert outcome.peer.tls.startswith("TLSv1.") is encrypted
    assert tls_peer.verbs().count("EHLO") == 1 + encrypted


@pytest.mark.usefixtures("authority")
async def test_a_certificate_that_must_be_known(dns: HostPort, tls_peer: SmtpPeer) -> None:
    attempted = await send(dns, tls_peer.port, tls_policy={"": "verify"})
    outcome = only(attempted)
    kind, host, command, words = told(outcome)
    assert (kind, host, command) == (TemporaryFailure, NAME, "STARTTLS")
    assert words.startswith("454 4.7.5 the host's certificate is not accepted: self")
    assert attempted.back_off is not None
    assert "MAIL" not in tls_peer.verbs()


@pytest.mark.usefixtures("authority")
def test_a_host_is_told_that_its_certificate_is_not_known(
    dns: HostPort, tls_peer: SmtpPeer
) -> None:
    """On the event loop of a worker, which need not send at once."""

    async def attempt() -> None:
        attempted = await send(dns, tls_peer.port, tls_policy={"": "verify"})
        assert isinstance(only(attempted), TemporaryFailure)
        await until(lambda: tls_peer.objections == ["TLSV1_ALERT_UNKNOWN_CA"])

    uvloop.run(attempt())


@pytest.mark.parametrize(("name", "good"), [(NAME, True), ("other.example", False)])
async def test_a_certificate_must_bear_the_name(
    tmp_path: Path, dns: HostPort, tls_peer: SmtpPeer, authority: Issued, name: str, good: bool
) -> None:
    tls_peer.tls = secured(tmp_path, issue(name, by=authority))
    outcome = only(await send(dns, tls_peer.port, tls_policy={LANE: "verify"}))
    assert isinstance(outcome, Delivered) is good


async def test_an_authority_is_believed_without_the_one_above_it(
    tmp_path: Path, dns: HostPort, tls_peer: SmtpPeer, authority: Issued
) -> None:
    below = issue(by=authority, subject="an authority below")
    (tmp_path / "ca.pem").write_bytes(below.certificate_pem)
    tls_peer.tls = secured(tmp_path, issue(NAME, by=below))
    outcome = only(await send(dns, tls_peer.port, tls_policy={LANE: "verify"}))
    assert isinstance(outcome, Delivered)
    tls_peer.tls = secured(tmp_path, issue(NAME, by=authority), below)
    outcome = only(await send(dns, tls_peer.port, tls_policy={LANE: "verify"}))
    assert isinstance(outcome, TemporaryFailure)


@pytest.mark.parametrize(("policy", "good"), [("may", True), ("encrypt", False), ("verify", False)])
async def test_a_handshake_that_fails(
    dns: HostPort, tls_peer: SmtpPeer, policy: str, good: bool
) -> None:
    """Clear text rather than no mail, but only where that was said."""
    tls_peer.tls = None
    outcome = only(await send(dns, tls_peer.port, tls_policy={LANE: policy}))
    assert isinstance(outcome, Delivered) is good
    assert tls_peer.encrypted == [False] * good
    assert tls_peer.connections == 1 + good
    if not good:
        assert told(outcome)[3].startswith("454 4.7.5 the TLS handshake failed: ")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("policy", "good"), [("may", True), ("encrypt", False)])
async def test_a_host_that_wants_a_certificate_of_its_clients(
    dns: HostPort, tls_peer: SmtpPeer, policy: str, good: bool, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 its client's handshake is over by the time that it objects."""
    assert tls_peer.tls is not None
    tls_peer.tls.minimum_version = tls_peer.tls.maximum_version = version
    tls_peer.tls.verify_mode = ssl.CERT_REQUIRED
    outcome = only(await send(dns, tls_peer.port, tls_policy={LANE: policy}))
    await until(lambda: tls_peer.objections == ["PEER_DID_NOT_RETURN_A_CERTIFICATE"])
    assert isinstance(outcome, Delivered) is good
    assert tls_peer.encrypted == [False] * good
    if not good:
        assert told(outcome)[3].startswith("454 4.7.5 the ")


@pytest.mark.parametrize(
    ("said", "good"),
    [
        (DROP, True),
        (HANG, True),
        ("421 4.3.2 busy", False),
        ("554 5.7.0 go away", False),
        ("what?", False),
    ],
)
@pytest.mark.usefixtures("passing")
async def test_a_host_that_says_nothing_in_tls_is_spoken_to_without_it(
    dns: HostPort, tls_peer: SmtpPeer, said: str, good: bool
) -> None:
    """Whatever it says in TLS counts; clear text would be no better."""
    tls_peer.says = {"EHLO": ["250-mx\r\n250 STARTTLS", said, "250 mx"], "HELO": DROP}
    outcome = only(await send(dns, tls_peer.port, timeoutremote=HOUR))
    assert isinstance(outcome, Delivered) is good
    assert tls_peer.connections == 1 + good


@pytest.mark.parametrize("said", [DROP, HANG])
@pytest.mark.parametrize(("policy", "good"), [("may", True), ("encrypt", False)])
@pytest.mark.usefixtures("passing")
async def test_a_host_that_does_not_answer_starttls(
    dns: HostPort, tls_peer: SmtpPeer, policy: str, good: bool, said: str
) -> None:
    tls_peer.says["STARTTLS"] = said
    attempted = await send(dns, tls_peer.port, tls_policy={LANE: policy}, timeoutremote=HOUR)
    assert isinstance(outcome := only(attempted), Delivered) is good
    assert tls_peer.encrypted == [False] * good
    if not good:
        did = {DROP: "ended the connection", HANG: "was silent"}[said]
        assert told(outcome)[2:] == ("STARTTLS", f"454 4.7.5 the host {did} right after STARTTLS")


@pytest.mark.parametrize("said", ["421 4.3.2 busy", "what?"])
async def test_whatever_a_host_says_to_starttls_counts(
    dns: HostPort, tls_peer: SmtpPeer, said: str
) -> None:
    tls_peer.says["STARTTLS"] = said
    assert isinstance(only(await send(dns, tls_peer.port)), TemporaryFailure)
    assert tls_peer.connections == 1


@pytest.mark.parametrize("says", [{"STARTTLS": HANG}, {"HANDSHAKE": HANG}])
async def test_a_host_that_is_silent_over_tls_has_its_turn_behind_others(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    zone: Zone,
    dns: HostPort,
    first: SmtpPeer,
    second: SmtpPeer,
    passing: PassingTime,
    says: dict[str, Said],
) -> None:
    """Its addresses take all the time of an attempt. Who does without TLS is sent to it."""
    zone.records["mx1.peer.example", "A"].append("127.0.0.4")
    zone.records["example.org", "MX"] = zone.records[LANE, "MX"]
    first.offers, first.says = ("STARTTLS",), says
    second.offers, second.tls = ("STARTTLS",), secured(tmp_path, issue("x"))
    monkeypatch.setattr("restante.relay.session.HANDSHAKE_TIMEOUT", PATIENCE / 2)
    twin = SmtpPeer(says, offers=first.offers)
    policy = {LANE: "encrypt", "example.org": "none"}
    with smtp_peer(twin, "127.0.0.4", first.port):
        async with relay(
            dns, first.port, passing.now, timeoutremote=HOUR, tls_policy=policy
        ) as made:
            lanes = [LANE, LANE, "example.org"]
            attempts = [only(await made.send(lane, parcel())) for lane in lanes]
    assert [told(each)[:2] for each in attempts] == [
        (TemporaryFailure, NAME),
        (Delivered, "mx2.peer.example"),
        (Delivered, NAME),
    ]


@pytest.mark.parametrize(("policy", "good"), [("may", True), ("encrypt", False)])
async def test_a_host_that_refuses_tls(
    dns: HostPort, tls_peer: SmtpPeer, policy: str, good: bool
) -> None:
    tls_peer.says["STARTTLS"] = "454 4.7.0 not now"
    outcome = only(await send(dns, tls_peer.port, tls_policy={LANE: policy}))
    assert isinstance(outcome, Delivered) is good
    if not good:
        assert told(outcome)[1:] == (NAME, "STARTTLS", "454 4.7.0 not now")


async def test_a_host_without_tls_where_it_is_required(dns: HostPort, first: SmtpPeer) -> None:
    attempted = await send(dns, first.port, tls_policy={LANE: "encrypt"})
    kind, _, _, words = told(only(attempted))
    assert (kind, words[:9]) == (TemporaryFailure, "451 4.7.4")
    await until(lambda: first.verbs() == ["EHLO", "QUIT"])


async def test_another_host_with_tls_is_tried(
    tmp_path: Path, dns: HostPort, first: SmtpPeer, second: SmtpPeer
) -> None:
    second.tls, second.offers = secured(tmp_path, issue("x")), ("STARTTLS",)
    outcome = only(await send(dns, first.port, tls_policy={LANE: "encrypt"}))
    assert told(outcome)[:2] == (Delivered, "mx2.peer.example")


@pytest.mark.parametrize(
    ("mechanisms", "command"), [("LOGIN PLAIN", "AUTH PLAIN"), ("LOGIN", "AUTH LOGIN")]
)
async def test_a_password_goes_to_a_next_hop_that_has_one(
    dns: HostPort, tls_peer: SmtpPeer, mechanisms: str, command: str
) -> None:
    tls_peer.offers = ("STARTTLS", f"AUTH {mechanisms}")
    tls_peer.says["AUTH"] = lambda said: "235 ok" if "PLAIN" in said else "334 VXNlcm5hbWU6"
    tls_peer.says["BWU="] = "334 UGFzc3dvcmQ6"
    tls_peer.says["czplY3JldA=="] = "235 ok"
    lane = f"[127.0.0.2]:{tls_peer.port}"
    outcome = only(await send(dns, 25, lane=lane, credentials={lane: "me:s:ecret"}))
    assert isinstance(outcome, Delivered)
    assert any(each.startswith(command) for each in tls_peer.commands)
    assert tls_peer.encrypted == [True]


async def test_a_password_that_is_refused(dns: HostPort, tls_peer: SmtpPeer) -> None:
    """The operator will mend it: nobody's mail is returned."""
    tls_peer.offers = ("STARTTLS", "AUTH PLAIN")
    tls_peer.says["AUTH"] = "535 5.7.8 wrong password"
    lane = f"[127.0.0.2]:{tls_peer.port}"
    attempted = await send(dns, 25, lane=lane, credentials={lane: "me:secret"})
    assert told(only(attempted)) == (
        TemporaryFailure,
        "[127.0.0.2]",
        "AUTH PLAIN",
        "535 5.7.8 wrong password",
    )
    assert attempted.back_off is not None


async def test_a_password_is_never_sent_in_clear_text_to_another_host(
    monkeypatch: pytest.MonkeyPatch, dns: HostPort, first: SmtpPeer
) -> None:
    monkeypatch.setattr("restante.relay.session.is_loopback", lambda _: False)
    first.offers = ("AUTH PLAIN",)
    lane = f"[127.0.0.2]:{first.port}"
    attempted = await send(dns, 25, lane=lane, credentials={lane: "me:secret"})
    assert told(only(attempted))[3].startswith("451 4.7.4 no password")
    assert "AUTH" not in first.verbs()


async def test_a_next_hop_that_offers_no_auth(dns: HostPort, first: SmtpPeer) -> None:
    first.offers = ("AUTH CRAM-MD5",)
    lane = f"[127.0.0.2]:{first.port}"
    attempted = await send(dns, 25, lane=lane, credentials={lane: "me:secret"})
    assert told(only(attempted))[3].startswith("451 4.7.4 the host offers no AUTH")


async def test_a_port_where_tls_comes_first(
    monkeypatch: pytest.MonkeyPatch, dns: HostPort, tls_peer: SmtpPeer
) -> None:
    monkeypatch.setattr("restante.relay.driver.SUBMISSIONS_PORT", tls_peer.port)
    tls_peer.implicit_tls, tls_peer.offers = True, ()
    lane = f"[127.0.0.2]:{tls_peer.port}"
    assert isinstance(only(await send(dns, 25, lane=lane)), Delivered)
    assert tls_peer.encrypted == [True]
    assert "STARTTLS" not in tls_peer.verbs()

"""Messages handed to other hosts: scripted peers on real sockets, a real DNS server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from restante.config.tree import HOUR, MEBIBYTE, HostPort
from restante.envelope import Content, memory_content
from restante.protocol.smtp.client_commands import BLOCK_TIMEOUT, END_TIMEOUT
from restante.relay.driver import PATIENCE, SmtpRelay
from restante.relay.health import LONGEST_REST
from restante.relay.outcomes import PUT_OFF_IN_A_ROW
from restante.relay.session import TRANSACTION_TIME
from restante.status import Delivered, PermanentFailure, TemporaryFailure
from tests.support.contents import spooled_content
from tests.support.jumping_clock import until
from tests.support.nameserver import Zone, nameserver
from tests.support.no_threads import FewThreads
from tests.support.passing_time import PassingTime
from tests.support.ports import free_port
from tests.support.relaying import (
    BODY,
    LANE,
    WIRE,
    only,
    outcomes,
    parcel,
    relay,
    relay_settings,
    send,
    told,
    two_exchangers,
)
from tests.support.smtp_peer import DEAF, DRIP, DROP, HANG, SmtpPeer, smtp_peer


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


# Delivered


async def test_a_message_is_handed_over(dns: HostPort, first: SmtpPeer) -> None:
    first.says["END"] = "250 2.6.0 queued as 4711"
    attempted = await send(dns, first.port)
    outcome = only(attempted)
    assert told(outcome) == (
        Delivered,
        "mx1.peer.example",
        "end of data",
        "250 2.6.0 queued as 4711",
    )
    assert outcome.peer is not None
    assert (outcome.peer.address, outcome.peer.tls) == (f"127.0.0.2:{first.port}", "")
    assert attempted.back_off is None
    assert first.contents == [WIRE]
    assert first.commands[0] == "EHLO mx.here.example"
    assert first.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


async def test_a_message_without_trace_fields(dns: HostPort, first: SmtpPeer) -> None:
    await send(dns, first.port, parcel(content=memory_content(b"", BODY)))
    assert first.contents == [b"Subject: hello\r\n\r\n.hello\r\n"]


async def test_a_message_for_an_alias_beyond_ascii_goes_to_a_host_that_takes_ascii(
    dns: HostPort, first: SmtpPeer
) -> None:
    """It came with SMTPUTF8 for that alone."""
    sent = replace(parcel(), came_by=("list@example.com", "é@example.com"))
    sent = replace(sent, envelope=replace(sent.envelope, smtputf8=True))
    assert isinstance(only(await send(dns, first.port, sent)), Delivered)
    assert first.contents == [b"Delivered-To: list@example.com\r\n" + WIRE]


async def test_a_large_message_in_a_file(tmp_path: Path, dns: HostPort, first: SmtpPeer) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"Subject: large\n\n" + b"x" * 70 + b"\n" * 100_000)
    content = spooled_content(b"", str(path), 100_002, memory_content(b"", b"").facts)
    assert isinstance(only(await send(dns, first.port, parcel(content=content))), Delivered)
    assert first.contents == [path.read_bytes().replace(b"\n", b"\r\n")]


def large(directory: Path, size: int = 2_000_000) -> Content:
    path = directory / "large"
    path.write_bytes(b"Subject: large\n\n" + b"x\n" * (size // 2))
    return spooled_content(b"", str(path), size // 2 + 2, memory_content(b"", b"").facts)


async def test_a_large_message_by_chunks(tmp_path: Path, dns: HostPort, first: SmtpPeer) -> None:
    first.offers = ("CHUNKING", "PIPELINING")
    sent = parcel(content=large(tmp_path))
    assert isinstance(only(await send(dns, first.port, sent)), Delivered)
    assert "DATA" not in first.verbs()


@pytest.mark.usefixtures("passing")
async def test_a_host_that_reads_nothing_is_not_sent_everything(
    tmp_path: Path, dns: HostPort, first: SmtpPeer
) -> None:
    """Though it says something now and then: what it has not read is in this host's memory."""
    first.says["DATA"] = DEAF
    size = 32 * MEBIBYTE
    path = tmp_path / "fifo"
    os.mkfifo(path)
    content = Content(b"", str(path), size, 1)
    sent = parcel(content=content)
    sent = replace(sent, envelope=replace(sent.envelope, eight_bit=True))  # so it is read once
    writing = asyncio.create_task(asyncio.to_thread(write_until_closed, path, size))
    attempted = await send(dns, first.port, sent, timeoutremote=HOUR)
    assert isinstance(only(attempted), TemporaryFailure)
    assert await writing < size / 2


def write_until_closed(path: Path, size: int) -> int:
    """How much of it somebody has read."""
    written = 0
    with contextlib.suppress(BrokenPipeError), open(path, "wb", buffering=0) as fifo:
        while written < size:
            written += fifo.write(b"x" * 65535 + b"\n")
    return written


async def test_each_chunk_has_a_time_of_its_own(
    tmp_path: Path, dns: HostPort, first: SmtpPeer, passing: PassingTime
) -> None:
    first.offers = ("CHUNKING",)

    def slowly(command: str) -> str:
        passing.pass_by(0.5 * BLOCK_TIMEOUT)
        return "250 ok"

    first.says["BDAT"] = slowly
    attempted = await send(dns, first.port, parcel(content=large(tmp_path)), timeoutremote=HOUR)
    assert isinstance(only(attempted), Delivered)
    assert 0.5 * BLOCK_TIMEOUT * first.verbs().count("BDAT") > END_TIMEOUT


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize("said", [DROP, HANG, "451 4.3.0 try again"])
async def test_a_chunk_that_a_host_chokes_on_is_nobody_elses_trouble(
    tmp_path: Path, dns: HostPort, first: SmtpPeer, said: str
) -> None:
    first.offers = ("CHUNKING",)
    first.says["BDAT"] = said
    attempted = await send(dns, first.port, parcel(content=large(tmp_path)), timeoutremote=HOUR)
    assert isinstance(only(attempted), TemporaryFailure)
    assert attempted.back_off is None


async def test_a_file_that_is_gone(tmp_path: Path, dns: HostPort, first: SmtpPeer) -> None:
    path = tmp_path / "body"
    path.write_bytes(BODY)
    content = spooled_content(b"", str(path), 3, memory_content(b"", b"").facts)
    path.unlink()
    attempted = await send(dns, first.port, parcel(content=content))
    assert isinstance(only(attempted), TemporaryFailure)
    assert attempted.back_off is None
    assert first.contents == []


@pytest.mark.parametrize("read", [0, 1])
async def test_a_file_that_no_thread_reads(
    tmp_path: Path, dns: HostPort, first: SmtpPeer, read: int
) -> None:
    asyncio.get_running_loop().set_default_executor(FewThreads(1, after=read))
    attempted = await send(dns, first.port, parcel(content=large(tmp_path)))
    failure = only(attempted)
    assert isinstance(failure, TemporaryFailure)
    assert "thread" in failure.detail
    assert attempted.back_off is None
    assert first.contents == []


@pytest.mark.parametrize("offers", [("8BITMIME",), ("8BITMIME", "CHUNKING", "PIPELINING")])
@pytest.mark.parametrize("left", [0, 1_000_000])
async def test_a_file_that_has_become_short(
    tmp_path: Path, dns: HostPort, first: SmtpPeer, left: int, offers: tuple[str, ...]
) -> None:
    """What is there is known for a part only at its end, when it was sent."""
    first.offers = offers
    sent = parcel(content=large(tmp_path))
    sent = replace(sent, envelope=replace(sent.envelope, eight_bit=True))
    os.truncate(tmp_path / "large", left)
    attempted = await send(dns, first.port, sent)
    failure = only(attempted)
    assert isinstance(failure, TemporaryFailure)
    assert "octets shorter than it was" in failure.detail
    assert attempted.back_off is None
    assert "RCPT" in first.verbs()
    assert first.contents == []


async def test_outcomes_of_each_recipient(dns: HostPort, first: SmtpPeer) -> None:
    first.says["RCPT"] = lambda command: {
        "a": "250 2.1.5 ok",
        "b": "550 5.1.1 no such user",
        "c": "450 4.7.1 greylisted",
    }[command[9]]
    attempted = await send(dns, first.port, parcel("a", "b", "c"))
    assert [told(outcome) for outcome in outcomes(attempted)] == [
        (Delivered, "mx1.peer.example", "end of data", "250 2.0.0 ok"),
        (
            PermanentFailure,
            "mx1.peer.example",
            "RCPT TO:<b@example.net>",
            "550 5.1.1 no such user",
        ),
        (
            TemporaryFailure,
            "mx1.peer.example",
            "RCPT TO:<c@example.net>",
            "450 4.7.1 greylisted",
        ),
    ]
    assert attempted.back_off is None


async def test_a_thousand_recipients(dns: HostPort, first: SmtpPeer) -> None:
    first.says["RCPT"] = lambda command: "250 ok" if command[9] == "g" else "550 5.1.1 no"
    names = [f"{'gb'[number % 2]}{number}" for number in range(1000)]
    attempted = await send(dns, first.port, parcel(*names))
    kinds = [type(outcome) for outcome in outcomes(attempted)]
    assert kinds == [Delivered, PermanentFailure] * 500
    assert first.verbs().count("RCPT") == 1000
    assert len(first.contents) == 1


async def test_a_route(dns: HostPort, first: SmtpPeer) -> None:
    outcome = only(await send(dns, 25, lane=f"[127.0.0.2]:{first.port}"))
    assert told(outcome)[:2] == (Delivered, "[127.0.0.2]")


async def test_an_address_that_cannot_be_reached_costs_no_time(
    zone: Zone, dns: HostPort, first: SmtpPeer
) -> None:
    """Nobody listens at the one, and most hosts have no way to the other."""
    zone.records["mx1.peer.example", "AAAA"] = ["::1", "2001:db8::1"]
    assert told(only(await send(dns, first.port, timeoutconnect=2)))[0] is Delivered


# Hosts that fail


async def test_nobody_listens(dns: HostPort) -> None:
    attempted = await send(dns, free_port())
    kind, host, command, words = told(only(attempted))
    assert (kind, host, command) == (TemporaryFailure, "mx1.peer.example", "connect")
    assert words.startswith("451 4.4.1 no connection: ")
    peer = only(attempted).peer
    assert peer is not None
    assert peer.silent
    assert attempted.back_off is not None
    assert "mx1.peer.example" in attempted.back_off.why


async def test_a_host_that_does_not_answer_is_left_alone(dns: HostPort, first: SmtpPeer) -> None:
    """Nobody listens at the second; the first, which hangs, is not connected to again."""
    first.says["GREETING"] = HANG
    async with relay(dns, first.port, timeoutremote=0.2) as made:
        once = await made.send(LANE, parcel())
        again = await made.send(LANE, parcel())
    assert told(only(once))[2] == "greeting"
    assert told(only(again))[2] == "connect"
    assert first.connections == 1
    assert once.back_off is not None
    assert once.back_off.minimum == 0
    assert again.back_off is not None
    assert again.back_off.minimum > 50


@pytest.mark.usefixtures("passing")
async def test_a_host_that_greets_and_is_silent_then_is_left_alone_too(
    dns: HostPort, first: SmtpPeer, second: SmtpPeer
) -> None:
    first.says["EHLO"] = HANG
    async with relay(dns, first.port, timeoutremote=HOUR, idle_timeout=0.0) as made:
        attempts = [await made.send(LANE, parcel()) for _ in range(2)]
    assert [told(only(each))[1] for each in attempts] == ["mx2.peer.example"] * 2
    assert first.connections == 1


async def test_however_many_addresses_are_down_a_worse_one_has_its_turn(
    zone: Zone, dns: HostPort, second: SmtpPeer
) -> None:
    """Nobody listens at all those of the better exchangers."""
    for number in range(4, 10):
        name = f"mx{number}.peer.example"
        zone.records[LANE, "MX"].append(f"10 {name}.")
        zone.records[name, "A"] = [f"127.0.{number}.{last}" for last in range(1, 5)]
    zone.records["mx1.peer.example", "A"] = [f"127.0.1.{last}" for last in range(1, 5)]
    assert told(only(await send(dns, second.port)))[:2] == (Delivered, "mx2.peer.example")


async def test_silent_hosts_do_not_hold_an_attempt_for_long(
    zone: Zone, dns: HostPort, first: SmtpPeer, second: SmtpPeer, passing: PassingTime
) -> None:
    """Either keeps silent for all the time of an attempt: the third is left for the next one."""
    zone.records[LANE, "MX"].append("30 mx3.peer.example.")
    zone.records["mx3.peer.example", "A"] = ["127.0.0.4"]
    first.says["GREETING"] = second.says["GREETING"] = HANG

    with smtp_peer(SmtpPeer(), "127.0.0.4", first.port) as third:
        async with relay(dns, first.port, passing.now, timeoutremote=HOUR) as made:
            attempted = await made.send(LANE, parcel())
        assert told(only(attempted))[:3] == (TemporaryFailure, "mx1.peer.example", "greeting")
        assert attempted.back_off is not None
        assert (second.connections, third.connections) == (1, 0)
        at_once = await send(dns, first.port, timeoutremote=HOUR)
        assert told(only(at_once))[:2] == (Delivered, "mx3.peer.example")


@pytest.mark.parametrize("verb", ["GREETING", "EHLO", "MAIL"])
async def test_a_host_that_hangs_keeps_nothing_from_the_one_behind_it(
    zone: Zone,
    dns: HostPort,
    first: SmtpPeer,
    second: SmtpPeer,
    passing: PassingTime,
    verb: str,
) -> None:
    """Its addresses take all the time of an attempt; the next is made when their rest is over."""
    zone.records["mx1.peer.example", "A"].append("127.0.0.4")
    first.says[verb] = HANG
    with smtp_peer(SmtpPeer({verb: HANG}), "127.0.0.4", first.port):
        settings = {"timeoutremote": HOUR, "idle_timeout": 0.0}
        async with relay(dns, first.port, passing.now, **settings) as made:
            attempts = [only(await made.send(LANE, parcel()))]
            for _ in range(2):
                passing.pass_by(LONGEST_REST)
                attempts.append(only(await made.send(LANE, parcel())))
    assert [told(each)[:2] for each in attempts] == [
        (TemporaryFailure, "mx1.peer.example"),
        (Delivered, "mx2.peer.example"),
        (Delivered, "mx2.peer.example"),
    ]


async def test_a_host_that_takes_no_content_keeps_nothing_from_the_one_behind_it(
    tmp_path: Path,
    zone: Zone,
    dns: HostPort,
    first: SmtpPeer,
    second: SmtpPeer,
    passing: PassingTime,
) -> None:
    """By this clock either takes all the time of an attempt."""
    zone.records["mx1.peer.example", "A"].append("127.0.0.4")
    first.says["DATA"] = DEAF
    second.offers = ("CHUNKING",)
    sent = parcel(content=large(tmp_path, 16 * MEBIBYTE))

    def clock() -> float:
        return PATIENCE / BLOCK_TIMEOUT * passing.now()

    with smtp_peer(SmtpPeer({"DATA": DEAF}), "127.0.0.4", first.port):
        async with relay(dns, first.port, clock, timeoutremote=HOUR, idle_timeout=0.0) as made:
            attempts = [only(await made.send(LANE, sent)) for _ in range(2)]
    assert [told(each)[:2] for each in attempts] == [
        (TemporaryFailure, "mx1.peer.example"),
        (Delivered, "mx2.peer.example"),
    ]


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize("said", [HANG, DRIP])
@pytest.mark.parametrize("verb", ["EHLO", "MAIL", "RCPT", "DATA", "END"])
async def test_a_host_that_falls_silent(
    dns: HostPort, first: SmtpPeer, verb: str, said: str
) -> None:
    first.says[verb] = said
    attempted = await send(dns, first.port, timeoutremote=HOUR)
    kind, _, command, words = told(only(attempted))
    assert kind is TemporaryFailure
    assert command.startswith({"END": "end of data"}.get(verb, verb))
    assert words.startswith("451 4.4.2 ")
    assert (attempted.back_off is None) is (verb == "END")


BEFORE_THE_END = ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"]


@pytest.mark.parametrize("said", ["421 4.3.2 shutting down", DROP])
@pytest.mark.parametrize("verb", BEFORE_THE_END)
async def test_another_host_is_tried(
    dns: HostPort, first: SmtpPeer, second: SmtpPeer, verb: str, said: str
) -> None:
    first.says[verb] = said
    attempted = await send(dns, first.port)
    assert told(only(attempted))[:2] == (Delivered, "mx2.peer.example")
    assert attempted.back_off is None
    assert (first.contents, second.contents) == ([], [WIRE])


@pytest.mark.parametrize("verb", [*BEFORE_THE_END, "END"])
async def test_421_anywhere_is_about_the_whole_host(
    dns: HostPort, first: SmtpPeer, verb: str
) -> None:
    first.says[verb] = "421 4.3.2 shutting down"
    attempted = await send(dns, first.port)
    kind, host, _, words = told(only(attempted))
    assert (kind, host, words) == (
        TemporaryFailure,
        "mx1.peer.example",
        "421 4.3.2 shutting down",
    )
    assert attempted.back_off is not None


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize("said", [DROP, HANG, "451 4.3.0 try again", "421 4.3.2 shutting down"])
async def test_once_the_content_is_sent_nobody_else_gets_it(
    dns: HostPort, first: SmtpPeer, second: SmtpPeer, said: str
) -> None:
    first.says["END"] = said
    attempted = await send(dns, first.port, timeoutremote=HOUR)
    assert told(only(attempted))[:3] == (TemporaryFailure, "mx1.peer.example", "end of data")
    assert second.connections == 0


async def test_some_are_refused_before_the_host_shuts_down(
    dns: HostPort, first: SmtpPeer, second: SmtpPeer
) -> None:
    first.offers = ()
    first.says["RCPT"] = ["250 ok", "550 5.1.1 no such user", "421 4.3.2 bye"]
    attempted = await send(dns, first.port, parcel("a", "b", "c"))
    assert [told(each)[:2] for each in outcomes(attempted)] == [
        (Delivered, "mx2.peer.example"),
        (PermanentFailure, "mx1.peer.example"),
        (Delivered, "mx2.peer.example"),
    ]
    assert [each for each in second.commands if each.startswith("RCPT")] == [
        "RCPT TO:<a@example.net>",
        "RCPT TO:<c@example.net>",
    ]


async def test_a_greeting_that_refuses_is_tried_elsewhere_and_later(
    dns: HostPort, first: SmtpPeer, second: SmtpPeer
) -> None:
    first.says["GREETING"] = second.says["GREETING"] = "554 5.7.1 you are on a list"
    attempted = await send(dns, first.port)
    assert told(only(attempted)) == (
        TemporaryFailure,
        "mx1.peer.example",
        "greeting",
        "554 5.7.1 you are on a list",
    )
    assert second.connections == 1
    assert attempted.back_off is not None


async def test_hosts_that_never_take_mail_say_so_in_their_greeting(
    dns: HostPort, first: SmtpPeer, second: SmtpPeer
) -> None:
    """The code means that nowhere else (RFC 7504 §3)."""
    first.says = second.says = dict.fromkeys(("EHLO", "HELO"), "521 5.3.2 no mail here")
    assert told(only(await send(dns, first.port)))[0] is TemporaryFailure


async def test_hosts_that_never_take_mail(dns: HostPort, first: SmtpPeer, second: SmtpPeer) -> None:
    first.says["GREETING"] = second.says["GREETING"] = "521 5.3.2 no mail here"
    attempted = await send(dns, first.port)
    assert told(only(attempted))[0] is PermanentFailure
    assert attempted.back_off is None


async def test_a_domain_that_does_not_exist(dns: HostPort, first: SmtpPeer) -> None:
    attempted = await send(dns, first.port, lane="nowhere.example")
    outcome = only(attempted)
    assert isinstance(outcome, PermanentFailure)
    assert (outcome.reply.enhanced, outcome.peer) == ("5.1.2", None)
    assert attempted.back_off is None


async def test_a_domain_nobody_can_tell_of(zone: Zone, dns: HostPort, first: SmtpPeer) -> None:
    zone.failing = {LANE}
    attempted = await send(dns, first.port)
    assert isinstance(only(attempted), TemporaryFailure)
    assert attempted.back_off is not None


async def test_an_exchanger_is_this_host_as_soon_as_it_is_called_so(
    dns: HostPort, first: SmtpPeer, second: SmtpPeer
) -> None:
    """The better one is out of order. The address says nothing: it may be that of a router."""
    first.says["GREETING"] = DROP
    settings = [relay_settings(dns, second.port, idle_timeout=0.0)]
    made = SmtpRelay(settings[0], lambda: settings[-1])
    assert told(only(await made.send(LANE, parcel())))[:2] == (Delivered, "mx2.peer.example")
    settings.append(relay_settings(dns, second.port, helohost="mx2.peer.example"))
    assert told(only(await made.send(LANE, parcel())))[:2] == (TemporaryFailure, "mx1.peer.example")
    await made.close(5)


async def test_a_hosts_rest_goes_on_while_the_machine_sleeps(
    dns: HostPort, first: SmtpPeer, second: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first.says["GREETING"] = second.says["GREETING"] = DROP
    settings = relay_settings(dns, second.port)
    made = SmtpRelay(settings, lambda: settings)
    assert isinstance(only(await made.send(LANE, parcel())), TemporaryFailure)
    first.says["GREETING"] = second.says["GREETING"] = "220 awake"
    skipped = only(await made.send(LANE, parcel()))
    assert isinstance(skipped, TemporaryFailure)
    assert skipped.reply.text == "no connection a moment ago"
    asleep = LONGEST_REST
    now = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: now(which) + asleep)
    assert isinstance(only(await made.send(LANE, parcel())), Delivered)
    await made.close(5)


# Whom a failure is about


@pytest.mark.parametrize(
    ("verb", "said", "about_the_host"),
    [
        ("MAIL", "450 4.7.1 too many messages", True),
        ("MAIL", "451 later", True),
        ("MAIL", "450 4.1.0 not this sender", False),
        ("MAIL", "450 4.1.7 no such sender", False),
        ("MAIL", "450 4.1.8 no such sender's domain", False),
        ("MAIL", "552 5.3.4 too large", False),
        ("RCPT", "450 4.7.1 greylisted", False),
        ("RCPT", "452 4.3.1 no room", True),
        ("RCPT", "451 4.4.5 congested", True),
        ("DATA", "451 4.3.2 not now", True),
        ("END", "451 4.7.1 come back later", False),
        ("END", "554 5.7.1 spam", False),
    ],
)
async def test_whom_a_failure_is_about(
    dns: HostPort, first: SmtpPeer, verb: str, said: str, about_the_host: bool
) -> None:
    first.says[verb] = said
    attempted = await send(dns, first.port)
    assert not isinstance(only(attempted), Delivered)
    assert (attempted.back_off is not None) is about_the_host


async def test_a_sender_that_is_put_off_is_tried_at_the_next_host(
    dns: HostPort, first: SmtpPeer, second: SmtpPeer
) -> None:
    first.says["MAIL"] = "451 4.7.1 not now"
    assert told(only(await send(dns, first.port)))[:2] == (Delivered, "mx2.peer.example")
    assert second.connections == 1


async def left_alone(dns: HostPort, first: SmtpPeer, said: Sequence[str]) -> list[bool]:
    """Whether the host is, after each message, which it answers in these words."""
    first.says["RCPT"] = list(said)
    async with relay(dns, first.port) as made:
        return [(await made.send(LANE, parcel())).back_off is not None for _ in said]


async def test_many_that_are_put_off_in_a_row(dns: HostPort, first: SmtpPeer) -> None:
    """Then the count begins anew."""
    row = [False] * (PUT_OFF_IN_A_ROW - 1) + [True]
    assert await left_alone(dns, first, ["450 4.7.1 greylisted"] * 2 * len(row)) == row * 2


@pytest.mark.parametrize("between", ["250 ok", "550 5.1.1 no such user"])
async def test_those_are_no_row_that_others_come_between(
    dns: HostPort, first: SmtpPeer, between: str
) -> None:
    few = ["450 4.7.1 greylisted"] * (PUT_OFF_IN_A_ROW - 1)
    assert not any(await left_alone(dns, first, [*few, between, *few]))


@pytest.mark.parametrize(
    ("reply", "at_once"),
    [
        ("452 4.5.3 too many", True),
        ("452 too many", True),
        ("552 too many", True),
        ("452 4.2.2 mailbox full", False),
        ("452 4.3.1 disk full", False),
        ("450 4.7.1 greylisted", False),
    ],
)
async def test_recipients_that_a_transaction_has_no_room_for(
    dns: HostPort, first: SmtpPeer, reply: str, at_once: bool
) -> None:
    """They are the next transaction's, and many of them say nothing of the host."""
    names = [f"a{number}" for number in range(PUT_OFF_IN_A_ROW + 2)]
    first.says["RCPT"] = ["250 ok", reply]
    accepted, *others = outcomes(attempted := await send(dns, first.port, parcel(*names)))
    assert isinstance(accepted, Delivered)
    assert {isinstance(each, TemporaryFailure) and each.at_once for each in others} == {at_once}
    assert (attempted.back_off is None) is at_once


async def test_a_transaction_that_has_room_for_nobody(dns: HostPort, first: SmtpPeer) -> None:
    first.says["RCPT"] = "452 4.5.3 too many"
    attempted = await send(dns, first.port, parcel("ann", "bob"))
    assert all(isinstance(each, TemporaryFailure) for each in outcomes(attempted))
    assert not any(getattr(each, "at_once", False) for each in outcomes(attempted))


async def test_what_a_lane_is_told_names_no_recipient(dns: HostPort, first: SmtpPeer) -> None:
    first.says["RCPT"] = "421 4.7.0 ann@example.net is too popular"
    attempted = await send(dns, first.port)
    assert attempted.back_off is not None
    assert "ann" not in attempted.back_off.why


# Connections


async def test_messages_share_a_connection(dns: HostPort, first: SmtpPeer) -> None:
    async with relay(dns, first.port) as made:
        for _ in range(3):
            assert told(only(await made.send(LANE, parcel())))[0] is Delivered
    assert first.connections == 1
    assert first.verbs().count("EHLO") == 1
    assert first.verbs()[-1] == "QUIT"


async def test_a_connection_has_so_many_messages(dns: HostPort, first: SmtpPeer) -> None:
    async with relay(dns, first.port, messages_per_connection=2) as made:
        for _ in range(5):
            await made.send(LANE, parcel())
    assert first.connections == 3
    assert first.verbs().count("QUIT") == 3


async def test_so_many_connections_are_kept(
    zone: Zone, dns: HostPort, first: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has waited longest takes leave."""
    monkeypatch.setattr("restante.relay.pool.MAX_IDLE", 2)
    lanes = [LANE, "example.org", "example.com"]
    zone.records |= {(lane, "MX"): zone.records[LANE, "MX"] for lane in lanes}
    async with relay(dns, first.port, idle_timeout=10 * PATIENCE) as made:
        for lane in lanes:
            await made.send(lane, parcel())
        await until(lambda: "QUIT" in first.verbs())
        for lane in lanes[1:]:
            await made.send(lane, parcel())
        assert first.connections == len(lanes)
        await made.send(LANE, parcel())
    assert first.connections == len(lanes) + 1


async def test_each_transaction_has_a_time_of_its_own(
    dns: HostPort, first: SmtpPeer, passing: PassingTime
) -> None:
    """Not what the connection has lasted."""
    async with relay(dns, first.port, idle_timeout=10 * TRANSACTION_TIME) as made:
        await made.send(LANE, parcel())
        passing.pass_by(2 * TRANSACTION_TIME)
        assert told(only(await made.send(LANE, parcel())))[0] is Delivered
    assert first.connections == 1


async def test_no_connection_is_kept(dns: HostPort, first: SmtpPeer) -> None:
    async with relay(dns, first.port, idle_timeout=0) as made:
        for _ in range(2):
            await made.send(LANE, parcel())
    assert first.connections == 2


async def test_an_idle_connection_takes_leave(dns: HostPort, first: SmtpPeer) -> None:
    async with relay(dns, first.port, idle_timeout=0.05) as made:
        await made.send(LANE, parcel())
        await until(lambda: "QUIT" in first.verbs())


@pytest.mark.parametrize("said", [DROP, "421 4.4.2 idle for too long"])
async def test_a_connection_that_was_idle_for_too_long(
    dns: HostPort, first: SmtpPeer, said: str
) -> None:
    first.says["MAIL"] = ["250 ok", said, "250 ok"]
    async with relay(dns, first.port) as made:
        await made.send(LANE, parcel())
        attempted = await made.send(LANE, parcel())
    assert told(only(attempted))[0] is Delivered
    assert attempted.back_off is None
    assert first.connections == 2


async def test_lanes_do_not_share_connections(zone: Zone, dns: HostPort, first: SmtpPeer) -> None:
    zone.records["example.org", "MX"] = zone.records[LANE, "MX"]
    async with relay(dns, first.port) as made:
        await made.send(LANE, parcel())
        await made.send("example.org", parcel())
    assert first.connections == 2


async def test_many_messages_at_once(dns: HostPort, first: SmtpPeer) -> None:
    async with relay(dns, first.port) as made:
        attempts = await asyncio.gather(*(made.send(LANE, parcel()) for _ in range(20)))
        more = await asyncio.gather(*(made.send(LANE, parcel()) for _ in range(20)))
    assert all(isinstance(only(each), Delivered) for each in (*attempts, *more))
    assert first.connections == 20

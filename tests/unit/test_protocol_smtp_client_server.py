"""The client engine against the server engine: every message arrives as it was sent."""

from __future__ import annotations

import itertools
from functools import reduce
from operator import or_
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import Address
from restante.envelope import Notify, RecipientDsn
from restante.protocol.smtp.client import MECHANISMS, SmtpClient
from restante.protocol.smtp.client_events import (
    ClientWait,
    Closed,
    OutgoingMessage,
    OutgoingRecipient,
)
from restante.protocol.smtp.events import Mail, MailParameters, Rcpt
from restante.protocol.smtp.profile import BASIC, Extension, Limits
from restante.status import Reply
from tests.support.smtp_client import ClientDriver, Job, converse, message, serving
from tests.support.smtp_core import describe

OK = Reply(250, "0.0", "Ok")
NO_USER = Reply(550, "1.1", "No such user")
LATER = Reply(451, "3.0", "Later")

OFFERS = [
    offer
    for count in range(4)
    for offer in itertools.combinations(
        (Extension.PIPELINING, Extension.CHUNKING, Extension.ENHANCED_STATUS), count
    )
]


@pytest.fixture(params=OFFERS, ids=lambda offer: "+".join(each.value for each in offer) or "none")
def offer(request: pytest.FixtureRequest) -> tuple[Extension, ...]:
    """What the server offers of what changes the way of a message."""
    offered: tuple[Extension, ...] = request.param
    return offered


TEXT = st.lists(
    st.sampled_from([b".", b"..", b"\n", b"\n.", b"\n.\n", b"x", b"hello world", b"\xff", b"\n\n."])
).map(b"".join)


@given(blocks=st.lists(TEXT, max_size=6), offer=st.sampled_from(OFFERS))
def test_any_content_arrives(blocks: list[bytes], offer: tuple[Extension, ...]) -> None:
    driver = ClientDriver([Job(message("b@b.example"), blocks)])
    record = converse(driver, serving(offer))
    content = b"".join(blocks)
    ended = content if not content or content.endswith(b"\n") else content + b"\n"
    assert record.bodies == [ended]
    assert driver.results[0][0].reply.is_success


def test_large_contents_arrive(offer: tuple[Extension, ...]) -> None:
    block = b".line\n" * 20_000
    driver = ClientDriver([Job(message("b@b.example"), [block] * 4 + [b"the end"])])
    record = converse(driver, serving(offer))
    assert record.bodies == [block * 4 + b"the end\n"]


def test_many_recipients_and_messages(offer: tuple[Extension, ...]) -> None:
    names = [f"u{number}@b.example" for number in range(300)]
    answers = [OK, *[NO_USER, OK, LATER] * 100, OK] * 2
    driver = ClientDriver([Job(message(*names)), Job(message(*names))])
    record = converse(driver, serving(offer, Limits(max_errors=1000), answers))
    assert [result.reply.code for result in driver.results[0]] == [550, 250, 451] * 100
    assert driver.results[1] == driver.results[0]
    assert [result.command for result in driver.results[0][:2]] == [
        "RCPT TO:<u0@b.example>",
        "end of data",
    ]
    assert len(record.bodies) == 2


def test_a_refused_message_leaves_the_connection_fit_for_the_next(
    offer: tuple[Extension, ...],
) -> None:
    refused = [LATER], [OK, NO_USER, LATER], [OK, OK, OK, LATER]
    answers = [each for script in refused for each in script] + [OK] * 4
    driver = ClientDriver([Job(message("b@b.example", "c@b.example")) for _ in range(4)])
    record = converse(driver, serving(offer, answers=answers))
    codes = [[result.reply.code for result in results] for results in driver.results]
    assert codes == [[451, 451], [550, 451], [451, 451], [250, 250]]
    assert record.bodies[-1] == b"Subject: x\n\nhello\n"
    assert driver.closed is not None
    assert driver.closed.why == "quit"


ENVIDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=30)
ORCPTS = st.one_of(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30).map(
        "rfc822;{}".format
    ),
    st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=10).map("utf-8;{}".format),
)
NOTIFIES = st.one_of(
    st.none(),
    st.sets(st.sampled_from(list(Notify))).map(lambda kinds: reduce(or_, kinds, Notify.NEVER)),
)


@given(ENVIDS, ORCPTS, NOTIFIES, st.sampled_from(["FULL", "HDRS"]))
def test_what_the_sender_asks_to_be_told_arrives(
    envid: str, orcpt: str, notify: Notify | None, ret: Literal["FULL", "HDRS"]
) -> None:
    dsn = RecipientDsn(notify, orcpt)
    recipient = OutgoingRecipient(Address("b", "b.example"), dsn)
    job = Job(OutgoingMessage(Address("a", "a.example"), (recipient,), 9, ret=ret, envid=envid))
    record = converse(ClientDriver([job]), serving())
    assert [describe(event) for event in expected_events(job.message)] == record.events[:2]


def expected_events(sent: OutgoingMessage) -> list[Mail | Rcpt]:
    """What the server has to tell of the envelope."""
    parameters = MailParameters(sent.size, ret=sent.ret, envid=sent.envid)
    mail = Mail(sent.reverse_path, "client.example", "ESMTP", parameters)
    return [mail, *(Rcpt(each.address, each.dsn) for each in sent.recipients)]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_tls_and_a_login(mechanism: str) -> None:
    server = serving([*BASIC, Extension.STARTTLS, Extension.AUTH], answers=[NO_USER, OK])
    client = SmtpClient("client.example")
    seen = []
    actions = iter(
        [
            client.start_tls,
            lambda: client.authenticate(mechanism, "é name", "wrong"),
            lambda: client.authenticate(mechanism, "é name", "pass word"),
            client.quit,
        ]
    )
    client.receive(server.record.output)
    while not isinstance(event := client.next_event(), Closed):
        if event is ClientWait.NEED_ACTION:
            next(actions)()
        elif event is ClientWait.NEED_HANDSHAKE:
            client.tls_started()
        elif event is ClientWait.NEED_DATA:
            before = len(server.record.output)
            server.feed(client.outgoing())
            client.receive(server.record.output[before:])
        elif not isinstance(event, ClientWait):
            seen.append(type(event).__name__)
    assert seen == ["Ready", "StartTls", "Ready", "AuthRefused", "Authenticated"]
    assert f"Authenticate é name pass word {mechanism}" in server.record.events

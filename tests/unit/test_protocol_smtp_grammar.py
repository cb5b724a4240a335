"""Command lines are read as the ABNF of RFC 5321 says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restante.address import MAX_LOCAL_PART, NULL_REVERSE_PATH, Address
from restante.envelope import NO_DSN, Notify
from restante.protocol.smtp.dsn import (
    MAX_ORCPT,
    DsnSyntaxError,
    encode_orcpt,
    encode_xtext,
    parse_envid,
    parse_orcpt,
)
from restante.protocol.smtp.events import (
    NO_PARAMETERS,
    Closed,
    Mail,
    MailParameters,
    Rcpt,
    Wait,
)
from restante.protocol.smtp.grammar import (
    MAX_DIGITS,
    Refused,
    Verb,
    parse_bdat,
    parse_command,
    parse_hello,
    parse_mail,
    parse_rcpt,
)
from restante.protocol.smtp.profile import Extension, Profile
from restante.protocol.smtp.server import SmtpServer
from restante.status import Reply

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=33)
UNICODE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=33)
LOCAL = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=20)
DOMAIN = st.from_regex(r"[a-z0-9]{1,10}(\.[a-z0-9]{1,10}){0,3}", fullmatch=True)
ROUTE = st.lists(DOMAIN, max_size=2).map(
    lambda hosts: ",".join(f"@{host}" for host in hosts) + (":" if hosts else "")
)


@settings(deadline=None)
@given(LOCAL, DOMAIN, ROUTE)
def test_any_path_is_read_and_its_route_ignored(local: str, domain: str, route: str) -> None:
    address = Address(local, domain)
    path = f"<{route}{address.to_mailbox()}>"
    assert parse_rcpt(f"TO:{path}", smtputf8=False).address == address
    assert parse_mail(f"from: {path} SIZE=7") == (address, MailParameters(size=7))


def test_the_null_reverse_path() -> None:
    assert parse_mail("FROM:<>") == (NULL_REVERSE_PATH, NO_PARAMETERS)


def test_the_sender_of_qmails_double_bounces_is_the_null_one() -> None:
    assert parse_mail("FROM:<#@[]> SIZE=7") == (NULL_REVERSE_PATH, MailParameters(size=7))
    with pytest.raises(Refused):
        parse_rcpt("TO:<#@[]>", smtputf8=False)


def test_utf8_addresses_keep_their_letters() -> None:
    path = "<\u7528\u6237@\u4f8b\u5b50.example>"
    address = parse_rcpt(f"TO:{path}", smtputf8=True).address
    assert address.to_path() == path


def test_a_bounce_comes_back_to_the_sender_that_a_list_has_for_one_member() -> None:
    local = "announcements-owner-somebody.with.a.long.name=mail.department.example.org"
    assert parse_rcpt(f"TO:<{local}@example.com>", smtputf8=False).address.local == local


@pytest.mark.parametrize(
    ("argument", "code"),
    [
        ("TO:<a@b>x", "501 5.5.2"),
        ("TO<a@b>", "501 5.5.2"),
        ("TO:<a b@c>", "501 5.5.2"),
        ("TO:<a@b> >", "501 5.5.4"),
        ("TO:<a@b@c>", "501 5.1.3"),
        ("TO:<@relay>", "501 5.1.3"),
        ("TO:<a..b@c>", "501 5.1.3"),
        (f"TO:<{'a' * (MAX_LOCAL_PART + 1)}@b>", "501 5.1.3"),
        (f"TO:<a@{'b.' * 130}c>", "501 5.1.3 Path longer"),
        ("TO:<a@b> RET=FULL", "555 5.5.4"),
        (f"TO:<a@b> ORCPT=rfc822;{'a' * (MAX_ORCPT - 6)}", "501 5.5.4"),
    ],
)
def test_malformed_recipients(argument: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_rcpt(argument, smtputf8=False)
    assert str(refused.value.reply).startswith(code)


@pytest.mark.parametrize("argument", ["", "1 FIRST", "-1", "+1", "1LAST", "\u0661", "1 LAST x"])
def test_malformed_chunks(argument: str) -> None:
    with pytest.raises(Refused):
        parse_bdat(argument)


def test_chunk_sizes_have_a_bound() -> None:
    assert parse_bdat("9" * MAX_DIGITS).size == 10**MAX_DIGITS - 1
    with pytest.raises(Refused):
        parse_bdat("9" * (MAX_DIGITS + 1))


@pytest.mark.parametrize("name", ["", "a b", "a" * 256, "caf\u00e9"])
def test_names_that_greet_nobody(name: str) -> None:
    with pytest.raises(Refused):
        parse_hello(name)


def test_verbs_ignore_case_and_trailing_space() -> None:
    assert parse_command(b"qUiT \t \r\n") == (Verb.QUIT, "")


def test_what_nobody_asks_for_is_not_said() -> None:
    assert parse_rcpt("TO:<a@b>", smtputf8=False).dsn == NO_DSN
    assert parse_rcpt("TO:<a@b> NOTIFY=NEVER", smtputf8=False).dsn.notify == Notify.NEVER
    _, parameters = parse_mail("FROM:<>")
    assert (parameters.ret, parameters.envid) == ("", "")


def test_an_original_recipient_may_have_500_characters() -> None:
    orcpt = "rfc822;" + "a" * (MAX_ORCPT - len("rfc822;"))
    assert parse_rcpt(f"TO:<a@b> ORCPT={orcpt}", smtputf8=False).dsn.orcpt == orcpt


def test_an_original_recipient_that_could_not_be_passed_on_is_refused() -> None:
    room = (MAX_ORCPT - len("utf-8;")) // len(r"\x{416}")
    assert parse_orcpt("utf-8;" + "Ж" * room, smtputf8=True)
    with pytest.raises(DsnSyntaxError):
        parse_orcpt("utf-8;" + "Ж" * (room + 1), smtputf8=True)


@given(PRINTABLE)
def test_an_envelope_id_is_read_as_it_was_written(text: str) -> None:
    assert parse_envid(encode_xtext(text)) == text


@given(st.one_of(PRINTABLE.map("rfc822;{}".format), UNICODE.map("utf-8;{}".format)))
def test_an_original_recipient_is_read_as_it_was_written(orcpt: str) -> None:
    """Invariant: what is written needs no SMTPUTF8, and fits into a command."""
    written = encode_orcpt(orcpt)
    assert written.isascii()
    assert not set(written) & set(" =+") or orcpt.startswith("rfc822;")
    assert parse_orcpt(written, smtputf8=False) == orcpt


@given(st.text(max_size=40), st.booleans())
def test_any_original_recipient_is_refused_or_printable(text: str, smtputf8: bool) -> None:
    try:
        orcpt = parse_orcpt(text, smtputf8=smtputf8)
    except DsnSyntaxError:
        return
    assert orcpt.isprintable()
    assert parse_orcpt(encode_orcpt(orcpt), smtputf8=False) == orcpt


@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        ("MAIL FROM:<a@b> RET=FULL", True),
        ("MAIL FROM:<a@b> ENVID=x", True),
        ("MAIL FROM:<a@b>", False),
        ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d> NOTIFY=NEVER", True),
        ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d> ORCPT=rfc822;c@d", True),
    ],
)
def test_what_is_not_offered_is_not_understood(sent: str, refused: bool) -> None:
    offered = tuple(each for each in Extension if each is not Extension.DSN)
    core = SmtpServer(Profile("mx.example", extensions=offered))
    core.receive(f"EHLO c\r\n{sent}\r\n".encode())
    while not isinstance(event := core.next_event(), Closed) and event is not Wait.NEED_DATA:
        if isinstance(event, Mail | Rcpt):
            core.reply(Reply(250, "0.0", "ok"))
    said = core.outgoing()
    assert b"DSN" not in said
    assert said.endswith(b"555 5.5.4 Unsupported parameter\r\n") == refused

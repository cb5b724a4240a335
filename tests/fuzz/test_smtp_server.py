"""Whatever a peer sends: no exception, bounded buffers, whole reply lines, and an end."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from restante.protocol.sasl import MAX_LINE, MECHANISMS
from restante.protocol.smtp.profile import Extension, Limits, Profile
from restante.status import Reply
from tests.support.smtp_core import HOST, ScriptedDriver

LIMITS = Limits(
    max_command_line=512,
    max_text_line=1000,
    databytes=2000,
    max_recipients=3,
    max_errors=50,
)
PROFILE = Profile(HOST, limits=LIMITS)
SECURE = Profile(
    HOST,
    limits=LIMITS,
    extensions=tuple(Extension),
    plaintext_auth=True,
    requires_auth=True,
    mechanisms=MECHANISMS,
)
WORDS = st.sampled_from(
    [
        b"EHLO c\r\n", b"HELO c\r\n", b"MAIL FROM:<a@b.example>", b"MAIL FROM:<>\r\n", b" SIZE=10",
        b" BODY=8BITMIME", b" SMTPUTF8", b"RCPT TO:<c@d.example>\r\n", b"RCPT TO:<c@d.example>",
        b"RCPT TO:<\xc3\xa9@d.example>\r\n", b"DATA\r\n", b".\r\n", b"\r\n.\r\n", b"\n.\n",
        b"BDAT 5\r\n", b"BDAT 5 LAST\r\n", b"BDAT 0 LAST\r\n", b"BDAT x\r\n", b"RSET\r\n",
        b"AUTH PLAIN\r\n", b"AUTH LOGIN\r\n", b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", b"STARTTLS\r\n",
        b"AGFubgBzZWNyZXQ=\r\n", b"YW5u\r\n", b"*\r\n", b"=", b" AUTH=<>", b"AUTH X y\r\n",
        b"AUTH SCRAM-SHA-256 ", b"biwsbj11c2VyLHI9bm9uY2U=\r\n", b"biws",
        b"NOOP\r\n", b"VRFY x\r\n", b"QUIT\r\n", b"\r\n", b"\r", b"\n", b".", b"<", b">", b"\x00",
        b"\xff", b"x" * 600, b"hello", b" ", b'"', b"\\", b"@", b":",
        b" RET=HDRS", b" ENVID=a+20b", b" NOTIFY=NEVER", b" NOTIFY=SUCCESS,DELAY", b" ORCPT=",
        b"utf-8;\xc3\xa9\\x{E9}", b"rfc822;a+40b",
    ]
)  # fmt: skip
TRAFFIC = st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=60)
OPENING = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
REPLY_LINE = re.compile(r"[245][0-9][0-9][ -][ -~]*|3[35]4[ -][ -~]*")
CODES = st.lists(
    st.sampled_from([Reply(250, "0.0", "ok"), Reply(550, "1.1", "no"), Reply(451, "3.0", "later")]),
    min_size=200,
    max_size=200,
)


@given(TRAFFIC, st.booleans(), st.booleans(), CODES)
def test_any_traffic(
    traffic: list[bytes], opened: bool, secure: bool, answers: list[Reply]
) -> None:
    accepted = [Reply(250, "0.0", "ok")] * 2 if opened and not secure else []
    driver = ScriptedDriver(SECURE if secure else PROFILE, accepted + answers)
    blocks = [OPENING, *traffic] if opened else traffic
    for block in blocks:
        driver.feed(block)
        assert len(driver.core._input) <= (MAX_LINE if secure else LIMITS.max_command_line)
    record = driver.finish()
    assert all(REPLY_LINE.fullmatch(line) for line in record.lines)
    assert all(len(body) <= LIMITS.databytes for body in record.bodies)


@given(TRAFFIC)
def test_cutting_changes_nothing(traffic: list[bytes]) -> None:
    wire = OPENING + b"".join(traffic)
    whole, single = ScriptedDriver(PROFILE), ScriptedDriver(PROFILE)
    whole.feed(wire)
    for octet in wire:
        single.feed(bytes([octet]))
    assert whole.finish().output == single.finish().output
    assert whole.record.events == single.record.events

"""Whatever a peer says: no exception, no hang, bounded buffers, one result a recipient, an end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.smtp_walker import BLOCK, walk

EHLO = b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"
WORDS = st.sampled_from(
    [
        b"220 hi\r\n", b"250 ok\r\n", b"250 2.1.5 ok\r\n", b"251 x\r\n", b"250-mx\r\n", b"250\r\n",
        b"235 in\r\n", b"334 bW9yZQ==\r\n", b"354 go\r\n", b"421 4.3.2 bye\r\n", b"450 no\r\n",
        b"452 4.5.3 many\r\n", b"550 5.1.1 no\r\n", b"552 5.3.4 big\r\n", b"503 what\r\n",
        b"550-5.1.1 no\r\n", b"150 wait\r\n", b"999 x\r\n", b"2", b"50 ", b"\r", b"\n", b"\r\n",
        b"-", b" ", b"\x00", b"\xff", b"250-" + b"x" * 900 + b"\r\n", EHLO,
    ]
)  # fmt: skip
SAYINGS = st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=60)
ACTIONS = st.lists(st.sampled_from(["send", "tls", "PLAIN", "LOGIN", "content"]), max_size=12)


def blocks(sayings: list[bytes], greeted: bool) -> list[bytes]:
    """What the peer says, in blocks of some octets."""
    said = b"".join(sayings)
    rest = [said[at : at + BLOCK] for at in range(0, len(said), BLOCK)]
    return [b"220 hi\r\n", EHLO, *rest] if greeted else rest


@given(ACTIONS, SAYINGS, st.booleans())
def test_any_peer(actions: list[str], sayings: list[bytes], greeted: bool) -> None:
    walk(actions, blocks(sayings, greeted), lambda block: [block])


@given(ACTIONS, st.lists(WORDS, max_size=30), st.booleans())
def test_one_word_at_a_time(actions: list[str], sayings: list[bytes], greeted: bool) -> None:
    opening = [b"220 hi\r\n", EHLO] if greeted else []
    walk(actions, [*opening, *sayings], lambda block: [block])


@given(ACTIONS, SAYINGS, st.integers(1, 40))
def test_cutting_changes_nothing(actions: list[str], sayings: list[bytes], size: int) -> None:
    said = blocks(sayings, greeted=True)
    whole = walk(actions, said, lambda block: [block])
    single = walk(actions, said, lambda block: [bytes([octet]) for octet in block])
    some = walk(
        actions,
        said,
        lambda block: [block[at : at + size] for at in range(0, len(block), size)],
    )
    assert whole.events == single.events == some.events
    assert whole.sent == single.sent == some.sent

"""Whatever an mbox holds: a retry gives up nothing but its own octets, and leaves a whole copy."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given
from hypothesis import strategies as st

from restante.directory import Account
from restante.envelope import memory_content
from restante.mda import MboxDelivery
from restante.mda.mbox import append_letter
from restante.mda.mboxrd import BLANK_LINE, Letter
from tests.support.deliveries import TRACE, envelope
from tests.support.quiet_disk import QuietDisk

BODY = b"Subject: hello\n\nFrom me\n>From you\n\nlast line\n"
LETTER = Letter(envelope(), memory_content(TRACE, BODY), ("iain@example.com",))
OURS = b"".join(LETTER.pieces())
OTHERS = b"From x@y Tue Nov 14 22:13:20 2023\nSubject: other\n\nmail\n\n"
ALIKE = OURS.replace(b"last line", b"another end")

PIECES = st.one_of(
    st.sampled_from([OURS, OTHERS, ALIKE, b"\n", BLANK_LINE, b"From ", b"Status: RO\n", b"\0"]),
    st.integers(0, len(OURS)).map(lambda length: OURS[:length]),
    st.integers(0, len(OURS)).map(lambda start: OURS[start:]),
    st.integers(1, 200).map(lambda count: b"\0" * count),
    st.binary(max_size=20),
)


def retry(before: bytes) -> bytes:
    """The mbox after a retry that found ``before``."""
    with TemporaryDirectory() as home:
        path = Path(home, "Mailbox")
        path.write_bytes(before)
        mbox = MboxDelivery(
            str(path), Account("x", os.geteuid(), os.getegid(), home), ("iain@example.com",)
        )
        append_letter(
            QuietDisk(),
            LETTER,
            mbox,
            again=True,
            asked_at=0.0,
            mark=b"restante x",
            pause=lambda _: True,
        )
        return path.read_bytes()


@given(st.lists(PIECES, max_size=8).map(b"".join))
@example(OTHERS + OURS[:-1] + OTHERS)
@example(OTHERS + OURS[:90] + b"\n\n" + OURS[:150])
@example(OURS[:30] + ALIKE)
def test_a_retry_never_loses_other_mail(before: bytes) -> None:
    after = retry(before)
    if after == before:
        # It was found whole: its beginning, and somewhere behind it all of its body.
        start = before.index(LETTER.key)
        assert OURS.partition(BLANK_LINE)[2] in before[start:]
        return
    kept = len(after) - len(OURS)
    assert after.endswith(OURS)
    if kept >= len(before):
        assert after[:kept].startswith(before)
        assert after[len(before) : kept] in (b"", b"\n", BLANK_LINE)
    else:
        assert before.startswith(after[:kept])
        given_up = before[kept:]
        assert len(given_up) <= len(OURS)
        assert all(octet in (0, ours) for octet, ours in zip(given_up, OURS, strict=False))


@given(st.lists(PIECES, max_size=8).map(b"".join))
def test_a_second_retry_changes_nothing(before: bytes) -> None:
    once = retry(before)
    assert retry(once) == once

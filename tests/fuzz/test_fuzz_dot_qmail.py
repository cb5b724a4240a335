"""Whatever a .qmail file holds and an address asks for, there is an answer or a temporary error.

And whatever instructions come of it, the queue finds the same ones again in their lines.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from restante.directory import Account, BadFile, DotQmail
from restante.directory.dotqmail import file_names, read_dot_qmail
from restante.routing.instructions import BadInstruction, instruction_line, parse_instructions

PIECES = st.sampled_from(
    [b"#", b"|", b"&", b".", b"/", b"+list", b"\n", b" ", b"\t", b"\0", b"\r", b"\x1b", b"\x7f"]
) | st.sampled_from(
    [b"a@b.org", b'"a b"@c', b"<", b">", b"./Maildir/", b"cmd", b"\xc3\xbc", b"\xff"]
)
TEXTS = st.binary(max_size=60) | st.lists(PIECES, max_size=12).map(b"".join)
EXTENSIONS = st.text(max_size=20) | st.text("aA.-/\0:\udcff", max_size=20)
MODES = st.sampled_from([0o644, 0o744, 0o664, 0o646, 0o4644])


def _read(text: bytes, mode: int) -> DotQmail | None:
    with tempfile.TemporaryDirectory(prefix="restante-") as home:
        path = Path(home) / ".qmail"
        path.write_bytes(text)
        path.chmod(mode)
        return read_dot_qmail(Account("ann", os.geteuid(), os.getegid(), home), "")


@given(TEXTS, MODES)
def test_any_file(text: bytes, mode: int) -> None:
    try:
        found = _read(text, mode)
    except BadFile:
        return
    assert found is not None
    assert bool(found.lines) == bool(text)
    if not found.lines:
        return
    joined = "\n".join(found.lines).encode("utf-8", "surrogateescape")
    assert joined == text.removesuffix(b"\n")
    try:
        actions = parse_instructions(found.lines, found.path)
    except BadInstruction:
        return
    lines = [instruction_line(action) for action in actions]
    for line in lines:
        line.encode("utf-8", "surrogateescape")
        assert "\n" not in line
    assert not lines or parse_instructions(lines) == actions


@given(EXTENSIONS)
def test_any_extension(extension: str) -> None:
    """The most exact file first; DEFAULT is always the end of the extension."""
    names = list(file_names(extension))
    assert all(name.startswith(".qmail") for name, _ in names)
    assert all(extension.endswith(default) for _, default in names)
    rest = [len(default) for name, default in names[1:]]
    assert rest == sorted(rest)
    if extension:
        assert names[-1] == (".qmail-default", extension)
    with tempfile.TemporaryDirectory(prefix="restante-") as home:
        (Path(home) / ".qmail-default").write_text("&a@b.org\n")
        account = Account("ann", os.geteuid(), os.getegid(), home)
        found = read_dot_qmail(account, extension)
    assert (found.default if found else "") == (extension or "")

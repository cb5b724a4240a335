"""Instruction lines (dot-qmail(5)): what one row of ``alias`` without a host says is to be done."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator

from restante.address import Address, AddressSyntaxError
from restante.address_syntax import join_mailbox
from restante.errors import OperatorError
from restante.routing.decision import Instruction, ToForward, ToMaildir, ToMbox, ToProgram

MAX_INSTRUCTION = 4096
"""Characters in an instruction line that is no command."""
MAX_COMMAND = 64 * 1024
"""Octets of a command (``alias_username`` is a TEXT at most): execve(2) takes twice as many."""
PORTION = 500
"""Lines that are parsed in one go: some milliseconds."""

_DOTS_ANYWHERE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")
"""A local part that needs quotes for its dots alone, as ``a..b`` does: neither qmail nor the rows
write any, and such addresses are in use."""


class BadInstruction(OperatorError):
    """A line that cannot be obeyed; the text quotes it and says why."""


def parse_instruction(line: str) -> Instruction | None:
    """What ``line`` says is to be done; None for a comment, a blank line, and what ``+`` begins.

    Raises BadInstruction.
    """
    text = line.strip()
    if not text or text.startswith(("#", "+")):
        return None
    if len(text) > MAX_INSTRUCTION and not _is_command(text):
        raise BadInstruction(f"the instruction {text[:40]!r}... is too long")
    if "\0" in text or "\n" in text:
        raise BadInstruction(
            f"the instruction {text[:MAX_INSTRUCTION]!r} holds a NUL or a line end"
        )
    if text.startswith("|"):
        return _program(text)
    if text.startswith((".", "/")):
        return ToMaildir(text) if text.endswith("/") else ToMbox(text)
    return _forward(text)


def parse_instructions(
    lines: Iterable[str], path: str = "", most: float = math.inf
) -> tuple[Instruction, ...]:
    """The instructions in ``lines``, in their order, each once; ``most`` of them at most.

    Comments alone mean that the message is to be thrown away, so the answer may be
    empty. Blank lines alone mean nothing that could be obeyed: BadInstruction, as for
    any line that says nothing understood, and for more than there may be. It names ``path``, if
    the lines are a file's.
    """
    found: dict[Instruction, None] = {}
    for _ in portions(tuple(lines), path, most, found):
        pass
    return tuple(found)


def portions(
    lines: tuple[str, ...], path: str, most: float, found: dict[Instruction, None]
) -> Iterator[None]:
    """Add to ``found`` what ``parse_instructions`` answers, and pause after each PORTION."""
    if not any(line.strip() for line in lines):
        raise BadInstruction(f"{path}: all lines are blank" if path else "all lines are blank")
    for start in range(0, len(lines), PORTION):
        for number, line in enumerate(lines[start : start + PORTION], start + 1):
            try:
                action = parse_instruction(line)
            except BadInstruction as error:
                raise BadInstruction(f"{path}:{number}: {error}" if path else str(error)) from None
            if action is not None:
                found[action] = None
        if len(found) > most:
            why = f"more than {most} instructions (routing.max_alias_targets)"
            raise BadInstruction(f"{path}: {why}" if path else why)
        yield


def instruction_line(action: Instruction) -> str:
    """The line that ``parse_instruction`` reads as ``action``."""
    match action:
        case ToForward(address):
            return f"&{address.to_mailbox()}"
        case ToProgram(command):
            return f"|{command}"
        case ToMaildir(path) | ToMbox(path):
            return path


def resolve_path(home: str, path: str) -> str:
    """``path`` as an absolute path without a trailing slash; a relative one starts at ``home``."""
    return os.path.normpath(os.path.join(home, path))


def _is_command(text: str) -> bool:
    return text.startswith("|") and len(text.encode("utf-8", "surrogateescape")) <= MAX_COMMAND


def _program(text: str) -> ToProgram:
    command = text[1:].strip()
    if not command:
        raise BadInstruction("an instruction has | and no command")
    return ToProgram(command)


def _forward(text: str) -> ToForward:
    mailbox = text.removeprefix("&").strip()
    mailbox = mailbox.removeprefix("<").removesuffix(">")
    try:
        return ToForward(_address(mailbox))
    except AddressSyntaxError as error:
        raise BadInstruction(f"the instruction {text!r} forwards to no address: {error}") from None


def _address(mailbox: str) -> Address:
    try:
        return Address.parse(mailbox)
    except AddressSyntaxError:
        local, _, domain = mailbox.rpartition("@")
        if not (domain and _DOTS_ANYWHERE.fullmatch(local)):
            raise
        return Address.parse(join_mailbox(local, domain))

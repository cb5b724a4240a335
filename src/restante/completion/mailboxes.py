"""Reads the addresses out of a header field (RFC 5322 §3.4, and what is met in its §4.4).

The parser is strict about what an address is and lenient about what stands around it: comments,
folds, groups, routes, empty places in a list and whatever makes a name are passed over, and a ``;``
parts addresses as a comma does. Addresses without a domain are understood, as people and programs
on a host write them. One pass, no recursion: the time is linear in the text, and nothing is kept
but the mailboxes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from itertools import pairwise
from typing import NamedTuple

_ATOM, _QUOTED, _LITERAL, _END = "atom", "quoted", "literal", "end"
_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
    | (?P<quoted>"(?:[^"\\]|\\.)*")
    | (?P<literal>\[(?:[^\[\]\\]|\\.)*\])
    | (?P<atom>[^\x00-\x20()<>\[\]:;@\\,."\x7f]+)
    | (?P<special>[<>:;@,.])""",
    re.DOTALL | re.VERBOSE,
)
_COMMENT_PIECE = re.compile(r"[^()\\]+|\\.|[()]", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_FOLD = re.compile(r"\r?\n")
_SHOWN = 20
"""Characters of the text that a complaint repeats."""


class MailboxSyntaxError(ValueError):
    """The text is no list of addresses; the message says where it ceases to be one."""


class Mailbox(NamedTuple):
    """An address in a field, and where its domain stands in the text."""

    local: str
    """Unquoted, without comments and folds."""
    domain: str
    """Empty if there is none."""
    domain_start: int
    end: int
    """``text[domain_start:end]`` is the domain with whatever stands inside of it; nothing, where
    there is no domain: then an ``@`` and a domain may be put there."""


class _Token(NamedTuple):
    kind: str
    """``atom``, ``quoted``, ``literal``, ``end``, or a special character itself."""
    text: str
    start: int
    end: int


def parse_mailboxes(text: str) -> list[Mailbox]:
    """Every mailbox in an address list, those in groups among them; raises MailboxSyntaxError."""
    return list(_Parser(text).addresses())


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._token = next(self._tokens)
        self._in_group = False

    def addresses(self) -> Iterator[Mailbox]:
        while self._token.kind != _END:
            if self._token.kind in {",", ";"}:
                if self._next().kind == ";":
                    self._in_group = False
            else:
                yield from self._address()

    def _address(self) -> Iterator[Mailbox]:
        """One mailbox, or the beginning of a group, up to the comma or what else follows it."""
        run = self._run()
        kind = self._token.kind
        if kind == "<":
            yield from self._angle_address()
        elif kind == ":" and _is_phrase(run) and not self._in_group:
            self._next()
            self._in_group = True
            return
        else:
            yield self._addr_spec(run)
        if self._token.kind not in {",", ";", _END}:
            raise self._unexpected()

    def _run(self) -> list[_Token]:
        """What the name before an angle is made of, or an address: which, shows what follows."""
        run = []
        while self._token.kind in {_ATOM, _QUOTED, _LITERAL, ".", "@"}:
            run.append(self._next())
        return run

    def _angle_address(self) -> Iterator[Mailbox]:
        self._next()
        self._skip_route()
        run = self._run()
        if run:
            yield self._addr_spec(run)
        if self._token.kind != ">":
            raise self._unexpected()
        self._next()

    def _skip_route(self) -> None:
        """``@a,@b:`` in front of an address is obsolete and means nothing (RFC 5322 §4.4)."""
        if self._token.kind != "@":
            return
        while self._token.kind in {"@", ",", ".", _ATOM, _LITERAL}:
            self._next()
        if self._token.kind != ":":
            raise self._unexpected()
        self._next()

    def _addr_spec(self, run: list[_Token]) -> Mailbox:
        at = next((place for place, token in enumerate(run) if token.kind == "@"), len(run))
        words, labels = run[:at], run[at + 1 :]
        self._check_dotted(words or run[:1], {_ATOM, _QUOTED, "."})
        local = "".join(_unquoted(word) for word in words)
        if not local:
            raise _no_address(self._text, run[0].start)
        if at == len(run):
            end = run[-1].end
            return Mailbox(local, "", end, end)
        return self._with_domain(local, labels)

    def _with_domain(self, local: str, labels: list[_Token]) -> Mailbox:
        if [label.kind for label in labels] != [_LITERAL]:
            self._check_dotted(labels, {_ATOM, "."})
        domain = "".join(_bare(label.text) for label in labels)
        return Mailbox(local, domain, labels[0].start, labels[-1].end)

    def _check_dotted(self, words: list[_Token], kinds: Container[str]) -> None:
        """Words side by side are a name; a local part or a domain has dots between its words."""
        if not words:
            raise self._unexpected()
        for word in words:
            if word.kind not in kinds:
                raise _no_address(self._text, word.start)
        dots = [word.kind == "." for word in words]
        if all(dots) or any(not left and not right for left, right in pairwise(dots)):
            raise _no_address(self._text, words[0].start)

    def _next(self) -> _Token:
        taken = self._token
        self._token = next(self._tokens)
        return taken

    def _unexpected(self) -> MailboxSyntaxError:
        if self._token.kind == _END:
            return MailboxSyntaxError("it ends within an address")
        return _no_address(self._text, self._token.start)


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens, without blanks and comments; the last one is an ``end``, for ever."""
    position = 0
    while position < len(text):
        if text[position] == "(":
            position = _end_of_comment(text, position)
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise _no_address(text, position)
        position = match.end()
        kind = str(match.lastgroup)
        if kind != "blank":
            octets = match.group()
            yield _Token(octets if kind == "special" else kind, octets, match.start(), position)
    while True:
        yield _Token(_END, "", position, position)


def _end_of_comment(text: str, start: int) -> int:
    """Comments nest (RFC 5322 §3.2.2)."""
    depth = 0
    position = start
    while piece := _COMMENT_PIECE.match(text, position):
        position = piece.end()
        depth += {"(": 1, ")": -1}.get(piece.group(), 0)
        if depth == 0:
            return position
    raise MailboxSyntaxError(f"a comment does not end: {_shown(text, start)}")


def _is_phrase(run: list[_Token]) -> bool:
    """Whether these can name a group, and are no address (RFC 5322 §3.2.5)."""
    return bool(run) and all(token.kind in {_ATOM, _QUOTED, "."} for token in run)


def _unquoted(word: _Token) -> str:
    return _QUOTED_PAIR.sub(r"\1", _bare(word.text[1:-1])) if word.kind == _QUOTED else word.text


def _bare(text: str) -> str:
    return _FOLD.sub("", text)


def _no_address(text: str, position: int) -> MailboxSyntaxError:
    return MailboxSyntaxError(f"this is no address: {_shown(text, position)}")


def _shown(text: str, position: int) -> str:
    """As Python writes it: hostile text must not move a terminal's cursor."""
    end = position + _SHOWN
    return ascii(text[position:end].strip()) + ("..." if len(text) > end else "")

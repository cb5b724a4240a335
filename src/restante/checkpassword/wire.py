"""What the program and the server say to each other: a question, an answer, parts that end in NUL.

::

    check   login password peer     may this person read mail?
    find    login                   whose is this login? (Dovecot's user look-up)

    yes     account uid gid home    the login is good; the rights and the home of its account
    no                              it is not
    later                           it cannot be known now

Text is UTF-8, and other octets are kept (surrogateescape). The program ends its question by
shutting down its side of the connection.
"""

from __future__ import annotations

import os
from typing import NamedTuple

MAX_CREDENTIALS = 512
"""Octets of what is read on descriptor 3, by the public interface."""
MAX_QUESTION = MAX_CREDENTIALS + 128
"""Octets of a question, which has a verb and the client's address too."""
MAX_ANSWER = 8192
"""Octets of an answer: an account's name and its home are paths at the longest."""
MAX_PEER = 64
"""Characters of a client's address."""
CHECK, FIND = "check", "find"
YES, NO, LATER = "yes", "no", "later"


class BadMessage(ValueError):
    """What came is no question or no answer; the text says why."""


class Question(NamedTuple):
    """What is asked about a login."""

    verb: str
    """CHECK or FIND."""
    login: str
    password: str = ""
    peer: str = ""
    """The client's address; empty if it is not known."""

    def __repr__(self) -> str:
        """Without the password: a trace may print this."""
        return f"Question({self.verb!r}, {self.login!r}, {self.peer!r})"


class Person(NamedTuple):
    """Whose a login is."""

    name: str
    uid: int
    gid: int
    home: str


class Answer(NamedTuple):
    """What is known of a login."""

    verb: str
    """YES, NO or LATER."""
    person: Person | None = None
    """With YES."""


def socket_path(directory: str) -> str:
    """Where the server of an instance listens."""
    return os.path.join(directory, "run", "checkpassword")


def encode_question(question: Question) -> bytes:
    """As it goes through the socket; no part may hold a NUL."""
    return _encode(question)


def decode_question(octets: bytes) -> Question:
    """The reverse; raises BadMessage."""
    parts = _decode(octets, MAX_QUESTION)
    if len(parts) != len(Question._fields) or parts[0] not in (CHECK, FIND):
        raise BadMessage("no question")
    return Question(*parts)


def encode_answer(answer: Answer) -> bytes:
    """As it goes through the socket."""
    person = answer.person
    if person is None:
        return _encode([answer.verb])
    return _encode([answer.verb, person.name, str(person.uid), str(person.gid), person.home])


def decode_answer(octets: bytes) -> Answer:
    """The reverse; raises BadMessage."""
    parts = _decode(octets, MAX_ANSWER)
    match parts:
        case ["yes", name, uid, gid, home] if _is_id(uid) and _is_id(gid):
            return Answer(YES, Person(name, int(uid), int(gid), home))
        case ["no" | "later" as verb]:
            return Answer(verb)
        case _:
            raise BadMessage("no answer")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _encode(parts: list[str] | tuple[str, ...]) -> bytes:
    return "".join(part + "\0" for part in parts).encode("utf-8", "surrogateescape")


def _decode(octets: bytes, most: int) -> list[str]:
    if len(octets) > most or not octets.endswith(b"\0"):
        raise BadMessage("too long, or without an end")
    return octets[:-1].decode("utf-8", "surrogateescape").split("\0")

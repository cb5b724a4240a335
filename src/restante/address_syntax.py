"""The grammar of mail addresses (RFC 5321 §4.1.2, RFC 6531 §3.3): text to parts, and back.

Apart from ``address``, and importing nothing but ``re``, because the sendmail program, which
starts anew for every message, needs the grammar and nothing else.
"""

from __future__ import annotations

import re

MAX_LOCAL_PART = 128
"""Octets in a local part: more than the 64 that RFC 5321 §4.5.3.1.1 demands, as it asks for where
possible. The sender that a list has for one of its members holds that member's address."""
MAX_DOMAIN = 255
"""Octets in a domain (RFC 5321 §4.5.3.1.2)."""
MAX_LABEL = 63
"""Characters in one label of a domain name (RFC 1035 §2.3.4). A U-label may have more octets: the
A-label is bounded, which has one at least for each character (RFC 5890 §4.2)."""
VERP = "-@[]"
"""The end of a sender that is made anew for each recipient: a variable envelope return path
(qmail-send(8))."""
DOUBLE_BOUNCE = "#@[]"
"""qmail's sender of reports about reports, which is no mailbox: here it is the null one, of whose
mail nobody is told either."""

# What is beyond ASCII is legal everywhere (RFC 6531 §3.3): the classes name what is not, which
# compiles in a hundredth of the time.
_ATEXT = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]'
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_QUOTED_STRING = re.compile(r'"(?:[^\x00-\x1f"\\\x7f]|\\[ -~])*"')
_QUOTED_PAIR = re.compile(r"\\(.)")
_TO_BE_QUOTED = re.compile(r'(["\\])')
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-\^`{-\x7f]"
_LETTER_DIGIT_HYPHEN = r"[^\x00-,./:-@\[-\^`{-\x7f]"
_LABEL = re.compile(rf"{_LETTER_OR_DIGIT}(?:{_LETTER_DIGIT_HYPHEN}*{_LETTER_OR_DIGIT})?")
# Without "@", although dcontent has it: the last one in a stored address must part it.
_LITERAL = re.compile(r"\[[!-?A-Z^-~]+\]")


class AddressSyntaxError(ValueError):
    """The text is no address; the message says which part is wrong."""


def split_mailbox(text: str) -> tuple[str, str]:
    """Local part, unquoted, and domain of a ``Mailbox`` or a bare local part (no domain then).

    Raises AddressSyntaxError. The domain is as it stands in ``text``. A bare local part holds
    no ``@``: unquoted and stored, it would be an address in the domain behind it, and a way to
    have mail for that domain relayed.
    """
    local, domain = _split(text)
    if len(local.encode()) > MAX_LOCAL_PART:
        raise AddressSyntaxError(f"the local part is longer than {MAX_LOCAL_PART} octets")
    if domain is None:
        if "@" in local:
            raise AddressSyntaxError("a local part that holds an @ needs a domain")
        return local, ""
    check_domain_syntax(domain)
    return local, domain


def join_mailbox(local: str, domain: str) -> str:
    """The parts as SMTP and header fields write them, the local part quoted if it must be."""
    if not _DOT_STRING.fullmatch(local):
        local = '"' + _TO_BE_QUOTED.sub(r"\\\1", local) + '"'
    return f"{local}@{domain}" if domain else local


def check_domain_syntax(domain: str) -> None:
    """Raise AddressSyntaxError unless ``domain`` can be a mail domain."""
    if not domain:
        raise AddressSyntaxError("the domain is empty")
    if not domain.isprintable():  # octets that are no UTF-8 are not, and cannot be encoded
        raise AddressSyntaxError("the domain holds a character that is not printable")
    if len(domain.encode()) > MAX_DOMAIN:
        raise AddressSyntaxError(f"the domain is longer than {MAX_DOMAIN} octets")
    if domain.startswith("["):
        if not _LITERAL.fullmatch(domain):
            raise AddressSyntaxError("the address literal is malformed")
        return
    for label in domain.split("."):
        if not _LABEL.fullmatch(label):
            raise AddressSyntaxError("the domain is malformed")
        if len(label) > MAX_LABEL:
            raise AddressSyntaxError(f"a label of the domain is longer than {MAX_LABEL} characters")


def _split(text: str) -> tuple[str, str | None]:
    if not text:
        raise AddressSyntaxError("the address is empty")
    if not text.isprintable():
        raise AddressSyntaxError("the address holds a character that is not printable")
    if text.startswith('"'):
        return _split_quoted(text)
    local, at, domain = text.rpartition("@")
    if not at:
        local, domain = domain, ""
    if not _DOT_STRING.fullmatch(local):
        raise AddressSyntaxError("the local part is malformed")
    return local, domain if at else None


def _split_quoted(text: str) -> tuple[str, str | None]:
    match = _QUOTED_STRING.match(text)
    if match is None:
        raise AddressSyntaxError("the quoted local part is malformed")
    local = _QUOTED_PAIR.sub(r"\1", match.group()[1:-1])
    if not local:
        raise AddressSyntaxError("the local part is empty")
    rest = text[match.end() :]
    if rest and not rest.startswith("@"):
        raise AddressSyntaxError("something other than @ follows the quoted local part")
    return local, rest[1:] if rest else None

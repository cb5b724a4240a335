"""What the author's side of a mail system does to a header: completes it, and reads whom it names.

Pure functions on header octets with LF line ends (RFC 5322; RFC 6409 §8). Imports nothing that
is slow to load, as the sendmail program starts anew for every message.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from restante.address_syntax import join_mailbox
from restante.completion.fields import Field, split_header
from restante.completion.mailboxes import Mailbox, MailboxSyntaxError, parse_mailboxes
from restante.labels import name_in_ascii

_DAYS = "MonTueWedThuFriSatSun"
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"

_DESTINATIONS = frozenset((b"to", b"cc", b"bcc"))
_RESENT_DESTINATIONS = frozenset((b"resent-to", b"resent-cc", b"resent-bcc"))
_ADDRESSES = frozenset(
    (
        *(b"from", b"sender", b"reply-to", *_DESTINATIONS),
        *(b"resent-from", b"resent-sender", b"resent-reply-to", *_RESENT_DESTINATIONS),
        *(b"mail-followup-to", b"mail-reply-to", b"errors-to", b"return-receipt-to"),
        b"disposition-notification-to",
    )
)
"""Fields that hold addresses."""
_NEVER_SENT = frozenset((b"bcc", b"resent-bcc", b"return-path", b"content-length"))
"""Fields that a message loses when it is sent: blind copies stay blind (RFC 5322 §3.6.3),
Return-Path is final delivery's to write (RFC 5321 §4.4), and a length would be wrong."""
NO_DESTINATION = b"To: undisclosed-recipients:;\n"
"""For a message that names nobody (RFC 5322 §3.6.3 allows such a group)."""


class HeaderError(ValueError):
    """An address field cannot be understood; the text names it and says where."""


class Author(NamedTuple):
    """Whose message it is where the message does not say."""

    local: str
    domain: str
    name: str = ""
    """For people; not encoded yet."""


class Hosts(NamedTuple):
    """What makes short addresses whole (qmail-inject(8))."""

    defaulthost: str
    """For addresses without a host."""
    defaultdomain: str
    """Appended to hosts without a dot."""
    plusdomain: str
    """Appended to hosts that end in ``+``, in its place."""

    def whole(self, domain: str) -> str:
        """The domain that ``domain`` stands for; ``localhost`` is this host, whatever its name."""
        if not domain or domain.lower() == "localhost":
            domain = self.defaulthost
        if domain.startswith("["):
            return domain
        if domain.endswith("+"):
            return f"{domain[:-1]}.{self.plusdomain}"
        return domain if "." in domain else f"{domain}.{self.defaultdomain}"


def missing_fields(fields: Sequence[Field], author: Author, at: float, message_id: str) -> bytes:
    """The fields of RFC 5322 §3.6 that a message lacks, to be put in front of its own.

    Date, From and Message-ID; or their Resent- forms where the message has any Resent- field.
    ``at`` is in seconds since the epoch, ``message_id`` without its angle brackets.
    """
    there = {field.name for field in fields}
    prefix = "Resent-" if is_resent(fields) else ""
    values = {
        "Date": format_date(at),
        "From": format_mailbox(author),
        "Message-ID": f"<{message_id}>",
    }
    lines = [
        f"{prefix}{name}: {value}\n"
        for name, value in values.items()
        if f"{prefix}{name}".lower().encode() not in there
    ]
    return "".join(lines).encode()


def is_resent(fields: Sequence[Field]) -> bool:
    """Whether a reader sends on what somebody else wrote (RFC 5322 §3.6.6)."""
    return any(field.name.startswith(b"resent-") for field in fields)


def names_somebody(fields: Sequence[Field]) -> bool:
    """Whether any field says to whom the message goes, blind copies apart."""
    seen = (_DESTINATIONS | _RESENT_DESTINATIONS) - _NEVER_SENT
    return any(field.name in seen for field in fields)


def destinations(fields: Sequence[Field]) -> list[Mailbox]:
    """To whom the fields address the message: To, Cc and Bcc, or those of a message sent on.

    Raises HeaderError.
    """
    wanted = _RESENT_DESTINATIONS if is_resent(fields) else _DESTINATIONS
    return [mailbox for field in fields if field.name in wanted for mailbox in mailboxes_of(field)]


def mailboxes_of(field: Field) -> list[Mailbox]:
    """Whom an address field names; raises HeaderError."""
    try:
        return parse_mailboxes(field.text)
    except MailboxSyntaxError as error:
        name = field.name.decode("ascii").title()
        raise HeaderError(f"the {name} field cannot be understood: {error}") from None


def without_private(fields: Sequence[Field]) -> list[Field]:
    """The fields that may be sent: no Bcc, and nothing that is others' to write."""
    return [field for field in fields if field.name not in _NEVER_SENT]


def made_whole(field: Field, hosts: Hosts) -> Field:
    """The field with every address in it made whole, and otherwise as it is.

    A field that cannot be understood stays as it is.
    """
    if field.name not in _ADDRESSES:
        return field
    try:
        mailboxes = parse_mailboxes(field.text)
    except MailboxSyntaxError:
        return field
    text = _rewritten(field.text, mailboxes, hosts)
    return field if text == field.text else field.with_text(text)


def _rewritten(text: str, mailboxes: Sequence[Mailbox], hosts: Hosts) -> str:
    pieces = []
    done = 0
    for mailbox in mailboxes:
        domain = hosts.whole(mailbox.domain)
        if domain != mailbox.domain:
            pieces += [text[done : mailbox.domain_start], "" if mailbox.domain else "@", domain]
            done = mailbox.end
    return "".join([*pieces, text[done:]])


def format_date(at: float) -> str:
    """A date-time of RFC 5322 §3.3 in the local time zone; at in seconds since the epoch."""
    local = time.localtime(at)
    minutes = local.tm_gmtoff // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
    return (
        f"{_name(_DAYS, local.tm_wday)}, {local.tm_mday:02} {_name(_MONTHS, local.tm_mon - 1)}"
        f" {local.tm_year} {local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02} {zone}"
    )


def _name(names: str, number: int) -> str:
    """English in any locale, which strftime is not."""
    return names[3 * number : 3 * number + 3]


def format_mailbox(author: Author) -> str:
    """``Name <local@domain>``, in ASCII but for a local part beyond it."""
    address = name_in_ascii(join_mailbox(author.local, author.domain))
    name = "".join(each for each in author.name if each.isprintable()).strip()
    return f"{_display_name(name)} <{address}>" if name else address


def _display_name(name: str) -> str:
    if not name.isascii():
        return _encoded_words(name)
    if all(each.isalnum() or each in " !#$%&'*+-/=?^_`{|}~" for each in name) and "=?" not in name:
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


_WORD_OCTETS = 45
"""Octets of text in one encoded-word: 60 in base64, and 72 of the 75 that it may have in all."""


def _encoded_words(name: str) -> str:
    """RFC 2047 §§ 2, 5: no character is parted, no word too long."""
    from binascii import b2a_base64  # few names need it

    words: list[bytes] = [b""]
    for character in name:
        octets = character.encode("utf-8", "replace")
        if len(words[-1]) + len(octets) > _WORD_OCTETS:
            words.append(b"")
        words[-1] += octets
    encoded = (b2a_base64(word, newline=False).decode() for word in words)
    return "\n ".join(f"=?utf-8?b?{word}?=" for word in encoded)


__all__ = [
    "NO_DESTINATION",
    "Author",
    "Field",
    "HeaderError",
    "Hosts",
    "MailboxSyntaxError",
    "destinations",
    "format_date",
    "format_mailbox",
    "made_whole",
    "missing_fields",
    "names_somebody",
    "parse_mailboxes",
    "split_header",
    "without_private",
]

"""What an enhanced status code (RFC 3463) means to somebody who wrote a letter."""

from __future__ import annotations

from collections.abc import Mapping

from restante.status import Peer

_REFUSED_AS_UNWANTED = (
    "The receiving system refused the message, often because it takes it, or the system that "
    "sends it, for a source of unwanted mail."
)
_NOT_SECURE = "No connection to the receiving system was as secure as is required."
_NO_LOGIN = "The receiving system did not accept the login of the system that sends the message."
_NO_CONNECTION = "The receiving system could not be reached, or stopped answering."
_MISDIRECTED = "Mail for this address goes round in circles; its mail system is set up wrongly."

_BY_TOPIC: Mapping[str, str] = {
    "1.1": "There is no such mailbox. Please look for a mistake in the part before the @.",
    "1.2": "There is no such mail domain. Please look for a mistake in the part after the @.",
    "1.3": "This is not a well-formed address.",
    "1.4": "The address stands for more than one mailbox.",
    "1.6": "The mailbox has moved, and nobody knows where.",
    "1.7": "The receiving system does not take your own address for a valid one.",
    "1.8": "The receiving system does not accept mail from your address.",
    "1.10": "The domain of this address accepts no mail at all.",
    "2.1": "The mailbox exists, but accepts no mail.",
    "2.2": "The mailbox is full.",
    "2.3": "The message is larger than this mailbox accepts.",
    "3.1": "The receiving system has no room for more mail.",
    "3.4": "The message is larger than the receiving system accepts.",
    "4.1": _NO_CONNECTION,
    "4.2": _NO_CONNECTION,
    "4.3": "The name service did not say which system receives mail for this address.",
    "4.4": "It cannot be found out which system receives mail for this address.",
    "4.5": "The receiving system is too busy.",
    "4.6": _MISDIRECTED,
    "5.3": "The message has more recipients than the receiving system accepts at once.",
    "6.3": "The message holds characters that the receiving system does not accept.",
    "6.7": "The receiving system does not accept addresses with letters outside of English.",
    "7.4": (
        "One of the two mail systems lacks what the other requires, such as an encrypted "
        "connection or a login."
    ),
    "7.5": _NOT_SECURE,
    "7.8": _NO_LOGIN,
    "7.9": _NO_LOGIN,
    "7.10": "The receiving system demands an encrypted connection, and none could be made.",
    "7.11": _NOT_SECURE,
}

_BY_COMMAND: Mapping[str, str] = {"STARTTLS": _NOT_SECURE, "AUTH": _NO_LOGIN}
"""Answers to commands that come before any message, 454 4.7.0 to STARTTLS, say, judge none."""

_BY_SUBJECT: Mapping[str, str] = {
    "1": "The receiving system does not accept this address.",
    "2": "The mailbox does not accept the message.",
    "3": "The receiving system is not able to accept the message.",
    "4": "The way to the receiving system is interrupted.",
    "5": "The two mail systems did not understand one another.",
    "6": "The receiving system does not accept the content of the message.",
    "7": _REFUSED_AS_UNWANTED,
}

_UNKNOWN = "The receiving system did not accept the message."
_UNKNOWN_HERE = "This mail system does not deliver the message."


def reason(enhanced: str, peer: Peer | None) -> str:
    """One or two sentences about ``enhanced``, as in ``5.1.1``; empty or odd ones included.

    ``peer``: the host that had a part in it, if another one had.
    """
    topic = enhanced.partition(".")[2]
    subject = topic.partition(".")[0]
    answered = "" if peer is None or peer.silent else peer.command.partition(" ")[0]
    unknown = _UNKNOWN_HERE if peer is None else _UNKNOWN
    return _BY_TOPIC.get(topic) or _BY_COMMAND.get(answered) or _BY_SUBJECT.get(subject) or unknown

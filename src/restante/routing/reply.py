"""What an SMTP peer hears at RCPT for a decision; detail goes to the log, not to the peer."""

from __future__ import annotations

from restante.routing.decision import Decision, Misconfigured, NoSuchUser, Unknown
from restante.status import Reply

RECIPIENT_OK = Reply(250, "1.5", "recipient ok")
NO_SUCH_USER = Reply(550, "1.1", "no such user here")
RELAYING_DENIED = Reply(550, "7.1", "relaying denied")
CANNOT_KNOW = Reply(451, "3.0", "cannot look up the recipient now, try again later")
MISCONFIGURED = Reply(451, "3.5", "the recipient is not set up correctly, try again later")


def reply_to(decision: Decision, *, verify: bool) -> Reply:
    """The reply to a peer that may relay, or for a domain that decision 1 accepts.

    Without ``verify`` (receiver.verify_recipients), mail for nobody is taken, and returned.
    """
    match decision:
        case NoSuchUser():
            return NO_SUCH_USER if verify else RECIPIENT_OK
        case Unknown():
            return CANNOT_KNOW
        case Misconfigured():
            return MISCONFIGURED
    return RECIPIENT_OK


def reply_to_stranger(decision: Decision, *, accepted: bool, verify: bool) -> Reply:
    """The reply to anybody else; ``accepted`` is the answer of decision 1 for the domain."""
    return reply_to(decision, verify=verify) if accepted else RELAYING_DENIED

"""What the SMTP server core remembers of one mail transaction."""

from __future__ import annotations

from dataclasses import dataclass

from restante.protocol.smtp import replies
from restante.protocol.smtp.grammar import Refused
from restante.status import Reply


@dataclass(slots=True)
class Transaction:
    """What is known between MAIL and the end of the content."""

    smtputf8: bool = False
    accepted: int = 0
    refused: int = 0
    deferred: int = 0
    """Those of the refused to whom it may be sent later."""
    is_full: bool = False
    """That there are too many recipients was told already."""

    def count(self, reply: Reply) -> None:
        """A recipient was answered with ``reply``."""
        if reply.is_success:
            self.accepted += 1
        else:
            self.refused += 1
            self.deferred += reply.is_temporary

    def refuse_more(self) -> Reply:
        """The reply to one recipient too many; raises Refused with it for the first of them.

        It is no error (RFC 5321 §4.5.3.1.10), so nothing bounds how often it is given.
        """
        if not self.is_full:
            self.is_full = True
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        return replies.TOO_MANY_RECIPIENTS

    def check_recipients(self) -> None:
        """Raises Refused when there is nobody to send a content to."""
        if self.accepted == 0:
            raise Refused(self._no_recipients())

    def _no_recipients(self) -> Reply:
        """A client that pipelines may take this for the fate of all recipients."""
        if self.deferred:
            return replies.NONE_YET
        return replies.ALL_REFUSED if self.refused else replies.RCPT_FIRST

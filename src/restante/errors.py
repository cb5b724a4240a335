"""The two kinds of failure, and the errors an operator sees.

Temporary and permanent failures are different types, so that "the database
cannot be asked" can never be taken for "no such user". An exception of any
other type is a bug: it is logged with its trace and treated as temporary.
"""


class RestanteError(Exception):
    """Any failure that Restante foresees; its text is fit for the log, not for the peer."""


class TemporaryError(RestanteError):
    """It may work later: 4xx to an SMTP peer, a retry in the queue, exit 111."""


class CannotKnow(TemporaryError):
    """A look-up got no answer; it says nothing about whether the thing exists."""


class PermanentError(RestanteError):
    """It will not work, however often it is tried."""


class OperatorError(RestanteError):
    """Bad configuration, arguments or rows; the text says what, where and what to do."""


class ConfigurationError(OperatorError):
    """All that is wrong with the settings, found in one reading."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def reason_of(error: Exception) -> str:
    """What a sentence says behind what failed and where: an OSError without number and path."""
    reason = getattr(error, "strerror", None)
    return str(reason or error) or type(error).__name__

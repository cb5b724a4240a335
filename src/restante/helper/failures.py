"""The exceptions that a request may end in, to octets and back."""

from __future__ import annotations

from restante import maillog
from restante.directory import BadFile, NoHome
from restante.errors import CannotKnow, TemporaryError
from restante.helper.messages import MAX_TEXT
from restante.helper.wire import BadFrame, Reader, Writer
from restante.store import MaildropInUse, MaildropUnavailable, MessageGone

_KINDS: tuple[type[Exception], ...] = (
    TemporaryError,
    MaildropInUse,
    MaildropUnavailable,
    MessageGone,
    BadFile,
    CannotKnow,
    NoHome,
)
"""The number of each on the wire is its place here; the first stands for all others."""


def failure_of(error: Exception) -> bytes:
    """What the other end is told; a bug is logged, and is a temporary failure."""
    if isinstance(error, OSError):
        error = TemporaryError(str(error))
    elif not isinstance(error, TemporaryError | MessageGone):
        maillog.unplanned("helper", error)
        error = TemporaryError("an unplanned exception, see the log")
    out = Writer()
    out.small(_KINDS.index(type(error)) if type(error) in _KINDS else 0)
    out.cut(str(error), MAX_TEXT)
    return out.octets()


def read_failure(fields: Reader) -> Exception:
    """See ``failure_of``; raises BadFrame."""
    kind = fields.small()
    if kind >= len(_KINDS):
        raise BadFrame(f"a failure of kind {kind}")
    text = fields.told(MAX_TEXT)
    fields.end()
    return _KINDS[kind](text)

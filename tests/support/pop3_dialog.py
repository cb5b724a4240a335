"""POP3 dialogs as text files, and a driver that plays them against the core.

Each line of a file is one of

    # a comment
    MAIL UID CONTENT        a message of the maildrop; the content with Python's escapes
    ACCOUNT LOGIN PASSWORD  the login that is accepted
    REFUSE CODE TEXT        how every other login is refused
    GONE NUMBER             this message cannot be retrieved
    BREAKS NUMBER           this message fails when its first octets are sent
    READONLY                deletions fail
    STLS                    the server offers TLS
    TLS                     the handshake came before the session
    NEEDS TLS               no login without TLS
    C: LINE                 the client sends a line
    R: OCTETS               the client sends octets, with Python's escapes and no line end
    S: LINE                 the server sends a line
    Q: OCTETS               the server sends octets, with Python's escapes and no line end
    T:                      the TLS handshake, which the driver does after STLS
    DELETED NUMBER ...      what is deleted in the end
    CLOSED REASON           why the session ended
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restante.protocol.pop3.events import (
    Closed,
    Event,
    Login,
    Need,
    ResponseCode,
    Retrieve,
    StartTls,
    Update,
)
from restante.protocol.pop3.profile import Profile
from restante.protocol.pop3.server import Pop3Server

CHUNK = 7
"""Octets in the pieces in which the driver sends a message: line ends fall between them."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the maildrop."""

    uid: str
    content: bytes

    @property
    def wire_size(self) -> int:
        """Octets with CRLF line ends, the last line's included."""
        wire = self.content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        return len(wire) if wire.endswith(b"\n") or not wire else len(wire) + 2


@dataclass(frozen=True, slots=True)
class Columns:
    """Messages as the core takes them."""

    uids: list[bytes]
    sizes: list[int]


def columns(messages: Sequence[Message]) -> Columns:
    """What the core is told of messages."""
    return Columns(
        [message.uid.encode("ascii") for message in messages],
        [message.wire_size for message in messages],
    )


@dataclass(slots=True)
class Dialog:
    """A file: the world, what the client sends, and what must come of it."""

    messages: list[Message] = field(default_factory=list)
    account: tuple[str, str] = ("iain", "secret")
    refusal: tuple[ResponseCode, str] = (ResponseCode.AUTH, "login refused")
    gone: set[int] = field(default_factory=set)
    breaks: set[int] = field(default_factory=set)
    read_only: bool = False
    stls: bool = False
    tls: bool = False
    plaintext_logins: bool = True
    client: list[bytes] = field(default_factory=lambda: [b""])
    """What the client sends, parted where TLS begins."""
    server: bytes = b""
    deleted: tuple[int, ...] = ()
    closed: str = ""


@dataclass(slots=True)
class Outcome:
    """What came of a dialog."""

    server: bytes
    deleted: tuple[int, ...]
    closed: str
    stopped_early: int
    """How often the core said that it wants no more of a message."""


def parse(path: Path) -> Dialog:
    """Read a dialog; raises ValueError for a line that is none of the above."""
    dialog = Dialog()
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            _parse_line(dialog, line)
    return dialog


def _parse_line(dialog: Dialog, line: str) -> None:
    word, _, rest = line.partition(" ")
    if word not in _LINES:
        raise ValueError(f"not a line of a dialog: {line}")
    _LINES[word](dialog, rest)


def _client(dialog: Dialog, rest: str) -> None:
    dialog.client[-1] += rest.encode() + b"\r\n"


def _client_octets(dialog: Dialog, rest: str) -> None:
    dialog.client[-1] += _unescape(rest)


def _server(dialog: Dialog, rest: str) -> None:
    dialog.server += rest.encode() + b"\r\n"


def _server_octets(dialog: Dialog, rest: str) -> None:
    dialog.server += _unescape(rest)


def _mail(dialog: Dialog, rest: str) -> None:
    uid, _, content = rest.partition(" ")
    dialog.messages.append(Message(uid, _unescape(content)))


def _account(dialog: Dialog, rest: str) -> None:
    login, _, password = rest.partition(" ")
    dialog.account = (login, password)


def _refuse(dialog: Dialog, rest: str) -> None:
    code, _, text = rest.partition(" ")
    dialog.refusal = (ResponseCode(code), text)


def _gone(dialog: Dialog, rest: str) -> None:
    dialog.gone.add(int(rest))


def _breaks(dialog: Dialog, rest: str) -> None:
    dialog.breaks.add(int(rest))


def _read_only(dialog: Dialog, rest: str) -> None:
    dialog.read_only = True


def _stls(dialog: Dialog, rest: str) -> None:
    dialog.stls = True


def _tls(dialog: Dialog, rest: str) -> None:
    dialog.tls = True


def _needs_tls(dialog: Dialog, rest: str) -> None:
    dialog.plaintext_logins = False


def _handshake(dialog: Dialog, rest: str) -> None:
    dialog.client.append(b"")


def _deleted(dialog: Dialog, rest: str) -> None:
    dialog.deleted = tuple(int(number) for number in rest.split())


def _closed(dialog: Dialog, rest: str) -> None:
    dialog.closed = rest


_LINES: Mapping[str, Callable[[Dialog, str], None]] = {
    "C:": _client,
    "R:": _client_octets,
    "S:": _server,
    "Q:": _server_octets,
    "MAIL": _mail,
    "ACCOUNT": _account,
    "REFUSE": _refuse,
    "GONE": _gone,
    "BREAKS": _breaks,
    "READONLY": _read_only,
    "STLS": _stls,
    "TLS": _tls,
    "NEEDS": _needs_tls,
    "T:": _handshake,
    "DELETED": _deleted,
    "CLOSED": _closed,
}


def _unescape(text: str) -> bytes:
    return text.encode("utf-8").decode("unicode_escape").encode("latin-1")


def play(dialog: Dialog, pieces: Iterable[bytes]) -> Outcome:
    """Hold the session, giving the client's octets in these pieces, then the end of the stream."""
    profile = Profile(
        "pop.example.com",
        stls=dialog.stls,
        plaintext_logins=dialog.plaintext_logins,
    )
    core = Pop3Server(profile, tls=dialog.tls)
    outcome = Outcome(core.greet(), (), "", 0)
    supply = iter(pieces)
    while not outcome.closed:
        event = core.next_event()
        outcome.server += core.outgoing()
        if event is Need.DATA:
            _supply(core, supply)
        elif not isinstance(event, Need):
            _answer(dialog, core, event, outcome)
    return outcome


def _supply(core: Pop3Server, supply: Iterator[bytes]) -> None:
    piece = next(supply, None)
    if piece is None:
        core.receive_eof()
    else:
        core.receive(piece)


def _answer(dialog: Dialog, core: Pop3Server, event: Event, outcome: Outcome) -> None:
    match event:
        case StartTls():
            core.tls_started()
        case Login(login, password) if (login, password) == dialog.account:
            core.login_accepted(columns(dialog.messages))
        case Login():
            core.login_refused(*dialog.refusal)
        case Retrieve(index) if index + 1 in dialog.gone:
            core.message_unavailable("the message is gone")
        case Retrieve(index):
            _send(dialog, core, index, outcome)
        case Update(deleted) if dialog.read_only and deleted:
            core.updated(False, "some messages could not be deleted")
        case Update(deleted):
            outcome.deleted = tuple(index + 1 for index in deleted)
            core.updated(True)
        case Closed(reason):
            outcome.closed = str(reason)


def _send(dialog: Dialog, core: Pop3Server, index: int, outcome: Outcome) -> None:
    content = dialog.messages[index].content
    for start in range(0, len(content), CHUNK):
        if not core.send_message_chunk(content[start : start + CHUNK]):
            outcome.stopped_early += 1
            break
        if index + 1 in dialog.breaks:
            core.message_unavailable("the disk is broken")
            return
    core.end_message()

"""Golden dialogs of the SMTP client engine as text files.

A line is a mark, a space and its text; ``#`` begins a comment. What the engine must send
and tell after a stimulus (a block of S lines, an X, a D) stands behind it, in order::

    S: 250 2.1.0 Ok           the peer says this line and CRLF
    S= 250 x\\n250 y            the peer says exactly this, escapes as in Python
    S* 5000 ab                the peer says ``ab`` (escapes too) so many times
    X:                        the peer ends the stream
    D: send <a@a.example> size=9 <b@b.example> notify=NEVER    what the driver asks for
    D: content hello\\n         a block of content
    D: end | starttls | tls-started | auth PLAIN name password | quit | eof reason
    C: EHLO client.example    the client sends this line and CRLF
    C= .\\r\\n                  the client sends exactly this
    E: Ready PIPELINING       an event
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

from restante.address import NULL_REVERSE_PATH, Address
from restante.envelope import Notify, RecipientDsn
from restante.protocol.smtp.client import SmtpClient
from restante.protocol.smtp.client_events import (
    AuthRefused,
    ClientEvent,
    ClientWait,
    Closed,
    Extensions,
    OutgoingMessage,
    OutgoingRecipient,
    Ready,
    TlsRefused,
    TransactionDone,
)
from restante.status import Reply

NAME = "client.example"


@dataclass
class Turn:
    """A stimulus and what must follow it."""

    said: bytes = b""
    action: str = ""
    eof: bool = False
    sent: bytes = b""
    events: list[str] = field(default_factory=list)


def parse(path: Path) -> list[Turn]:
    """The turns of the dialog in the file at ``path``; raises ValueError on a line that is none."""
    turns: list[Turn] = []
    talking = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        mark, text = line[:2], line[3:]
        if mark[0] not in "SXDCE" or mark[1] not in ":=*":
            raise ValueError(f"no line of a dialog: {line}")
        if mark[0] in "XD" or (mark[0] == "S" and not talking):
            turns.append(Turn())
        talking = mark[0] == "S"
        _add(turns[-1], mark, text)
    return turns


def _add(turn: Turn, mark: str, text: str) -> None:
    match mark[0]:
        case "S":
            turn.said += _octets(mark, text)
        case "X":
            turn.eof = True
        case "D":
            turn.action = text
        case "C":
            turn.sent += _octets(mark, text)
        case "E":
            turn.events.append(text)


def _octets(mark: str, text: str) -> bytes:
    match mark[1]:
        case "=":
            return _unescape(text)
        case "*":
            count, _, unit = text.partition(" ")
            return _unescape(unit) * int(count)
    return text.encode() + b"\r\n"


def _unescape(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


Cut = Callable[[bytes], Iterator[bytes]]
"""How what the peer says in one turn is cut into blocks."""


def hold(turns: list[Turn], cut: Cut) -> None:
    """Hold the dialog with a client; an AssertionError says where they part."""
    client = SmtpClient(NAME)
    for turn in turns:
        heard = Turn(turn.said, turn.action, turn.eof)
        if turn.action:
            _act(client, turn.action)
        if turn.eof:
            client.receive_eof()
        for block in cut(turn.said) if turn.said else [b""]:
            client.receive(block)
            _listen(client, heard)
        assert heard == turn, f"expected {turn}\ngot      {heard}"


def _listen(client: SmtpClient, heard: Turn) -> None:
    while not any(event.startswith("Closed") for event in heard.events):
        event = client.next_event()
        heard.sent += client.outgoing()
        if isinstance(event, ClientWait):
            return
        heard.events += describe(event)


_WAITS = {
    "content": ClientWait.NEED_CONTENT,
    "end": ClientWait.NEED_CONTENT,
    "tls-started": ClientWait.NEED_HANDSHAKE,
}


def _act(client: SmtpClient, text: str) -> None:
    name, _, rest = text.partition(" ")
    if name != "eof":
        assert client.next_event() is _WAITS.get(name, ClientWait.NEED_ACTION), text
    match name:
        case "content":
            client.content(_unescape(rest))
        case "end":
            client.end_content()
        case "send":
            client.send(_message(rest.split()))
        case "starttls":
            client.start_tls()
        case "tls-started":
            client.tls_started()
        case "auth":
            client.authenticate(*rest.split())
        case "quit":
            client.quit()
        case "eof":
            client.receive_eof(rest)
        case _:
            raise ValueError(f"no action: {text}")


def _message(words: list[str]) -> OutgoingMessage:
    """``<sender>`` and its parameters, then each ``<recipient>`` with its own."""
    parts: list[tuple[str, dict[str, str]]] = []
    for word in words:
        if word.startswith("<"):
            parts.append((word.strip("<>"), {}))
        else:
            key, _, value = word.partition("=")
            parts[-1][1][key] = value
    (sender, given), *recipients = parts
    ret = given.get("ret", "")
    assert ret in {"", "FULL", "HDRS"}
    return OutgoingMessage(
        Address.from_stored(_text(sender)) if sender else NULL_REVERSE_PATH,
        tuple(
            OutgoingRecipient(Address.from_stored(_text(name)), _dsn(dsn))
            for name, dsn in recipients
        ),
        int(given.get("size", "100")),
        eight_bit="8bit" in given,
        smtputf8="utf8" in given,
        ret=ret,  # type: ignore[arg-type]
        envid=given.get("envid", ""),
    )


def _text(word: str) -> str:
    return word.replace("\\r", "\r").replace("\\n", "\n")


def _dsn(given: Mapping[str, str]) -> RecipientDsn:
    if "notify" not in given:
        return RecipientDsn(None, given.get("orcpt", ""))
    kinds = (Notify[name] for name in given["notify"].split(","))
    return RecipientDsn(reduce(Notify.__or__, kinds), given.get("orcpt", ""))


def describe(event: ClientEvent) -> list[str]:
    """``event`` as dialog files write it; TransactionDone has a line for each result."""
    match event:
        case Ready(extensions):
            return [" ".join(["Ready", *_words(extensions)])]
        case TransactionDone(results, dsn):
            lines = [
                f"Result {each.reply} | {each.command}{' | local' if each.local else ''}"
                for each in results
            ]
            return [*lines, "Done with DSN" if dsn else "Done"]
        case TlsRefused(reply) | AuthRefused(reply):
            return [f"{type(event).__name__} {reply}"]
        case Closed(reply, command, why):
            return [f"Closed {_maybe(reply)} | {command} | {why}"]
        case _:
            return [type(event).__name__]


def _maybe(reply: Reply | None) -> str:
    return "-" if reply is None else str(reply)


def _words(extensions: Extensions) -> Iterator[str]:
    if not extensions.extended:
        yield "HELO"
    flags = {
        "PIPELINING": extensions.pipelining,
        f"SIZE={extensions.size}": extensions.size is not None,
        "8BITMIME": extensions.eight_bit,
        "SMTPUTF8": extensions.smtputf8,
        "CHUNKING": extensions.chunking,
        "DSN": extensions.dsn,
        "STARTTLS": extensions.starttls,
        f"AUTH={','.join(sorted(extensions.auth))}": bool(extensions.auth),
    }
    yield from (word for word, given in flags.items() if given)

"""What is said of a message to a host, given what that host can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from restante.address import Address, ReversePath
from restante.envelope import Content, delivered_to_field
from restante.labels import name_in_ascii
from restante.protocol.smtp.client_events import Extensions, OutgoingMessage, OutgoingRecipient
from restante.relay import Parcel


@contextlib.contextmanager
def pieces(content: Content) -> Iterator[Iterator[bytes]]:
    """The content in pieces that are not empty; they block and raise OSError where it is a file.

    The file is closed at the end; where a thread still reads from it, it goes with the reading.
    """
    blocks = content.chunks()
    try:
        yield filter(None, blocks)
    finally:
        with contextlib.suppress(ValueError):
            blocks.close()


def bearing(parcel: Parcel, extensions: Extensions) -> Content:
    """The content with a Delivered-To field of each alias that it came by.

    So a copy that comes back here is known to be looping. Names beyond ASCII are left out for a
    host that takes none: it may take the message.
    """
    if not parcel.came_by:
        return parcel.content
    takes_any = parcel.envelope.smtputf8 and extensions.smtputf8
    fields = [
        delivered_to_field(alias)
        for alias in map(name_in_ascii, parcel.came_by)
        if takes_any or alias.isascii()
    ]
    return replace(parcel.content, trace=b"".join((*fields, parcel.content.trace)))


def outgoing(parcel: Parcel, extensions: Extensions) -> OutgoingMessage:
    """The message for a host; blocks and raises OSError where its content is a file.

    What the sender said of the content is checked where it would keep the mail from
    a host: many clients say BODY=8BITMIME and SMTPUTF8 of everything.
    """
    envelope, content = parcel.envelope, parcel.content
    return OutgoingMessage(
        _sender_in_ascii(envelope.reverse_path),
        tuple(OutgoingRecipient(_in_ascii(each.address), each.dsn) for each in parcel.recipients),
        content.size + content.lines,
        _is_eight_bit(content, said=envelope.eight_bit, offered=extensions.eight_bit),
        envelope.smtputf8 and (extensions.smtputf8 or _has_utf8_header(content)),
        envelope.ret,
        envelope.envid,
    )


def _is_eight_bit(content: Content, *, said: bool, offered: bool) -> bool:
    if said and offered:
        return True
    with pieces(content) as blocks:
        return not all(block.isascii() for block in blocks)


def _has_utf8_header(content: Content) -> bool:
    ends_in_line_feed = True
    with pieces(content) as blocks:
        for block in blocks:
            end = 0 if ends_in_line_feed and block.startswith(b"\n") else block.find(b"\n\n")
            if not block[: None if end < 0 else end].isascii():
                return True
            if end >= 0:
                return False
            ends_in_line_feed = block.endswith(b"\n")
    return False


def _in_ascii(address: Address) -> Address:
    return address if address.is_ascii else Address.from_stored(name_in_ascii(str(address)))


def _sender_in_ascii(path: ReversePath) -> ReversePath:
    return _in_ascii(path) if isinstance(path, Address) else path

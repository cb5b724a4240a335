"""One message, from the program that sends it to the drop directory."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from restante.address_syntax import join_mailbox
from restante.completion import (
    NO_DESTINATION,
    Author,
    Field,
    HeaderError,
    Hosts,
    destinations,
    made_whole,
    missing_fields,
    names_somebody,
    split_header,
    without_private,
)
from restante.drop import DropPaths
from restante.drop.deposit import Deposit, finish
from restante.drop.record import MAX_ENVELOPE, MAX_RECIPIENTS, Recipient, Record, encode
from restante.drop.site import Site
from restante.sendmail import NO_INSTANCE, NOT_NOW, Refusal
from restante.sendmail.author import REMOVED, addresses, author, checked, letters, reverse_path
from restante.sendmail.options import Options
from restante.sendmail.source import Source, body_text, header_text

_LACKING = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR})
"""What an error of the drop directory says that does not pass by itself, as a full disk does."""


class Home(NamedTuple):
    """Where messages are dropped, and what is known of the instance."""

    paths: DropPaths
    site: Site

    @property
    def hosts(self) -> Hosts:
        """What makes short addresses whole here."""
        return Hosts(self.site.defaulthost, self.site.defaultdomain, self.site.plusdomain)


class Letter:
    """A message while it is read: its header at once, its body when it is dropped."""

    def __init__(
        self,
        blocks: Iterator[bytes],
        home: Home,
        *,
        ends_with_dot: bool,
        without: Collection[bytes] = (),
    ) -> None:
        """Read the header, all fields but those ``without``; raises Refusal."""
        self._home = home
        self._source = Source(blocks, home.site, ends_with_dot=ends_with_dot)
        start = self._source.start()
        fields, end = split_header(start)
        check_header(sum(field.name == b"received" for field in fields), end, home.site)
        kept = [field for field in fields if field.name not in without]
        clean = [Field(field.name, header_text(field.raw)) for field in kept]
        self.fields = [made_whole(field, home.hosts) for field in clean]
        """Its header fields, every address made whole."""
        self._body = start[end:].removeprefix(b"\n")

    def drop(self, record: Record, who: Author) -> None:
        """Leave the completed message for the server, durably; raises Refusal, nothing left."""
        leave(self._home, [record], lambda: self._content(who))

    def _content(self, who: Author) -> Iterator[bytes]:
        header = self._header(who)
        check_header(0, len(header), self._home.site)
        yield header + b"\n" + body_text(self._body)
        for block in self._source.rest():
            yield body_text(block)

    def _header(self, who: Author) -> bytes:
        message_id = f"{time.time_ns() // 1000}.{os.urandom(8).hex()}@{self._home.site.me}"
        missing = missing_fields(self.fields, who, time.time(), message_id)
        nobody = b"" if names_somebody(self.fields) else NO_DESTINATION
        return missing + nobody + b"".join(field.raw for field in without_private(self.fields))


def leave(home: Home, records: Iterable[Record], content: Callable[[], Iterable[bytes]]) -> None:
    """Leave a message for the server, durably, with each of the envelopes: all or, with a Refusal,
    none, but for what the server takes between the first file's new name and a failure of the disk.
    ``content`` is called once for each.
    """
    try:
        with ExitStack() as undo:
            deposits = [_written(home, record, content(), undo) for record in records]
            if deposits:
                finish(home.paths, deposits)
            undo.pop_all()
    except OSError as error:
        status = NO_INSTANCE if error.errno in _LACKING else NOT_NOW
        where = home.paths.incoming
        text = f"the message cannot be left in {where}: {error.strerror}"
        raise Refusal(status, text) from None


def _written(home: Home, record: Record, content: Iterable[bytes], undo: ExitStack) -> Deposit:
    """A message that is to be finished; raises Refusal and OSError."""
    if len(encode(record)) > MAX_ENVELOPE:
        raise Refusal(os.EX_DATAERR, f"the envelope is larger than {MAX_ENVELOPE} octets")
    deposit = Deposit(home.paths, record)
    undo.callback(deposit.discard)
    for block in _within_databytes(content, home.site.databytes):
        deposit.write(block)
    return deposit


def _within_databytes(blocks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The blocks, as long as they are no more octets with CRLF line ends than is allowed."""
    size = 0
    for block in blocks:
        size += len(block) + block.count(b"\n")
        if most and size > most:
            raise Refusal(os.EX_DATAERR, f"the message is larger than {most} octets")
        yield block


def send(options: Options, environ: Mapping[str, str], blocks: Iterator[bytes], home: Home) -> None:
    """Drop the message that ``blocks`` hold, durably; raises Refusal, with nothing dropped."""
    given = _given_recipients(options, home.hosts)
    who = author(options, environ, home.hosts)
    sender = reverse_path(options, environ, home.hosts, who, time.time())
    asked = letters(environ)
    letter = Letter(
        blocks,
        home,
        ends_with_dot=options.ends_with_dot,
        without=[name for each, name in REMOVED.items() if each in asked],
    )
    recipients = _recipients(options, given, letter.fields, home.hosts)
    record = Record(sender, recipients, options.ret, options.envid)
    letter.drop(record, who)


def check_header(received: int, size: int, site: Site) -> None:
    """Raise Refusal for a header that the server would not take, as far as it was read.

    ``received``: how many Received fields it has; ``size``: its octets.
    """
    if size > site.max_header:
        raise Refusal(os.EX_DATAERR, f"the header is larger than {site.max_header} octets")
    if received > site.max_received:
        raise Refusal(os.EX_DATAERR, f"the message is looping: it has {received} Received fields")


def _given_recipients(options: Options, hosts: Hosts) -> list[tuple[str, str]]:
    """Those of the command line."""
    given = [
        address for text in options.recipients for address in addresses(text, hosts, os.EX_USAGE)
    ]
    if not given and not options.from_header:
        raise Refusal(os.EX_USAGE, "no recipients: name them, or let -t take them from the header")
    return given


def _recipients(
    options: Options, given: list[tuple[str, str]], fields: Sequence[Field], hosts: Hosts
) -> tuple[Recipient, ...]:
    """Everybody once, the command line's first."""
    named = list(given)
    if options.from_header:
        try:
            boxes = destinations(fields)
        except HeaderError as error:
            raise Refusal(os.EX_DATAERR, str(error)) from None
        named += [checked(box.local, hosts.whole(box.domain), os.EX_DATAERR) for box in boxes]
    if not named:
        raise Refusal(os.EX_DATAERR, "no recipients: the header names nobody")
    distinct = dict.fromkeys((local, domain.lower()) for local, domain in named)
    if len(distinct) > MAX_RECIPIENTS:
        raise Refusal(os.EX_DATAERR, f"more than {MAX_RECIPIENTS} recipients")
    return tuple(Recipient(join_mailbox(*pair), options.notify) for pair in distinct)

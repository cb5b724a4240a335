"""What a program is told of its message, in the variables of qmail-command(8).

Nothing of this process's own environment gets through. The values are the sender's and the
recipient's words: a command that uses them unquoted is at a stranger's mercy.
"""

from __future__ import annotations

from collections.abc import Iterator

from restante.address import NullReversePath
from restante.envelope import Envelope, delivered_to_field, return_path_field
from restante.mda import ProgramDelivery
from restante.mda.mboxrd import from_line

SHELL = "/bin/sh"


def environment(
    envelope: Envelope, program: ProgramDelivery, path: str, instance: str = ""
) -> dict[str, str]:
    """The whole environment of the program; ``path`` is PATH.

    ``instance``: where restante-sendmail is to leave what the program sends; empty: not said.
    """
    recipient = program.delivered_to[0]
    local, _, host = recipient.rpartition("@")
    sender = str(envelope.reverse_path)
    is_null = isinstance(envelope.reverse_path, NullReversePath)
    variables = {
        "PATH": path,
        "SHELL": SHELL,
        "HOME": program.account.home,
        "USER": program.user,
        "SENDER": sender,
        # A notification stays one, whoever forwards it: it must not be answered.
        "NEWSENDER": sender if is_null else program.new_sender or sender,
        "RECIPIENT": recipient,
        "LOCAL": local,
        "DTLINE": _line(delivered_to_field(recipient)),
        "RPLINE": _line(return_path_field(envelope.reverse_path)),
        "UFLINE": _text(from_line(envelope.reverse_path, envelope.received_at)),
        **_numbered("HOST", _shorter_hosts(host)),
        **_numbered("EXT", _later_extensions(program.extension)),
    }
    if instance:
        variables["RESTANTE_DIR"] = instance
    if program.default:
        variables["DEFAULT"] = program.default
    return variables


def _numbered(name: str, values: Iterator[str]) -> dict[str, str]:
    """``NAME``, ``NAME2`` and so on."""
    return {f"{name}{n if n > 1 else ''}": value for n, value in enumerate(values, start=1)}


def _shorter_hosts(host: str) -> Iterator[str]:
    """HOST, and three times without its last label; the first label always stays."""
    for _ in range(4):
        yield host
        host = host.rpartition(".")[0] or host


def _later_extensions(extension: str) -> Iterator[str]:
    """EXT, and three times what follows its first dash."""
    for _ in range(4):
        yield extension
        extension = extension.partition("-")[2]


def _line(field: bytes) -> str:
    """A header field as one line, whatever an address in it holds."""
    return _text(field[:-1]).replace("\n", "_") + "\n"


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")

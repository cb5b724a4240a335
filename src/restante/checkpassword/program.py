"""The public checkpassword interface, and Dovecot's additions to it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence

from restante.checkpassword import MISUSED, NO_SUCH_USER, REFUSED, TEMPORARY, Ending
from restante.checkpassword.client import ask
from restante.checkpassword.options import Options, parse
from restante.checkpassword.person import become, check, environment, hand_to_dovecot
from restante.checkpassword.wire import (
    CHECK,
    FIND,
    MAX_CREDENTIALS,
    MAX_PEER,
    NO,
    Answer,
    Person,
    Question,
)

DESCRIPTOR = 3
"""Where login, password and a timestamp are read, each ended by a NUL."""


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Decide the login and become the program; raises Ending if that is not to be."""
    options = parse(arguments, environ)
    login, password = read_credentials()
    is_dovecot = "ORIG_UID" in environ
    peer = environ.get("TCPREMOTEIP", "")[:MAX_PEER]
    # Only Dovecot asks for somebody without a password, and it gives no rights to what it runs.
    wants_user = is_dovecot and environ.get("AUTHORIZED") == "1"
    if wants_user:
        person = _person(_decided(options, Question(FIND, login)), NO_SUCH_USER)
    else:
        person = _person(_decided(options, Question(CHECK, login, password, peer)), REFUSED)
    if os.geteuid() == 0:
        check(person, options.directory, environ)
    if is_dovecot:
        _run(options.program, hand_to_dovecot(environ, person, wants_user=wants_user))
    become(person)
    _run(options.program, environment(environ, person))


def read_credentials() -> tuple[str, str]:
    """Login and password, with the descriptor closed; raises Ending."""
    octets = b""
    try:
        while len(octets) <= MAX_CREDENTIALS:
            more = os.read(DESCRIPTOR, MAX_CREDENTIALS + 1 - len(octets))
            if not more:
                break
            octets += more
        os.close(DESCRIPTOR)
    except OSError as error:
        status = MISUSED if error.errno == errno.EBADF else TEMPORARY
        raise Ending(status, f"descriptor {DESCRIPTOR}: {error.strerror}") from None
    if len(octets) > MAX_CREDENTIALS:
        raise Ending(REFUSED)  # nobody has so long a name or password
    login, ended, rest = octets.partition(b"\0")
    password, ended_too, _ = rest.partition(b"\0")
    if not (ended and ended_too):
        raise Ending(MISUSED, "descriptor 3 has no login and password that end in NUL")
    return _text(login), _text(password)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _decided(options: Options, question: Question) -> Answer:
    answer = ask(options.directory, question)
    if answer is not None:
        return answer
    from restante.checkpassword.direct import decide  # slow to load

    return decide(options.directory, options.control, question)


def _person(answer: Answer, refusal: int) -> Person:
    if answer.person is not None:
        return answer.person
    if answer.verb == NO:
        raise Ending(refusal)
    raise Ending(TEMPORARY, "it cannot be known now; the log says why")


def _run(program: Sequence[str], environ: Mapping[str, str]) -> None:
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python alone; it would be inherited
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvpe(program[0], list(program), environ)  # noqa: S606 - what it is there for
    except OSError as error:
        raise Ending(TEMPORARY, f"{program[0]} cannot be run: {error.strerror}") from None

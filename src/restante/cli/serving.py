"""The server in the foreground.

It is started without the parser of the command line, where that is possible: what is imported
stays in memory for as long as the server runs, and is read before it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from restante.cli.invocation import Invocation
from restante.cli.status import ServerUnavailable
from restante.config.load import CONTROL_VARIABLE, DIRECTORY_VARIABLE
from restante.config.tree import HostPort, Settings
from restante.errors import ConfigurationError, OperatorError

_OPTIONS = {"--dir": DIRECTORY_VARIABLE, "--control": CONTROL_VARIABLE}

OnReady = Callable[[Sequence[tuple[str, HostPort]]], None]


def plain_invocation(arguments: Sequence[str], environ: Mapping[str, str]) -> Invocation | None:
    """What a plain ``[--dir DIR] [--control DIR] serve`` is about; None for all other lines.

    Those, right or wrong, are for the parser.
    """
    *options, command = arguments or ("",)
    named = dict(zip(options[::2], options[1::2], strict=False))
    if command != "serve" or len(options) != 2 * len(named) or not named.keys() <= _OPTIONS.keys():
        return None
    if any(not value or value.startswith("-") for value in named.values()):
        return None
    directory, control = (
        named.get(option) or environ.get(variable, "") for option, variable in _OPTIONS.items()
    )
    asked = Invocation(directory, control)
    return asked if asked.place else None


def serve(settings: Settings, on_ready: OnReady | None = None) -> int:
    """Run the server until it is told to end; its exit status.

    Raises ConfigurationError and ServerUnavailable.
    """
    from restante.service.supervisor import serve as run_server

    _make_bare_instance(settings)
    try:
        return run_server(settings, on_ready)
    except ConfigurationError:
        raise
    except OperatorError as error:
        raise ServerUnavailable(str(error)) from error


def _make_bare_instance(settings: Settings) -> None:
    """The directory of an instance that is a control directory alone: no init has made it."""
    if settings.control is None or not settings.control.alone:
        return
    from restante.cli.creation import make_directory, passable_mode

    try:
        make_directory(settings.directory, passable_mode(), undo=[])
    except OSError as error:
        raise OperatorError(
            f"{settings.directory}, where the queue is to lie, cannot be made: {error.strerror}; "
            "name another place with --dir"
        ) from error

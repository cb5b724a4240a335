"""Files in which the server counts, opened by a command with the rights of their owner."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeVar

from restante.errors import OperatorError, reason_of

if TYPE_CHECKING:
    from restante.config.tree import Settings
    from restante.guessing.file import GuessFile
    from restante.usage.file import UsageFile

    File = TypeVar("File", GuessFile, UsageFile)


@contextmanager
def opened(
    settings: Settings, name: str, open_file: Callable[[str], File]
) -> Iterator[File | None]:
    """The file of that name, in a transaction; None if nothing was ever counted.

    Raises OperatorError where it cannot be seen whether anything was.
    """
    from restante.tally.owner import as_owner

    directory = settings.path(settings.queue.root)
    path = os.path.join(directory, name)
    with as_owner(directory):
        if not _is_there(path):
            yield None
            return
        file = open_file(path)
        with closing(file), file.transaction():
            yield file


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be read: {reason_of(error)}; run this as root or as the server's user"
        ) from error
    return True

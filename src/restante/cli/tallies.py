"""Files in which the server counts, opened by a command with the rights of their owner."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from restante.config.tree import Settings
    from restante.guessing.file import GuessFile
    from restante.usage.file import UsageFile

    File = TypeVar("File", GuessFile, UsageFile)


@contextmanager
def opened(
    settings: Settings, name: str, open_file: Callable[[str], File]
) -> Iterator[File | None]:
    """The file of that name, in a transaction; None if nothing was ever counted."""
    from restante.tally.owner import as_owner

    directory = settings.path(settings.queue.root)
    path = os.path.join(directory, name)
    with as_owner(directory):
        if not os.path.exists(path):
            yield None
            return
        file = open_file(path)
        with closing(file), file.transaction():
            yield file

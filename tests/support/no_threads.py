"""A process that may have no thread more, by the kernel's own limit; root's are not limited.

Or a pool that says so, wherever that is all that matters.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from restante.threads import ThreadPool

T = TypeVar("T")


@contextlib.contextmanager
def no_more_threads() -> Iterator[None]:
    """Within, no thread can be started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


class FewThreads(ThreadPool):
    """A pool that can start no thread for so many pieces of work, after others that it does."""

    def __init__(self, refusals: int, after: int = 0) -> None:
        super().__init__(2)
        self._coming = [*[True] * after, *[False] * refusals]

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if self._coming and not self._coming.pop(0):
            raise RuntimeError("can't start new thread")
        return super().submit(fn, *args, **kwargs)

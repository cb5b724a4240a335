"""Threads for work that must not be done once somebody was told that it was not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from restante.errors import TemporaryError

_P = ParamSpec("_P")
_T = TypeVar("_T")


class NoThread(TemporaryError):
    """No thread can be started (RLIMIT_NPROC, ``pids.max``): the work was not done."""


def begun(pool: ThreadPool | None, work: Callable[[], _T], /) -> asyncio.Future[_T]:
    """Blocking work in a thread of the pool, or of the loop's (None); raises NoThread."""
    try:
        return asyncio.get_running_loop().run_in_executor(pool, work)
    except RuntimeError as error:
        raise NoThread(str(error)) from error


async def in_thread(work: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do blocking work in a thread of the loop's; raises NoThread, and what the work raises."""
    return await begun(None, partial(work, *args, **kwargs))


async def finished(work: Callable[[], object]) -> None:
    """Blocking work that belongs to an orderly end: in a thread, or else here; raises what it does.

    What comes after it, the end of a user's command say, must not be left out for want of a thread.
    """
    try:
        await in_thread(work)
    except NoThread:
        work()


class ThreadPool(ThreadPoolExecutor):
    """A ThreadPoolExecutor that forgets what it could not begin.

    Python's own keeps work for which no thread could be started (RLIMIT_NPROC, ``pids.max``), and
    does it as soon as there is one, for nobody: a maildrop would stay locked, a command would run
    a second time.
    """

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """See ThreadPoolExecutor; after RuntimeError the work was not done, and never will be."""
        promise: Future[_T] = Future()
        try:
            super().submit(_fulfil, promise, lambda: fn(*args, **kwargs))
        except RuntimeError:
            if promise.cancel():
                raise
            # A thread that became free meanwhile has begun it.
        return promise


def _fulfil(promise: Future[_T], work: Callable[[], _T]) -> None:
    """Do the work, unless nobody wants it any more."""
    if not promise.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whoever waits deals with it
        promise.set_exception(error)
        del promise  # it holds the error, which holds this frame: a circle
    else:
        promise.set_result(result)

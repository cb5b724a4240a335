"""What programs on this host have dropped, and the one worker that picks it up."""

from __future__ import annotations

from collections.abc import Callable

from restante import maillog
from restante.config import Settings
from restante.drop import DropPaths
from restante.errors import OperatorError, TemporaryError
from restante.pickup.claims import settle
from restante.pickup.collector import Collector
from restante.pickup.letter import Qualified
from restante.pickup.place import prepare
from restante.queue.store import QueueStore
from restante.service.queues import spool_of


class Dropped:
    """Mail that waits for one worker's queue; the server serves all the same."""

    def __init__(
        self, settings: Settings, slot: int, new_id: Callable[[], str], qualified: Qualified
    ) -> None:
        """``slot`` is that of the worker's own queue."""
        self._settings = settings
        self._slot = slot
        self._new_id = new_id
        self._qualified = qualified
        self._collector: Collector | None = None
        self._why = ""

    def collect(self, store: QueueStore) -> bool:
        """Whether what is dropped is picked up from now on."""
        try:
            prepare(self._settings)
        except OperatorError as error:
            self._failed(str(error))
            return False
        spool = spool_of(self._settings, self._slot)
        self._collector = Collector(
            self._settings, self._slot, store, self._new_id, spool, self._qualified
        )
        self._collector.start()
        return True

    async def settle(self, store: QueueStore) -> bool:
        """Whether nothing that was claimed for the worker's own queue lies there any more."""
        try:
            await settle(self._settings, self._slot, store)
        except (TemporaryError, OSError) as error:
            self._failed(str(error))
            return False
        return True

    async def stop(self, patience: float) -> None:
        """Finish what was begun; what takes longer than ``patience`` seconds is picked up later."""
        if self._collector is not None:
            await self._collector.stop(patience)

    def _failed(self, why: str) -> None:
        """What is dropped waits; told once, not at each attempt."""
        if self._why != why:
            self._why = why
            maillog.drop_failed(DropPaths.of(self._settings.directory).root, why)

"""Connections that have nothing to do for a moment, kept for the next message of their lane."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from restante import maillog
from restante.relay.session import Session

MAX_IDLE = 500
"""Connections that are kept; beyond that, who has waited longest takes leave."""


class Pool:
    """Idle sessions by lane. Whoever takes one owns it, until it is given back."""

    def __init__(self, idle_timeout: float, messages_per_connection: int) -> None:
        """``idle_timeout`` in seconds; 0: nothing is kept."""
        self._idle_timeout = idle_timeout
        self._most_messages = messages_per_connection
        self._lanes: dict[str, list[Session]] = {}
        self._idle: OrderedDict[Session, tuple[str, asyncio.TimerHandle]] = OrderedDict()
        self._leaving: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, lane: str) -> Session | None:
        """A session in which a message can be sent now, the one used last."""
        sessions = self._lanes.get(lane, [])
        while sessions:
            session = sessions[-1]
            self._remove(session)
            if session.is_usable:
                return session
            self.dismiss(session)
        return None

    def give(self, lane: str, session: Session) -> None:
        """Keep a session for a while, or let it take leave."""
        spent = session.messages >= self._most_messages or not self._idle_timeout
        if spent or not session.is_usable:
            self.dismiss(session)
        else:
            timer = asyncio.get_running_loop().call_later(self._idle_timeout, self._expire, session)
            self._idle[session] = (lane, timer)
            self._lanes.setdefault(lane, []).append(session)
            if len(self._idle) > MAX_IDLE:
                self._expire(next(iter(self._idle)))

    def dismiss(self, session: Session) -> None:
        """Let a session take leave, while nobody waits for it."""
        task = asyncio.create_task(_take_leave(session))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self, patience: float) -> None:
        """Let all sessions take leave within ``patience`` seconds, and drop those that do not."""
        for session in list(self._idle):
            self._expire(session)
        if self._leaving:
            _, late = await asyncio.wait(self._leaving, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _expire(self, session: Session) -> None:
        self._remove(session)
        self.dismiss(session)

    def _remove(self, session: Session) -> None:
        lane, timer = self._idle.pop(session)
        timer.cancel()
        sessions = self._lanes[lane]
        sessions.remove(session)
        if not sessions:
            del self._lanes[lane]


async def _take_leave(session: Session) -> None:
    try:
        await session.quit()
    except asyncio.CancelledError:
        session.abort()
        raise
    except Exception as error:  # noqa: BLE001 - nobody waits for it: a bug must be heard of
        maillog.unplanned("relay connection", error)
        session.abort()

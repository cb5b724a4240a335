"""What is done with a message besides putting it into a Maildir: mboxes and programs.

With the rights of this process and no others: so it must be the account's own user. An
ordinary user's server uses it for itself, a helper for the user whom it serves.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from restante.config.tree import Programs
from restante.envelope import Content, Envelope, delivered_to_field
from restante.mda import MboxDelivery, ProgramDelivery, Ran
from restante.mda.answers import (
    CLOSING,
    MISCONFIGURED,
    NOT_NOW,
    AnyDelivery,
    Policy,
    failure,
    objection_to_programs,
    refusal,
    shown,
    shown_command,
)
from restante.mda.durable import Disk, LocalDisk
from restante.mda.ending import judge
from restante.mda.environment import environment
from restante.mda.home import open_home
from restante.mda.mbox import append_letter
from restante.mda.mboxrd import Letter
from restante.mda.program import run_command
from restante.processors import ROAMING, roam
from restante.status import Delivered, Outcome, PermanentFailure, TemporaryFailure
from restante.threads import NoThread, ThreadPool, begun, finished

MAX_PROGRAMS = 40
"""Commands that one process runs at the same time; the others wait."""
MAX_APPENDS = 8
"""Mboxes that one process appends to, or waits for the locks of, at the same time."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Appends and runs, in the caller's thread; never raises what the system can raise."""

    policy: Policy
    programs: Programs
    is_server: bool
    """This process has the server's uid: commands need programs.run_as_server_user."""
    disk: Disk
    stop: int
    """A descriptor; once it is readable, nothing is waited for any more."""

    def append(
        self,
        envelope: Envelope,
        content: Content,
        mbox: MboxDelivery,
        *,
        again: bool,
        asked_at: float,
    ) -> Outcome:
        """See MailboxWriter, and ``append_letter``."""
        refused = self._refusal(content, mbox)
        if refused is not None:
            return refused
        letter = Letter(envelope, content, mbox.delivered_to)
        mark = f"restante {self.policy.host}".encode()
        try:
            append_letter(
                self.disk,
                letter,
                mbox,
                again=again,
                asked_at=asked_at,
                mark=mark,
                pause=self._pause,
            )
        except Exception as error:  # noqa: BLE001 - failure logs what is a bug
            return failure(mbox.path, error)
        return Delivered(shown(mbox.path))

    def run(
        self,
        envelope: Envelope,
        content: Content,
        program: ProgramDelivery,
        gone: int | None = None,
    ) -> Ran:
        """See MailboxWriter. ``gone``: as ``stop``, for this command alone."""
        refused = self._refusal(content, program) or self._refusal_to_run(program)
        if refused is not None:
            return Ran(refused)
        try:
            stops = (self.stop,) if gone is None else (self.stop, gone)
            return self._run(envelope, content, program, stops)
        except Exception as error:  # noqa: BLE001 - failure logs what is a bug
            return Ran(failure(shown_command(program.command), error))

    def _run(
        self,
        envelope: Envelope,
        content: Content,
        program: ProgramDelivery,
        stops: Collection[int],
    ) -> Ran:
        variables = environment(envelope, program, self.programs.path, self.policy.instance)
        message = _come_by(program.delivered_to[1:], content)
        home = open_home(self.disk, program.account)
        try:
            ended = run_command(program.command, home, variables, message, self.programs, stops)
        finally:
            self.disk.close(home)
        return judge(program.command, ended)

    def _refusal(
        self, content: Content, delivery: AnyDelivery
    ) -> PermanentFailure | TemporaryFailure | None:
        if self._pause(0) is False:
            return TemporaryFailure(CLOSING)
        if os.geteuid() == 0:
            why = "only Maildirs are written by root; mboxes and commands are their owner's matter"
            return TemporaryFailure(MISCONFIGURED, why)
        return refusal(self.policy, content, delivery)

    def _refusal_to_run(self, program: ProgramDelivery) -> TemporaryFailure | None:
        account = program.account
        why = objection_to_programs(self.programs, account, os.geteuid())
        if not self.is_server or not why:
            return None
        detail = shown(f"{shown_command(program.command)}: {account.name}: {why}")
        return TemporaryFailure(MISCONFIGURED, detail)

    def _pause(self, seconds: float) -> bool:
        """Wait, unless all is to stop: False then."""
        stopping = select.poll()
        stopping.register(self.stop, select.POLLIN)
        return not stopping.poll(seconds * 1000)


def _come_by(aliases: Sequence[str], content: Content) -> Content:
    """The message as it came from those aliases: with their fields, as qmail-local(8) forwards it.

    So one that a program sends back to any of them is known to be looping.
    """
    fields = b"".join(map(delivered_to_field, aliases))
    return replace(content, trace=fields + content.trace) if fields else content


class Acts:
    """The two for an event loop: each call in a thread of its own, so many at the same time."""

    def __init__(self, policy: Policy, programs: Programs, *, is_server: bool) -> None:
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._actor = Actor(policy, programs, is_server, LocalDisk(), self._stop)
        self._programs = ThreadPool(MAX_PROGRAMS, ROAMING + "program", initializer=roam)
        self._appends = ThreadPool(MAX_APPENDS, "mbox")
        self._closed = False

    async def append(
        self, envelope: Envelope, content: Content, mbox: MboxDelivery, *, again: bool
    ) -> Outcome:
        """See MailboxWriter."""
        if self._closed:
            return TemporaryFailure(CLOSING)
        asked_at = time.monotonic()
        try:
            work = begun(
                self._appends,
                lambda: self._actor.append(envelope, content, mbox, again=again, asked_at=asked_at),
            )
        except NoThread as error:
            return TemporaryFailure(NOT_NOW, str(error))
        return await work

    async def run(
        self,
        envelope: Envelope,
        content: Content,
        program: ProgramDelivery,
        gone: int | None = None,
    ) -> Ran:
        """See ``Actor.run``."""
        if self._closed:
            return Ran(TemporaryFailure(CLOSING))
        try:
            work = begun(self._programs, lambda: self._actor.run(envelope, content, program, gone))
        except NoThread as error:
            return Ran(TemporaryFailure(NOT_NOW, str(error)))
        return await work

    async def close(self) -> None:
        """End commands that run, finish what is being appended; the rest is answered with later."""
        if self._closed:
            return
        self._closed = True
        os.eventfd_write(self._stop, 1)
        for pool in (self._programs, self._appends):
            await finished(pool.shutdown)
        os.close(self._stop)

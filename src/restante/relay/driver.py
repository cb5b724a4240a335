"""Hands messages to other hosts: over a connection that is there, else host by host."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from restante import maillog
from restante.config.live import Derived
from restante.config.nexthop import NextHop
from restante.config.tree import Settings
from restante.protocol.smtp.client_events import Result
from restante.queue import Attempted, BackOff
from restante.relay import Parcel
from restante.relay.health import Health
from restante.relay.here import Here
from restante.relay.lookup import Dns
from restante.relay.outcomes import (
    Streaks,
    back_off,
    is_for_another_host,
    is_one_too_many,
    outcome,
)
from restante.relay.pool import Pool
from restante.relay.resolver import Endpoint, Resolver
from restante.relay.routes import Destination, destination
from restante.relay.session import ContentLost, HostFailed, Session, Terms, open_session
from restante.relay.tls import SUBMISSIONS_PORT, TlsContexts, TlsPolicies
from restante.status import Outcome, Peer, PermanentFailure, Reply, TemporaryFailure

PATIENCE = 600.0
"""Seconds after which an attempt turns to no further host: silent ones must not keep others from
their turn. The next attempt puts those that were silent last, all but one (``Health.in_turn``)."""
LEAST_ADDRESSES = 2
"""Addresses that are tried however long the first one took (RFC 5321 §5.1): one that was silent
the last time at most, if there is another."""
NO_CONTENT = Reply(451, "3.0", "the message cannot be read here now")


def since_boot() -> float:
    """Seconds that count while the machine sleeps, too: time.monotonic stands still then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SmtpRelay:
    """A ``Relay`` by SMTP."""

    def __init__(
        self,
        settings: Settings,
        current: Callable[[], Settings],
        clock: Callable[[], float] = since_boot,
    ) -> None:
        """``current`` gives the settings in force: name and patience may change while it runs.

        ``clock`` gives seconds and never goes back.
        """
        relay = settings.relay
        here = Derived(current, _make_here)
        self._dns = Dns(relay.nameservers, clock)
        self._resolver = Resolver(self._dns, here, relay.port)
        self._clock = clock
        self._health = Health(clock)
        self._pool = Pool(relay.idle_timeout, relay.messages_per_connection)
        self._streaks = Streaks()
        self._credentials = {
            str(NextHop.parse(hop)): login for hop, login in relay.credentials.items()
        }
        self._policies = TlsPolicies(relay.tls_policy, self._credentials)
        self._contexts = TlsContexts()
        self._terms = Derived(current, self._make_terms)

    def _make_terms(self, settings: Settings) -> Terms:
        relay = settings.relay
        return Terms(settings.helohost, relay.timeoutconnect, relay.timeoutremote, self._contexts)

    async def send(self, lane: str, parcel: Parcel) -> Attempted:
        """Try once, at as many hosts of the lane as it takes; never raises what it foresees."""
        attempt = _Attempt(parcel)
        session = self._pool.take(lane)
        if session is not None and not await self._send_over(session, lane, attempt):
            attempt.start_anew()
        if attempt.waits:
            await self._send_to_hosts(lane, attempt)
        answers = attempt.answers
        if attempt.back_off is None:
            attempt.back_off = self._streaks.add(lane, answers)
        return Attempted(answers, attempt.back_off)

    def forget_silence(self) -> None:
        """Try hosts that did not answer, and ask the DNS anew: an operator may know better."""
        self._health.forget()
        self._dns.forget()

    async def close(self, patience: float) -> None:
        """Take leave of all hosts within ``patience`` seconds."""
        await self._pool.close(patience)

    async def _send_over(self, session: Session, lane: str, attempt: _Attempt) -> bool:
        """Send to all that wait, and keep the session if it lives; whether nobody waits now."""
        try:
            done = await session.send(attempt.rest())
        except ContentLost as error:
            attempt.settle_rest(TemporaryFailure(NO_CONTENT, str(error)))
            return True
        except BaseException:
            session.abort()
            raise
        attempt.take(session, done.results)
        self._pool.give(lane, session)
        return not attempt.waits

    async def _send_to_hosts(self, lane: str, attempt: _Attempt) -> None:
        where = destination(lane)
        endpoints = await self._resolver.resolve(where)
        if not isinstance(endpoints, tuple):
            attempt.unreachable(endpoints)
            return
        terms = self._terms_for(where)
        began = self._clock()
        for number, endpoint in enumerate(self._health.in_turn(endpoints)):
            if number >= LEAST_ADDRESSES and self._clock() - began > PATIENCE:
                break
            session = await self._open(endpoint, terms, attempt)
            if session is None:
                continue
            if await self._send_over(session, lane, attempt):
                return
            if session.is_silent:
                self._health.stalled(endpoint)
        attempt.exhausted()

    def _terms_for(self, where: Destination) -> Terms:
        terms = replace(self._terms(), policy=self._policies.of(where))
        if not isinstance(where, NextHop):
            return terms
        login, _, password = self._credentials.get(str(where), "").partition(":")
        implicit = where.port == SUBMISSIONS_PORT
        return replace(terms, implicit_tls=implicit, login=login, password=password)

    async def _open(self, endpoint: Endpoint, terms: Terms, attempt: _Attempt) -> Session | None:
        rest = self._health.rest(endpoint)
        if rest:
            attempt.skipped(endpoint, rest)
            return None
        try:
            session = await open_session(endpoint, terms)
        except HostFailed as error:
            self._take_note(endpoint, error)
            attempt.host_failed(error)
            if error.session is not None:
                self._pool.dismiss(error.session)
            return None
        self._health.answered(endpoint)
        return session

    def _take_note(self, endpoint: Endpoint, error: HostFailed) -> None:
        """A host that is silent over TLS alone may be spoken to by lanes that do without."""
        if error.is_our_own:
            return
        if not error.answered:
            self._health.failed(endpoint)
            return
        self._health.answered(endpoint)
        if error.session is not None and error.session.is_silent:
            self._health.stalled(endpoint)


def _make_here(settings: Settings) -> Here:
    return Here([settings.hostname, settings.helohost], settings.smtp.listen)


@dataclass(slots=True)
class _Failure:
    """Why one host has not got the message."""

    outcome: TemporaryFailure | PermanentFailure
    answered: bool


class _Attempt:
    """One parcel on its way: who waits, and what became of the others."""

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self._outcomes: list[Outcome | None] = [None] * len(parcel.recipients)
        self._failures: list[_Failure] = []
        self._put_off: dict[int, Outcome] = {}
        """What a host said before another was asked."""
        self._rests: list[float] = []
        self.back_off: BackOff | None = None

    @property
    def answers(self) -> list[Outcome]:
        """One outcome for each recipient."""
        return [each for each in self._outcomes if each is not None]

    @property
    def waits(self) -> bool:
        """Whether somebody has no outcome yet."""
        return None in self._outcomes

    def rest(self) -> Parcel:
        """The parcel for those that wait."""
        waiting = [self._parcel.recipients[number] for number in self._waiting()]
        return replace(self._parcel, recipients=tuple(waiting))

    def _waiting(self) -> list[int]:
        return [number for number, each in enumerate(self._outcomes) if each is None]

    def take(self, session: Session, results: tuple[Result, ...]) -> None:
        """Take note of what a host answered; some may wait for the next one."""
        alive = session.is_usable
        accepted = any(result.reply.is_success for result in results)
        for number, result in zip(self._waiting(), results, strict=True):
            said = outcome(session, result)
            if accepted and isinstance(said, TemporaryFailure):
                said = replace(said, at_once=is_one_too_many(result))
            if is_for_another_host(session, result, alive=alive):
                self._put_off[number] = said
            else:
                self._outcomes[number] = said
        self.back_off = back_off(session, results)

    def start_anew(self) -> None:
        """What a connection said that had been idle, 421 most of all, says nothing of now."""
        self._put_off.clear()
        self.back_off = None

    def host_failed(self, error: HostFailed) -> None:
        """A host could not be spoken to."""
        self._failures.append(_Failure(error.failure, error.answered))
        peer = error.failure.peer
        assert peer is not None
        maillog.relay_failed(
            peer.host,
            peer.address,
            peer.command,
            peer.tls,
            str(error.failure.reply),
            error.failure.detail,
        )

    def skipped(self, endpoint: Endpoint, seconds: float) -> None:
        """A host is left alone."""
        self._rests.append(seconds)
        peer = Peer(endpoint.host, endpoint.where, "connect", silent=True)
        reply = Reply(451, "4.1", "no connection a moment ago")
        detail = f"not tried for another {seconds:.0f} seconds"
        self._failures.append(_Failure(TemporaryFailure(reply, detail, peer), answered=False))

    def settle_rest(self, said: Outcome) -> None:
        """The outcome of all that wait."""
        self._outcomes = [each or said for each in self._outcomes]

    def unreachable(self, said: TemporaryFailure | PermanentFailure) -> None:
        """There is no host to be asked."""
        self.settle_rest(said)
        if isinstance(said, TemporaryFailure):
            self.back_off = BackOff(f"{said.reply.text}: {said.detail}")

    def exhausted(self) -> None:
        """All hosts were asked: what they said is what becomes of those that wait."""
        for number, said in self._put_off.items():
            self._outcomes[number] = self._outcomes[number] or said
        if not self.waits:
            return
        told = self._most_telling()
        self.settle_rest(told)
        if isinstance(told, TemporaryFailure) and self.back_off is None:
            all_skipped = len(self._rests) == len(self._failures)
            self.back_off = BackOff(_why(told), min(self._rests) if all_skipped else 0.0)

    def _most_telling(self) -> TemporaryFailure | PermanentFailure:
        """A temporary failure, if there is one; the words of a host rather than silence."""
        return max(
            self._failures,
            key=lambda each: (isinstance(each.outcome, TemporaryFailure), each.answered),
        ).outcome


def _why(failure: TemporaryFailure) -> str:
    peer = failure.peer
    assert peer is not None
    return f"{peer.place}, {peer.command}: {failure.reply}"

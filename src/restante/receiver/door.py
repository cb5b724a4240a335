"""MAIL, RCPT and the end of the content, answered."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from restante import maillog
from restante.address import Address, ReversePath
from restante.config import Settings
from restante.directory import Account, Directory, KnownLookups, Lookups
from restante.envelope import Origin, RecipientDsn
from restante.errors import TemporaryError
from restante.labels import in_a_labels
from restante.mda import MailboxWriter
from restante.queue import Lanes
from restante.receiver import Client, Refusal, ServiceName, Transaction, WaitingRoom
from restante.receiver.acceptance import Acceptance
from restante.receiver.limits import SendingLimits
from restante.receiver.literals import Literals
from restante.receiver.policy import BAD_SENDER, Policy
from restante.receiver.senders import Senders
from restante.receiver.trust import FamiliarRecipients, Trust
from restante.routing.decision import Decision, Remote
from restante.routing.reply import CANNOT_KNOW, RECIPIENT_OK, RELAYING_DENIED, reply_to
from restante.routing.router import Router, side_by_side
from restante.routing.strangers import Strangers
from restante.spool import Spool
from restante.status import Reply

SENDER_OK = Reply(250, "1.0", "sender ok")
AUTHENTICATION_REQUIRED = Reply(530, "7.0", "Authentication required")
"""RFC 4954 §6; RFC 6409 §4.3."""
NOT_WHOLE = Reply(554, "1.2", "the recipient's domain is not a whole one")
"""RFC 6409 §4.2."""


class Receiver:
    """Decides on senders and recipients, and accepts messages durably."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        directory: Directory,
        writer: MailboxWriter,
        waiting: WaitingRoom,
        lanes: Lanes,
        ids: Iterator[str],
        limits: SendingLimits | None = None,
        strangers: Strangers | None = None,
        familiar: FamiliarRecipients | None = None,
    ) -> None:
        """``limits``: on what accounts may send; None for no limits at all.

        ``strangers``: shared with the courier of what is accepted here. ``familiar``: shared with
        other workers.
        """
        self._settings = settings
        self._policy = Policy(settings.receiver)
        self._literals = Literals(settings.routing.localiphost)
        self._senders = Senders(settings, router, directory)
        self._limits = limits
        self._strangers = strangers or Strangers()
        self._familiar = (familiar or FamiliarRecipients()).under(settings)
        self._trust = Trust(self._familiar, self._decide)
        self._router = router
        self._directory = directory
        self._lanes = lanes
        self._ids = ids
        self._acceptance = Acceptance(
            settings, router, directory, writer, waiting, lanes, self._trust
        )

    def client(self, session: str, address: str, service: ServiceName = "smtp") -> Client:
        """The peer of a new session and what it may do."""
        return Client(session, self._policy.may_relay(address), service)

    def authenticated(self, client: Client, account: Account) -> Client:
        """The same peer, now that it has proved to be ``account``: it may send anywhere."""
        return replace(client, account=account, may_relay=True)

    def sender(
        self,
        client: Client,
        reverse_path: ReversePath,
        *,
        eight_bit: bool,
        smtputf8: bool,
        ret: Literal["", "FULL", "HDRS"] = "",
        envid: str = "",
    ) -> tuple[Reply, Transaction | None]:
        """Answer MAIL; with a success comes the transaction that it begins.

        Of a client that has logged in, ``account_sender`` has to be asked then. A reverse-path
        without a domain, as many devices have it, gets one: other hosts know none without
        (RFC 5321 §4.1.2, RFC 6409 §4.2), and nobody could be told of its fate.
        """
        if isinstance(reverse_path, Address):
            reverse_path = self._router.qualified(reverse_path)
        if client.service == "submission" and client.account is None:
            return self._sender_refused(
                client, reverse_path, Refusal(AUTHENTICATION_REQUIRED)
            ), None
        if self._policy.is_bad_sender(reverse_path):
            return self._sender_refused(client, reverse_path, BAD_SENDER), None
        queue_id = next(self._ids)
        return SENDER_OK, Transaction(
            queue_id, client, reverse_path, eight_bit, smtputf8, ret=ret, envid=envid
        )

    async def account_sender(self, account: Account, transaction: Transaction) -> Reply:
        """Answer MAIL of ``account``, which ``sender`` had no objection to."""
        client, reverse_path = transaction.client, transaction.reverse_path
        if isinstance(reverse_path, Address) and (
            refusal := await self._senders.refusal(account, reverse_path)
        ):
            return self._sender_refused(client, reverse_path, refusal)
        allowance = await self._limits.begin(client) if self._limits else None
        if isinstance(allowance, Refusal):
            return self._sender_refused(client, reverse_path, allowance)
        transaction.allowance = allowance
        return SENDER_OK

    def _sender_refused(self, client: Client, reverse_path: ReversePath, refusal: Refusal) -> Reply:
        reply, why = refusal.reply, refusal.why
        maillog.sender_refused(client.session, str(reverse_path), client.account_name, reply, why)
        return reply

    def recipient_on_trust(
        self, transaction: Transaction, address: Address, dsn: RecipientDsn
    ) -> Reply | None:
        """Answer RCPT for one who was taken before; None if there is somebody to be asked first.

        ``accept`` waits for what the rows say by now.
        """
        address = self._literals.resolved(address)
        if not self._trust.warrants(transaction, address) or _no_room(transaction, address):
            return None
        self._trust.take(transaction, address)
        _note_dsn(transaction, address, dsn)
        return RECIPIENT_OK

    async def recipients(
        self, transaction: Transaction, asked: Sequence[tuple[Address, RecipientDsn]]
    ) -> list[Reply]:
        """Answer RCPT for those that came together, with one look-up for all of them."""
        addresses = [self._literals.resolved(address) for address, _ in asked]
        try:
            replies = await self._decide(transaction, addresses)
        except Exception:
            _forget(transaction, addresses)
            raise
        for address, (_, dsn), reply in zip(addresses, asked, replies, strict=True):
            if reply.is_success:
                _note_dsn(transaction, address, dsn)
        return replies

    async def _decide(self, transaction: Transaction, addresses: Sequence[Address]) -> list[Reply]:
        if transaction.client.may_relay:  # else rcpthosts has to be asked
            known = self._strangers.decisions(self._router, addresses)
            if known is not None:
                return [
                    self._take(transaction, address, found)
                    for address, found in zip(addresses, known, strict=True)
                ]
        pairs = [pair for each in addresses for pair in self._router.wanted(each)]
        asked = self._strangers.now()
        try:
            lookups = await self._directory.prefetch(pairs)
        except TemporaryError as error:
            self._trust.answered(well=False)
            return [self._refuse(transaction, each, CANNOT_KNOW, str(error)) for each in addresses]
        self._trust.answered(well=True)
        if self._router.asks_files:
            ask = partial(self._ask_about, transaction, lookups, asked)
            return [answer() for answer in await side_by_side(ask, addresses)]
        replies = []
        for each in addresses:
            reply = self._recipient_at_once(transaction, each, lookups)
            if reply is None:
                reply = (await self._ask_about(transaction, lookups, asked, each))()
            replies.append(reply)
        return replies

    def _recipient_at_once(
        self, transaction: Transaction, address: Address, lookups: KnownLookups
    ) -> Reply | None:
        """The answer to nearly every recipient; None for one of another kind."""
        if not lookups.is_accepted(address.domain):
            return None
        mailbox = self._router.at_once(address, lookups)
        if mailbox is None:
            return None
        reply = self._accepted(transaction, address, mailbox)
        self._familiar.add(address)
        return reply

    async def _ask_about(
        self, transaction: Transaction, lookups: Lookups, asked: float, address: Address
    ) -> Callable[[], Reply]:
        """Find out all about any recipient: what takes or refuses it, in its turn."""
        refuse = partial(self._refuse, transaction, address)
        try:
            accepted = await self._router.accepts(address.domain, lookups)
        except TemporaryError as error:
            return partial(refuse, CANNOT_KNOW, str(error))
        if not accepted and not transaction.client.may_relay:
            return partial(refuse, RELAYING_DENIED, "not in rcpthosts")
        decision = await self._router.route(address, lookups)
        self._strangers.note((decision,), asked)
        return partial(self._answer, transaction, address, decision, accepted=accepted)

    def _answer(
        self, transaction: Transaction, address: Address, decision: Decision, *, accepted: bool
    ) -> Reply:
        reply = self._take(transaction, address, decision)
        if not accepted:
            self._familiar.forget(address)  # nobody else may send to it
        elif reply.is_success:
            self._familiar.add(address)
        return reply

    def _take(self, transaction: Transaction, address: Address, decision: Decision) -> Reply:
        """The answer to a recipient that the peer may send to, who is taken if it is a success."""
        reply = reply_to(decision, verify=self._settings.receiver.verify_recipients)
        if not reply.is_success:
            return self._refuse(transaction, address, reply, getattr(decision, "why", ""))
        if transaction.client.account is not None and self._leads_nowhere(decision):
            return self._refuse(transaction, address, NOT_WHOLE, "one label, and no route")
        return self._accepted(transaction, address, decision)

    def _leads_nowhere(self, decision: Decision) -> bool:
        """Whether it is for ``bob@sales``, say, without a route: a user hears of that at once."""
        if not isinstance(decision, Remote):
            return False
        domain = decision.address.domain
        if "." in domain or domain.startswith("[") or domain in self._settings.routing.smtproutes:
            return False
        return self._lanes.of(domain) == in_a_labels(domain)

    def _accepted(self, transaction: Transaction, address: Address, decision: Decision) -> Reply:
        """Take a recipient, unless that is one more than the account may have."""
        if refusal := _no_room(transaction, address):
            return self._refuse(transaction, address, refusal.reply, refusal.why)
        transaction.decided[address] = decision
        return RECIPIENT_OK

    def _refuse(self, transaction: Transaction, address: Address, reply: Reply, why: str) -> Reply:
        """The answer to a recipient who is not taken, and is asked about first the next time."""
        self._familiar.forget(address)
        session, sender = transaction.client.session, str(transaction.reverse_path)
        maillog.recipient_refused(session, transaction.queue_id, sender, str(address), reply, why)
        return reply

    def accept(
        self, transaction: Transaction, origin: Origin, spool: Spool
    ) -> Coroutine[Any, Any, Reply]:
        """Answer the end of the content: on a 250 the message is durable, here or in the queue."""
        return self._acceptance.accept(transaction, origin, spool)

    def refused(self, transaction: Transaction, reply: Reply, why: str) -> Reply:
        """Record that the content was not accepted; returns ``reply`` as the client can read it."""
        return self._acceptance.refused(transaction, reply, why)

    def unkept(self, transaction: Transaction, failure: TemporaryError) -> Reply:
        """Record that there is no place for the content; the reply."""
        return self._acceptance.unkept(transaction, failure)


def _forget(transaction: Transaction, addresses: Sequence[Address]) -> None:
    """Whoever was taken before a bug ended the rest is told nothing of it, and gets nothing."""
    for address in addresses:
        if address not in transaction.dsn:  # else it has had its answer earlier
            transaction.decided.pop(address, None)


def _note_dsn(transaction: Transaction, address: Address, dsn: RecipientDsn) -> None:
    """Of what the sender asks to be told of a recipient, who may have been named before."""
    named_before = transaction.dsn.setdefault(address, dsn)
    if named_before is not dsn:
        transaction.dsn[address] = named_before.merged(dsn)


def _no_room(transaction: Transaction, address: Address) -> Refusal | None:
    """Why the account may not send to one recipient more; a repeated one is none more."""
    if transaction.allowance is None or address in transaction.decided:
        return None
    return transaction.allowance.room_for(len(transaction.decided) + 1)

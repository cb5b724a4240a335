"""A receiver without a server, its mailboxes in memory, and a client who may have logged in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from restante.address import ReversePath
from restante.config import Settings
from restante.config.tree import Receiver as ReceiverSettings
from restante.config.tree import Routing, Server
from restante.envelope import Content, Envelope
from restante.mda import Delivery
from restante.receiver import Client, ServiceName, Transaction
from restante.receiver.door import Receiver
from restante.receiver.limits import SendingLimits
from restante.relay.routes import Routes
from restante.routing.router import Router
from restante.status import Outcome, Reply
from tests.support.memory_directory import MemoryDirectory, Tables, account
from tests.support.queued import new_id
from tests.unit.test_courier_receiver import Recorder

ANN = account("ann@example.com")
SETTINGS = Settings(
    "/nowhere",
    server=Server(me="mx.example.com"),
    routing=Routing(envnoathost="example.com"),
    receiver=ReceiverSettings(badmailfrom=("ann+bad@example.com",)),
)


@dataclass
class Keeper(Recorder):
    """Keeps what is delivered."""

    kept: list[Content] = field(default_factory=list)

    async def deliver_all(
        self, envelope: Envelope, content: Content, deliveries: Sequence[Delivery]
    ) -> Outcome:
        self.kept.append(content)
        return await super().deliver_all(envelope, content, deliveries)


def door(
    settings: Settings = SETTINGS,
    recorder: Recorder | None = None,
    limits: SendingLimits | None = None,
    directory: MemoryDirectory | None = None,
) -> Receiver:
    """A receiver for ann@example.com, who is all that exists unless ``directory`` says more."""
    recorder = recorder or Recorder()
    tables = Tables(
        rcpthosts=["example.com"], mailbox=[ANN], virtual=[(ANN.name, "ann", "example.com")]
    )
    router = Router(settings.routing, settings.hostname)
    directory = directory or MemoryDirectory(tables)
    ids = iter(new_id, "")
    return Receiver(settings, router, directory, recorder, recorder, Routes({}), ids, limits=limits)


def peer(receiver: Receiver, service: ServiceName, *, logged_in: bool) -> Client:
    """A client of the service, perhaps ann."""
    client = receiver.client("s", "192.0.2.7", service)
    return receiver.authenticated(client, ANN) if logged_in else client


async def mail(
    receiver: Receiver, client: Client, path: ReversePath
) -> tuple[Reply, Transaction | None]:
    """What MAIL comes to, of a client that may have logged in."""
    reply, transaction = receiver.sender(client, path, eight_bit=False, smtputf8=False)
    if transaction is not None and client.account is not None:
        reply = await receiver.account_sender(client.account, transaction)
    return reply, transaction if reply.is_success else None

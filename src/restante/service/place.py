"""What supervisor and worker know of each other."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass

from restante.auth.proven import ProvenPasswords
from restante.config import Settings
from restante.net.shares import Board
from restante.receiver.trust import FamiliarRecipients
from restante.service.user import ServerUser
from restante.tls.files import HandedFiles
from restante.tls.tickets import TicketContexts

EXIT_CONFIGURATION = 78
"""A worker's exit status when only the operator can help (sysexits EX_CONFIG)."""
READY = "ready\n"
"""What a worker writes to ready_fd when it serves."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What all workers of a settings tree have together."""

    fellows: frozenset[int]
    """Their queues."""
    board: Board
    """How many connections each of them holds."""
    tickets: TicketContexts
    """What they begin handshakes with."""
    proven: ProvenPasswords | None
    """Passwords that they need not hash again; None: they hash each."""
    familiar: FamiliarRecipients
    """Who was taken before."""
    pem: HandedFiles
    """Certificates and keys as they were when it began."""

    @classmethod
    def begin(cls, settings: Settings, slots: Collection[int], pem: HandedFiles) -> Generation:
        """One whose workers, with these queues, are forked from this process from now on."""
        proven = ProvenPasswords.lasting(settings.auth.remember)
        board, familiar = Board(len(slots)), FamiliarRecipients()
        return cls(frozenset(slots), board, TicketContexts(), proven, familiar, pem)


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """What a worker is given when it is forked."""

    number: int
    """The worker's place on the board."""
    slot: int
    """The queue it owns: ``queue/SLOT``."""
    generation: Generation
    needs_queue: bool
    """It does not serve without it: those who do now have theirs. Otherwise a queue that there is
    no room for is opened when there is."""
    ready_fd: int
    """A byte is written here when it serves; on failure the reason."""
    life_fd: int
    """End of file here means that the supervisor is gone."""
    user: ServerUser | None
    """Whom it becomes before it serves; None: it stays who it is."""
    office: socket.socket | None
    """Where it asks for what only root can give (restante.service.office); None as above."""
    is_successor: bool = False
    """Of one that has ended by itself, so it serves as that did: where a certificate's files are
    wrong by now, with those of the generation's begin."""

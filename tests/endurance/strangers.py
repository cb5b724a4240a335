"""What comes to a mail host besides mail: guesses, nonsense, TLS, what cannot be delivered."""

from __future__ import annotations

import contextlib
import os
import poplib
import random
import smtplib
import socket
import ssl
from collections.abc import Callable

from tests.endurance.ledger import content
from tests.endurance.site import DOMAIN, FAR, POSTBOX, REFUSED, Site
from tests.support.instance import PATIENCE
from tests.support.pop3_client import Session

LONGEST_NONSENSE = 3000
"""Octets."""


class Strangers:
    """Each call of ``come`` is one visit. What a visit must not meet is raised as an error."""

    def __init__(self, site: Site) -> None:
        self._instance = site.instance
        self._ports = [
            self._instance.port(service)
            for service in ("smtp", "submission", "submissions", "pop3", "pop3s")
        ]
        *_, self._submissions, _, self._pop3s = self._ports
        self._tls = ssl._create_unverified_context()
        self._visits: list[Callable[[random.Random], None]] = [
            self._nonsense,
            self._vanish,
            self._unknown_recipient,
            self._guess,
            self._submit,
            self._undeliverable,
            self._read_over_tls,
            self._empty_postbox,
        ]

    def come(self, chance: random.Random) -> None:
        """One of them, by chance.

        Raises OSError or what the clients' libraries raise.
        """
        chance.choice(self._visits)(chance)

    def _nonsense(self, chance: random.Random) -> None:
        with _from_somewhere(chance, chance.choice(self._ports)) as connection:
            octets = os.urandom(chance.randrange(1, LONGEST_NONSENSE))
            with contextlib.suppress(OSError):  # it may be hung up on in the midst
                connection.sendall(octets + b"\r\n" * chance.randrange(30))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

    def _vanish(self, chance: random.Random) -> None:
        with _from_somewhere(chance, self._instance.smtp_port) as connection:
            connection.sendall(
                b"EHLO a\r\nMAIL FROM:<a@b.example>\r\n"
                b"RCPT TO:<direct0@%b>\r\nDATA\r\nSubject: never\r\n"
                % DOMAIN.encode()
                + b"y" * chance.randrange(100_000)
            )

    def _unknown_recipient(self, chance: random.Random) -> None:
        with self._instance.smtp() as client:
            client.ehlo()
            client.mail("sender@example.net")
            name = f"nobody{chance.randrange(10**9)}"
            assert client.rcpt(f"{name}@{DOMAIN}")[0] == 550
            assert client.rcpt(f"{name}@example.org")[0] == 550

    def _guess(self, chance: random.Random) -> None:
        with _from_somewhere(chance, self._instance.pop3_port) as connection:
            name = chance.choice((f"nobody{chance.randrange(10**9)}@{DOMAIN}", f"guessed@{DOMAIN}"))
            lines = connection.makefile("rb")
            with lines:
                connection.sendall(f"USER {name}\r\nPASS {chance.random()}\r\nQUIT\r\n".encode())
                answers = lines.read()
            assert b"-ERR" in answers, answers

    def _submit(self, chance: random.Random) -> None:
        with smtplib.SMTP_SSL(
            "127.0.0.1", self._submissions, timeout=PATIENCE, context=self._tls
        ) as client:
            client.login(POSTBOX, "secret")
            client.sendmail(POSTBOX, [f"list0@{DOMAIN}", f"far@{FAR}"], _letter(chance))

    def _undeliverable(self, chance: random.Random) -> None:
        with smtplib.SMTP_SSL(
            "127.0.0.1", self._submissions, timeout=PATIENCE, context=self._tls
        ) as client:
            client.login(POSTBOX, "secret")
            client.sendmail(POSTBOX, [REFUSED], _letter(chance))

    def _read_over_tls(self, chance: random.Random) -> None:
        session = poplib.POP3_SSL("127.0.0.1", self._pop3s, timeout=PATIENCE, context=self._tls)
        with contextlib.closing(session):
            session.user(POSTBOX)
            session.pass_("secret")
            session.uidl()
            session.quit()

    def _empty_postbox(self, _: random.Random) -> None:
        """Of the reports that came back."""
        with contextlib.closing(Session("127.0.0.1", self._instance.pop3_port)) as session:
            session.user(POSTBOX)
            session.pass_("secret")
            for number in range(1, session.stat()[0] + 1):
                session.dele(number)
            session.quit()


def _from_somewhere(chance: random.Random, port: int) -> socket.socket:
    """From one of the many addresses of loopback, so that nobody else counts for a guesser."""
    source = f"127.{chance.randrange(1, 255)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"
    return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))


def _letter(chance: random.Random) -> bytes:
    return content(0, chance.randrange(1, 10_000))

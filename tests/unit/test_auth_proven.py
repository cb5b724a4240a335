"""Which passwords need not be hashed again, for how long, and who knows of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

from restante.auth import proven
from restante.auth.proven import ProvenPasswords

STORED = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA"
LIFETIME = 3600


@dataclass
class Clock:
    """Time that passes when told to."""

    seconds: float = 0.0
    passwords: ProvenPasswords = field(init=False)

    def __post_init__(self) -> None:
        self.passwords = ProvenPasswords(LIFETIME, lambda: self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_is_known_for_an_hour(clock: Clock) -> None:
    assert not clock.passwords.has("secret", STORED, None)
    clock.seconds = 10.5
    clock.passwords.add("secret", STORED, None)
    for seconds in (10.5, 11.0, 9.0 + LIFETIME):
        clock.seconds = seconds
        assert clock.passwords.has("secret", STORED, None)
    clock.seconds = 12.0 + LIFETIME
    assert not clock.passwords.has("secret", STORED, None)


def test_to_be_told_is_not_to_be_proven_again(clock: Clock) -> None:
    clock.passwords.add("secret", STORED, None)
    for _ in range(10):
        clock.seconds += LIFETIME / 8
        clock.passwords.has("secret", STORED, None)
    assert not clock.passwords.has("secret", STORED, None)
    clock.passwords.add("secret", STORED, None)
    assert clock.passwords.has("secret", STORED, None)


@pytest.mark.parametrize(
    ("password", "stored", "kind"),
    [
        ("Secret", STORED, None),
        ("secret", STORED + "x", None),
        ("secret", STORED, ""),
        ("secret", STORED, "Crypt"),
        ("secre", "t" + STORED, None),
        ("secret" + STORED, "", None),
        ("", STORED, None),
        ("\udc80\ud800", STORED, None),
    ],
)
def test_nothing_else_is_known(clock: Clock, password: str, stored: str, kind: str | None) -> None:
    clock.passwords.add("secret", STORED, None)
    assert not clock.passwords.has(password, stored, kind)
    clock.passwords.add(password, stored, kind)
    assert clock.passwords.has(password, stored, kind)


def test_another_server_has_another_key(clock: Clock) -> None:
    clock.passwords.add("secret", STORED, None)
    assert not Clock().passwords.has("secret", STORED, None)


def test_all_workers_know_it() -> None:
    passwords = ProvenPasswords(LIFETIME)
    pid = os.fork()
    if not pid:
        passwords.add("secret", STORED, None)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert passwords.has("secret", STORED, None)
    assert not passwords.has("other", STORED, None)


def test_the_oldest_gives_way(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are in one bucket here, as so many may be by chance."""
    monkeypatch.setattr(proven, "BUCKETS", 1)
    for number in range(proven.WAYS):
        clock.seconds += 1
        clock.passwords.add(f"secret{number}", STORED, None)
    clock.passwords.add("secret0", STORED, None)  # the youngest now, in its old place
    clock.seconds += 1
    clock.passwords.add("new", STORED, None)
    names = [f"secret{number}" for number in range(proven.WAYS)] + ["new"]
    forgotten = [name for name in names if not clock.passwords.has(name, STORED, None)]
    assert forgotten == ["secret1"]


def test_thousands_are_known(clock: Clock) -> None:
    for number in range(5000):
        clock.passwords.add(f"secret{number}", STORED, None)
    assert all(clock.passwords.has(f"secret{number}", STORED, None) for number in range(5000))


def test_memory_has_no_password(clock: Clock) -> None:
    clock.passwords.add("a long secret", STORED, None)
    kept = clock.passwords._entries[:]
    assert len(kept) == proven.SIZE
    assert kept.count(b"\0") < len(kept)
    assert b"secret" not in kept
    assert STORED.encode()[-8:] not in kept

"""The key that makes guesses into digests, so that the file of guesses helps nobody to guess."""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import re
import secrets

from restante.guessing import GuessesUnusable

FILE_NAME = "guesses.key"
"""In ``queue.root``; whoever removes it makes all that was guessed count anew."""
_LEFTOVER = re.compile(rf"{re.escape(FILE_NAME)}\.[0-9]+\.[0-9a-f]{{8}}")
KEY_SIZE = 32
DIGEST_SIZE = 3
"""Octets of a digest. Few on purpose: with key and file in hand, of a hundred million likely
passwords six match any digest by chance. And of 16 million guesses one counts as another."""


def read_key(directory: str) -> bytes:
    """The key of the instance, made if there is none; raises GuessesUnusable."""
    path = os.path.join(directory, FILE_NAME)
    try:
        key = _read(path) or _made(path)
        _remove_leftovers(directory)
    except OSError as error:
        raise GuessesUnusable(f"{path} cannot be used: {error.strerror}") from error
    if len(key) != KEY_SIZE:
        raise GuessesUnusable(f"{path} is damaged: remove it, and a new one is made")
    return key


def digest(key: bytes, account: str, password: str | None) -> bytes:
    """What is kept of a wrong password; another one each time for None."""
    if password is None:
        return secrets.token_bytes(DIGEST_SIZE)
    text = f"{account}\0{password}".encode("utf-8", "surrogatepass")
    return hmac.digest(key, text, "sha256")[:DIGEST_SIZE]


def _read(path: str) -> bytes:
    """Nothing where there is no key, or only its name: older versions' may have lost the rest."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    try:
        return os.read(descriptor, KEY_SIZE + 1)
    finally:
        os.close(descriptor)


def _made(path: str) -> bytes:
    """Several processes may do this at once: the first one's stands, whole or not at all."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if not _read(path):
            _make(path)
            os.fsync(directory)
    finally:
        os.close(directory)
    return _read(path)


def _remove_leftovers(directory: str) -> None:
    """Of processes of earlier versions, which were killed while they made a key."""
    for name in filter(_LEFTOVER.fullmatch, os.listdir(directory)):
        with contextlib.suppress(OSError):  # another process may do the same
            os.unlink(os.path.join(directory, name))


def _make(path: str) -> None:
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):  # of a process that was killed
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_SIZE))
        file.flush()
        os.fsync(descriptor)
    os.rename(temporary, path)

"""The key that makes guesses into digests, so that the file of guesses helps nobody to guess."""

from __future__ import annotations

import hmac
import os
import secrets

from restante.guessing import GuessesUnusable
from restante.keyfile import read_or_make

FILE_NAME = "guesses.key"
"""In ``queue.root``; whoever removes it makes all that was guessed count anew."""
KEY_SIZE = 32
DIGEST_SIZE = 3
"""Octets of a digest. Few on purpose: with key and file in hand, of a hundred million likely
passwords six match any digest by chance. And of 16 million guesses one counts as another."""


def read_key(directory: str) -> bytes:
    """The key of the instance, made if there is none; raises GuessesUnusable."""
    path = os.path.join(directory, FILE_NAME)
    try:
        key = read_or_make(path, KEY_SIZE)
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

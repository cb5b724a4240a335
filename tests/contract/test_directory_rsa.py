"""Servers that want the password encrypted are logged in to, though nobody else needs that."""

from __future__ import annotations

import subprocess
import sys


def test_what_encrypts_passwords_is_imported_when_it_is_asked_for() -> None:
    """In a process of its own, for here everything is imported already."""
    command = [sys.executable, "-m", "tests.support.rsa_server"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert said.splitlines() == ["False", r"[b'pass word\x00']"]

"""Which Dovecot this machine has: 2.4 reads other settings than 2.3, and has no checkpassword."""

from __future__ import annotations

import subprocess
from functools import cache

VERSIONS_OF_SETTINGS = "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"
"""What 2.4 wants to read first."""


@cache
def is_of_2_4() -> bool:
    """Whether it is of 2.4, or newer."""
    done = subprocess.run(["dovecot", "--version"], check=True, capture_output=True, text=True)
    major, minor, *_ = done.stdout.split(".")
    return (int(major), int(minor)) >= (2, 4)

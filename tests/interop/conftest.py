"""What an ordinary user can run: Postfix and Exim serve as root, who alone becomes another user."""

from __future__ import annotations

from tests.support.far_hosts import AS_ROOT

collect_ignore = (
    []
    if AS_ROOT
    else [
        "test_client_engine.py",
        "test_programs.py",
        "test_relay_postfix_exim.py",
        "test_relay_tls_postfix.py",
    ]
)

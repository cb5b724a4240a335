"""Logins of the system's users, by a process that may read their hashes."""

from __future__ import annotations

from restante.auth import LoginAttempt, SystemVerdict
from restante.auth.hashing import Hashing, Verify
from restante.auth.proven import ProvenPasswords
from restante.auth.schemes import verify
from restante.config.tree import Auth
from restante.directory import SystemPasswords


class HostLogins:
    """Implements ``restante.auth.SystemLogins``."""

    def __init__(
        self, passwords: SystemPasswords, settings: Auth, verify_password: Verify = verify
    ) -> None:
        """``verify_password`` is a seam for tests."""
        self._passwords = passwords
        proven = ProvenPasswords.lasting(settings.remember)
        self._hashing = Hashing(settings, verify_password, proven)

    async def check(self, attempt: LoginAttempt) -> SystemVerdict | None:
        """See SystemLogins. A closed account costs as much as any other."""
        found = await self._passwords.credentials(attempt.login)
        if found is None:
            return None
        account, stored = found.account, found.password
        is_right = await self._hashing.matches(attempt, stored, found.password_type)
        if is_right and not found.closed:
            return SystemVerdict(account, is_good=True)
        locked = "locked" if not stored or stored[0] in "!*" else ""
        why = found.closed or locked
        detail = f"system user {account.name}"
        return SystemVerdict(account, is_good=False, detail=f"{detail}: {why}" if why else detail)

    async def close(self) -> None:
        """Let the passwords that are being checked be finished, and stop."""
        await self._hashing.close()

"""What the nursery and its helpers are told when they start: limits, and nothing secret."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from restante.config.tree import Programs
from restante.directory.rows import MAX_ID
from restante.helper.homes import HomeRules


@dataclass(frozen=True, slots=True)
class Limits:
    """For whom there may be helpers, how many, and how they name what they deliver."""

    host: str
    """This host's name, in the names of files (``mda.names``)."""
    minimum_uid: int
    """No helper for a smaller uid; for 0 never."""
    minimum_gid: int
    """The same for the gid."""
    helpers: int
    """So many at the same time at most."""
    drain_timeout: float
    """Seconds that workers have to finish when the server stops."""
    instance: str = ""
    """The instance directory, which commands are told."""
    programs: Programs = field(default_factory=Programs)
    """How they run commands."""
    homes: HomeRules = field(default_factory=HomeRules)
    """Where root makes what is missing of a home."""
    server_uid: int = 0
    """The workers' uid. Its helper runs commands as workers do: by programs.run_as_server_user, and
    none gains rights. 0: nobody's."""

    def to_argument(self) -> str:
        """As one argument of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, argument: str) -> Limits:
        """What ``to_argument`` wrote; raises ValueError, TypeError or KeyError for others."""
        fields = json.loads(argument)
        programs, homes = Programs(**fields["programs"]), HomeRules(**fields["homes"])
        return cls(**{**fields, "programs": programs, "homes": homes})

    def objection(self, uid: int, gid: int) -> str:
        """Why there is no helper with these ids, or an empty string."""
        if uid < max(self.minimum_uid, 1):
            return f"uid {uid} is below the minimum {max(self.minimum_uid, 1)}"
        if gid < max(self.minimum_gid, 1):
            return f"gid {gid} is below the minimum {max(self.minimum_gid, 1)}"
        if max(uid, gid) > MAX_ID:  # the next one means "do not change it" (setresuid(2))
            return f"uid {uid} and gid {gid} are none"
        return ""

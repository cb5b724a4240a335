"""What the nursery and its helpers are told when they start: limits, and nothing secret."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from restante.config.tree import Programs
from restante.directory import objection_to_ids
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
        return objection_to_ids(uid, gid, self.minimum_uid, self.minimum_gid)

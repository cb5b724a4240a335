"""The settings that say where something listens, and what is spoken there."""

from __future__ import annotations

from dataclasses import dataclass

from restante.config.tree import HostPort, Settings


@dataclass(frozen=True, slots=True)
class Listening:
    """One such setting."""

    name: str
    """What its listeners are called, after the port names that IANA has registered."""
    setting: tuple[str, str]
    """Section and name."""
    tls: bool = False
    """TLS comes first (RFC 8314 §3)."""

    def addresses(self, settings: Settings) -> tuple[HostPort, ...]:
        """Where it is to be."""
        section, name = self.setting
        found: tuple[HostPort, ...] = getattr(getattr(settings, section), name)
        return found


LISTENERS = (
    Listening("smtp", ("smtp", "listen")),
    Listening("submission", ("submission", "listen")),
    Listening("submissions", ("submission", "listen_tls"), tls=True),
    Listening("pop3", ("pop3", "listen")),
    Listening("pop3s", ("pop3", "listen_tls"), tls=True),
    Listening("metrics", ("metrics", "listen")),
)


def setting_of(name: str) -> tuple[str, str]:
    """The setting behind listeners of this name: section and name."""
    return next(each.setting for each in LISTENERS if each.name == name)

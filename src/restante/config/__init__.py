"""One frozen settings tree from restante.toml and the environment."""

from restante.config.tree import Settings

__all__ = ["Settings"]

"""Restante: a mail host on one SQL database."""

__version__ = "0.1.0.dev0"

"""Figures for Prometheus: counted where the mail log tells of an event, served over HTTP.

Every worker keeps its figures in files under one directory that are its slot's, mapped into
memory, and goes on with the counters of who had the slot before; whichever worker is asked
adds up the files of all.

The supervisor calls ``files.prepare`` once before the first fork and ``files.forget`` for every
worker that ended; a worker gives ``maillog.measure_with`` a ``prometheus.PrometheusMeter`` and
runs a ``server.MetricsServer``.
"""

from __future__ import annotations


class Meter:
    """What is counted; this one counts nothing, at the cost of a call."""

    def session_opened(self, service: str) -> None:
        """A connection began."""

    def session_refused(self, service: str) -> None:
        """A connection was turned away at once."""

    def session_closed(self, service: str, seconds: float) -> None:
        """A connection ended after so long."""

    def refused(self, command: str, code: int) -> None:
        """``mail``, ``rcpt``, or the content (``data``) was answered with a failure."""

    def message_accepted(self, how: str, size: int, seconds: float) -> None:
        """A message of so many octets was acknowledged, that long after its end came."""

    def attempted(self, outcome: str) -> None:
        """A recipient has the message (``delivered``), is tried again later (``deferred``) or is
        given up (``failed``)."""

    def bounced(self) -> None:
        """A report of a failure was queued."""

    def waiting(self, change: int) -> None:
        """So many more messages wait in this worker's queues, or fewer."""

    def relay_connection(self, result: str) -> None:
        """A connection to another host was made (``good``), or what came in its place."""

    def login(self, service: str, result: str) -> None:
        """Somebody logged in (``good``) or was refused (the reason)."""

    def database(self, *, up: bool) -> None:
        """The database answers, or does not."""

    def unplanned(self) -> None:
        """A bug showed itself."""

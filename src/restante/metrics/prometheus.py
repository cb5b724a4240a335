"""The meter of workers that serve figures.

prometheus-client is imported by a worker that counts and by nobody else: it looks at its
environment when it is imported.
"""

from __future__ import annotations

import os

from restante.metrics import Meter
from restante.metrics.files import reserve

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client looks for the directory of all processes' figures."""
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class PrometheusMeter(Meter):
    """Counts in files under ``directory``; names and meanings stand in docs/log.md."""

    def __init__(self, directory: str, slot: int) -> None:
        """``slot``: no other process that runs has it. Raises OSError where there is no room for
        the files."""
        reserve(directory, slot)
        os.environ[DIRECTORY_VARIABLE] = directory
        from prometheus_client import Counter, Gauge, Histogram, values

        values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"restante_{name}", text, labels, registry=None)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"restante_{name}", text, labels, registry=None, buckets=_SECONDS)

        self._opened = counter("sessions", "Connections served.", "service")
        self._turned_away = counter("sessions_refused", "Connections turned away.", "service")
        self._open = Gauge(
            "restante_sessions_open",
            "Connections now.",
            ("service",),
            registry=None,
            multiprocess_mode="livesum",
        )
        self._session_seconds = histogram(
            "session_seconds", "How long connections lasted.", "service"
        )
        self._refused = counter("refused", "Failures answered to senders.", "command", "code")
        self._accepted = counter("messages_accepted", "Messages acknowledged.", "how")
        self._octets = counter("octets_accepted", "Octets of acknowledged messages.")
        self._accept_seconds = histogram(
            "accept_seconds", "From the end of a message to its acknowledgement.", "how"
        )
        self._outcomes = counter(
            "recipients", "Recipients by what became of an attempt.", "outcome"
        )
        self._bounces = counter("bounces", "Reports queued for senders.")
        self._waiting = Gauge(
            "restante_queue_messages",
            "Messages that wait.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._relayed = counter("relay_connections", "Connections to other hosts.", "result")
        self._logins = counter("logins", "Attempts to log in.", "service", "result")
        self._database = Gauge(
            "restante_database_up",
            "1 if the database answered every worker's last question, else 0.",
            registry=None,
            multiprocess_mode="livemin",
        )
        self._bugs = counter("unplanned", "Exceptions that nobody foresaw.")
        self._database.set(1)

    def session_opened(self, service: str) -> None:
        self._opened.labels(service).inc()
        self._open.labels(service).inc()

    def session_refused(self, service: str) -> None:
        self._turned_away.labels(service).inc()

    def session_closed(self, service: str, seconds: float) -> None:
        self._open.labels(service).dec()
        self._session_seconds.labels(service).observe(seconds)

    def refused(self, command: str, code: int) -> None:
        self._refused.labels(command, str(code)).inc()

    def message_accepted(self, how: str, size: int, seconds: float) -> None:
        self._accepted.labels(how).inc()
        self._octets.inc(size)
        self._accept_seconds.labels(how).observe(seconds)
        if how == "queued":
            self._waiting.inc()

    def attempted(self, outcome: str) -> None:
        self._outcomes.labels(outcome).inc()

    def bounced(self) -> None:
        self._bounces.inc()

    def waiting(self, change: int) -> None:
        self._waiting.inc(change)

    def relay_connection(self, result: str) -> None:
        self._relayed.labels(result).inc()

    def login(self, service: str, result: str) -> None:
        self._logins.labels(service, result).inc()

    def database(self, *, up: bool) -> None:
        self._database.set(1 if up else 0)

    def unplanned(self) -> None:
        self._bugs.inc()

"""HTTP, as far as the figures for Prometheus need it."""

from __future__ import annotations

import asyncio
import re

from restante.metrics.server import MetricsServer
from tests.guided.scratch import scratch
from tests.guided.target import Target

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z ]+\r\n(?:[A-Za-z-]+: [ -~]+\r\n)+\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")


def metrics_request(data: bytes) -> None:
    """Whatever is asked, the answer is one response of the length that it says."""
    answer = asyncio.run(MetricsServer(str(scratch("metrics")))._answer(data))
    head = _HEAD.match(answer)
    assert head is not None
    length = _LENGTH.search(head[0])
    assert length is not None
    body = answer[head.end() :]
    assert len(body) == (0 if data.startswith(b"HEAD ") and head[1] == b"200" else int(length[1]))


TARGETS = (
    Target(
        metrics_request,
        [
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HEAD /metrics?x=1 HTTP/1.0\r\n\r\n",
            b"PUT /",
        ],
        (b"GET ", b"HEAD ", b"POST ", b"/metrics", b"?", b" ", b"\r\n", b"\xff", b"\0"),
        longest=100,
    ),
)

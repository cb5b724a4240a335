"""TLS to Postfix, whose certificate is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from restante.status import Delivered, TemporaryFailure
from tests.support.certificates import issue
from tests.support.far_hosts import postfix
from tests.support.instance import until
from tests.support.nameserver import Zone, nameserver
from tests.support.ports import free_port
from tests.support.relaying import LARGE, believed, only, send, spooled_parcel

pytestmark = pytest.mark.peer

ADDRESS = "127.0.0.2"


@pytest.mark.parametrize("name", ["mail.postfix.example", "other.example"])
async def test_a_large_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nothing of it is sent to a host that cannot show who it is."""
    host, port = "mail.postfix.example", free_port()
    certificate = issue(name, by=believed(tmp_path, monkeypatch))
    with (
        nameserver(Zone({(host, "A"): [ADDRESS]})) as dns,
        postfix("postfix.example", ADDRESS, port, certificate) as far,
    ):
        sent = spooled_parcel(tmp_path, LARGE, "me@far.example", far.address("user"))
        attempted = await send(dns, 25, sent, f"{host}:{port}", tls_policy={host: "verify"})
        outcome = only(attempted)
        if name != host:
            assert isinstance(outcome, TemporaryFailure)
            assert "not accepted: Hostname mismatch" in outcome.detail
            return
        assert isinstance(outcome, Delivered)
        until(lambda: far.messages("user"), "Postfix delivers it")
        (message,) = far.messages("user")
    assert message.endswith(LARGE.partition(b"\n\n")[2])
    assert b"TLSv1.3" in message

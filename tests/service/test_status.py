"""``restante status``: whether every listener of a running server greets."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.ports import free_port
from tests.support.serving import Sections, new_server, taken_port


def test_status_of_a_server_that_runs_and_of_one_that_does_not(tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("smtp", "pop3", "metrics")}
    sections: Sections = {name: {"listen": [f"127.0.0.1:{port}"]} for name, port in ports.items()}
    with new_server(tmp_path / "instance", sections) as instance:
        up = instance.run("status")
        assert up.stdout.splitlines() == [
            f"smtp\t127.0.0.1:{ports['smtp']}\tup\t220 mx.example.com ESMTP",
            f"pop3\t127.0.0.1:{ports['pop3']}\tup\t+OK mx.example.com POP3 server ready",
            f"metrics\t127.0.0.1:{ports['metrics']}\tup\tmetrics",
        ]

        instance.stop()
        down = instance.run("status", "--json", check=False)
        assert down.returncode == 69
        assert {each["state"] for each in json.loads(down.stdout)} == {"down"}
        assert instance.run("status", check=False).returncode == 69


def test_another_program_on_the_port_is_no_server(tmp_path: Path) -> None:
    with new_server(tmp_path / "instance") as instance, taken_port() as port:
        instance.environ["RESTANTE_SMTP__LISTEN"] = f'["127.0.0.1:{port}"]'
        instance.environ["RESTANTE_POP3__LISTEN"] = "[]"
        found = instance.run("status", check=False)

        assert found.returncode == 69
        assert found.stdout.split("\t")[2] == "down"

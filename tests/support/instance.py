"""A whole Restante in a directory of its own: real commands, real processes, free ports."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import poplib
import re
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from restante.cli.app import run as run_command_line

ANY_PORTS = [
    word
    for listener in ("smtp", "submission", "submissions", "pop3", "pop3s")
    for word in (f"--{listener}", "127.0.0.1:0")
]
"""Options of ``init`` and ``demo`` with which every test has ports of its own."""
NO_DNS = '["127.0.0.1:1"]'
"""What an instance asks that a test gave no name server: nothing may leave this host."""
NOBODY = "nobody"
"""Who root's servers are, whatever users this machine has."""
PATIENCE = 60.0
"""Seconds after which something that must happen counts as not happening."""


@dataclass
class Instance:
    """An instance under test; ``start`` and ``kill`` as often as wanted."""

    directory: Path
    environ: dict[str, str] = field(default_factory=dict)
    within: list[str] = field(default_factory=list)
    """A command that runs the server, given the server's own."""
    log_directory: Path | None = None
    """Where the log lies; None: with all the rest."""
    process: subprocess.Popen[bytes] | None = None
    smtp_port: int = 0
    pop3_port: int = 0

    @property
    def log_file(self) -> Path:
        """Everything the server said."""
        return (self.log_directory or self.directory) / "restante.log"

    def log(self) -> str:
        """The log so far."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def run(
        self, *arguments: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run the restante command on this instance."""
        done = subprocess.run(
            [sys.executable, "-m", "restante", "--dir", str(self.directory), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self._environment(),
            check=False,
        )
        return _checked(done) if check else done

    def here(
        self, *arguments: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """As ``run``, in this process: for what a test begins with, or asks again and again.

        A process of its own takes many times as long, nearly all of it to import.
        """
        given, out, err = (
            io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8") for text in (stdin, "", "")
        )
        line = ["--dir", str(self.directory), *arguments]
        with pytest.MonkeyPatch.context() as patch:
            # Not variable by variable: threads may start processes meanwhile.
            patch.setattr(os, "environ", self._environment())
            for name, stream in (("stdin", given), ("stdout", out), ("stderr", err)):
                patch.setattr(sys, name, stream)
            code = run_command_line(line)
        done = subprocess.CompletedProcess(line, code, _written(out), _written(err))
        return _checked(done) if check else done

    def queued(self) -> list[Any]:
        """What ``queue list`` shows."""
        listed: list[Any] = json.loads(self.here("queue", "list", "--json").stdout)
        return listed

    def add_mailbox(self, address: str, password: str = "secret") -> None:
        """A mailbox, its domain first if it is not hosted yet."""
        self.here("mailbox", "add", address, "--password-stdin", stdin=password + "\n")

    def start(self) -> None:
        """Serve; returns when the listeners are known."""
        seen = len(self.log())
        self.spawn()
        self.smtp_port = self.port("smtp", seen)
        self.pop3_port = self.port("pop3", seen)

    def spawn(self) -> None:
        """Serve; returns at once."""
        self.process = subprocess.Popen(
            [*self.within, sys.executable, "-m", "restante", "--dir", str(self.directory), "serve"],
            env=self._environment(),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait until it has ended by itself; the exit status."""
        assert self.process is not None
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def kill(self) -> None:
        """kill -9 for every process of the server at once."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.process = None

    def smtp(self) -> smtplib.SMTP:
        """A connection to the front door."""
        return smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=PATIENCE)

    def pop3(self, login: str, password: str = "secret") -> poplib.POP3:
        """A logged-in POP3 session."""
        session = poplib.POP3("127.0.0.1", self.pop3_port, timeout=PATIENCE)
        try:
            session.user(login)
            session.pass_(password)
        except poplib.error_proto:
            session.close()
            raise
        return session

    def messages(self, login: str, password: str = "secret") -> list[bytes]:
        """All messages of a mailbox, by POP3.

        A Maildir that root is making at this moment, and has not given away yet, cannot be
        opened: then it is asked again.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                session = self.pop3(login, password)
                break
            except poplib.error_proto as error:
                if b"[SYS/TEMP]" not in error.args[0] or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)
        try:
            count, _ = session.stat()
            return [b"\n".join(session.retr(number)[1]) for number in range(1, count + 1)]
        finally:
            session.quit()

    def port(self, service: str, seen: int = 0) -> int:
        """Where a service listens, by the log from its ``seen``-th character on."""
        pattern = re.compile(rf"listening\W+service\W+{service}\W+address\W+\S*:(\d+)")

        def found() -> int:
            match = pattern.search(self.log()[seen:])
            return int(match[1]) if match else 0

        deadline = time.monotonic() + PATIENCE
        while not (port := found()):
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended: {self.log()[seen:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no listener: {self.log()[seen:]}")
            time.sleep(0.02)
        return port

    def _environment(self) -> dict[str, str]:
        """What restante.toml does not name: the environment would overrule it."""
        given = {"RESTANTE_LOG__TARGET": str(self.log_file)}
        named = self._named()
        if "nameservers" not in named.get("relay", {}):
            given["RESTANTE_RELAY__NAMESERVERS"] = NO_DNS
        if os.geteuid() == 0:
            given |= {
                f"RESTANTE_{section.upper()}__USER": NOBODY
                for section in ("server", "mail")
                if "user" not in named.get(section, {})
            }
        return os.environ | given | self.environ

    def _named(self) -> dict[str, dict[str, object]]:
        """The settings of restante.toml, none where that is wrong or not there yet."""
        try:
            return tomllib.loads((self.directory / "restante.toml").read_text())
        except (FileNotFoundError, ValueError):
            return {}


def _written(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def _checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if done.returncode != 0:
        raise AssertionError(f"restante {done.args} failed: {done.stdout}{done.stderr}")
    return done


def until(happened: object, what: str) -> None:
    """Wait until the callable says yes; fail with ``what`` if it never does."""
    assert callable(happened)
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def new_instance(
    directory: Path,
    *,
    database: str = "",
    environ: Mapping[str, str] | None = None,
    domains: tuple[str, ...] = ("example.com",),
) -> Iterator[Instance]:
    """``restante init`` in ``directory``, with domains; killed at the end if it still runs."""
    instance = Instance(directory, dict(environ or {}))
    if database:
        _initialise(instance, domains, "--database", database)
    else:
        _copy(_template(domains), directory)
    try:
        yield instance
    finally:
        instance.kill()


def _initialise(instance: Instance, domains: tuple[str, ...], *options: str) -> None:
    directory = str(instance.directory)
    instance.here("init", directory, "--host", "mx.example.com", *ANY_PORTS, *options)
    for domain in domains:
        instance.here("domain", "add", domain)


@functools.cache
def _template(domains: tuple[str, ...]) -> Path:
    """A new instance to copy, made once in this process: nothing in it names its directory.

    Nor is anything in it the environment's, which each server is given anew.
    """
    scratch = Path(tempfile.mkdtemp(prefix="restante-template-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    scratch.chmod(0o711)
    instance = Instance(scratch / "instance")
    _initialise(instance, domains)
    return instance.directory


def _copy(template: Path, directory: Path) -> None:
    """With owners, modes and pipes, which is why ``shutil`` does not do it."""
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{template}/.", str(directory)], check=True)

"""The demo's first message, and what to type next.

``python -m restante.cli.welcome HOST PORT RECIPIENT`` sends the message from a process
of its own: the supervisor starts workers by fork and must not run threads.
"""

from __future__ import annotations

import shlex
import signal
import smtplib
import subprocess
import sys
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from restante.cli.output import program
from restante.config.tree import HostPort, Settings

SENDER = "welcome@example.org"
PATIENCE = 60
"""Seconds to wait for each of the server's replies."""
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to connect to, not to listen on

_TEXT = """\
This message came in by SMTP at {address},
was routed to your mailbox, and waits there for POP3.
"""


def show_around(settings: Settings, bound: Sequence[tuple[str, HostPort]]) -> None:
    """Send the welcome message through the front door, and print commands to paste."""
    from restante.cli.instance import DEMO_ALIAS

    reachable = {service: _reachable(address) for service, address in reversed(bound)}
    smtp, pop3 = reachable.get("smtp"), reachable.get("pop3")
    print(_tour(settings.directory, smtp, pop3), flush=True)
    if smtp is not None:
        command = [sys.executable, "-m", __name__, smtp.host, str(smtp.port), DEMO_ALIAS]
        subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own program


def _reachable(address: HostPort) -> HostPort:
    return HostPort(_ANY.get(address.host, address.host), address.port)


def _tour(directory: str, smtp: HostPort | None, pop3: HostPort | None) -> str:
    from restante.cli.instance import DEMO_ALIAS, DEMO_MAILBOXES, DEMO_PASSWORD

    first, second = DEMO_MAILBOXES
    instance = f"{program()} --dir {shlex.quote(directory)}"
    lines = [
        "",
        f"Restante serves {directory}.",
        f"Mailboxes: {first} and {second}, password {DEMO_PASSWORD}; {DEMO_ALIAS} reaches both.",
        "",
        "Try, in another terminal:",
    ]
    if smtp is not None:
        curl = f"curl --url smtp://{smtp} --mail-from you@example.org --mail-rcpt {first}"
        lines += [
            f"  printf 'Subject: hello\\n\\nhello\\n' | {curl} --upload-file - --crlf",
            f"  swaks --server {smtp.host} --port {smtp.port} --to {DEMO_ALIAS}",
        ]
    if pop3 is not None:
        lines += [
            f"  curl --url pop3://{pop3} --user {first}:{DEMO_PASSWORD}",
            f"  curl --url pop3://{pop3}/1 --user {first}:{DEMO_PASSWORD}",
        ]
    lines += [f"  {instance} explain {DEMO_ALIAS}", f"  {instance} mailbox show {first}", ""]
    return "\n".join([*lines, "Ctrl-C ends it.", ""])


def main(arguments: Sequence[str]) -> int:
    """Send the message; the exit code."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the supervisor's mask was inherited
    host, port, recipient = arguments
    try:
        with smtplib.SMTP(host, int(port), timeout=PATIENCE) as client:
            client.send_message(_message(f"{host}:{port}", recipient))
    except (OSError, smtplib.SMTPException) as error:
        print(f"restante: the welcome message was not accepted: {error}", file=sys.stderr)
        return 1
    print(f"A welcome message was sent to {recipient}.", flush=True)
    return 0


def _message(address: str, recipient: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"Restante <{SENDER}>"
    message["To"] = recipient
    message["Subject"] = "Welcome to Restante"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="example.org")
    message.set_content(_TEXT.format(address=address))
    return message


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

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
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from restante.cli.output import program, remark
from restante.config.tree import HostPort, Settings

SENDER = "welcome@example.org"
PATIENCE = 60
"""Seconds to wait for each of the server's replies."""
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to connect to, not to listen on

_TEXT = """\
This message came in by SMTP at {address},
was routed to your mailbox, and waits there for POP3.
"""


_COMMANDS = {
    "smtp": (
        "printf 'Subject: hello\\n\\nhello\\n' | curl --url smtp://{at} "
        "--mail-from you@example.org --mail-rcpt {first} --upload-file - --crlf\n"
        "swaks --server {at.host} --port {at.port} --to {alias}"
    ),
    "submission": (
        "swaks --server {at.host} --port {at.port} --tls --auth-user {first} "
        "--auth-password {password} --from {first} --to {second}"
    ),
    "submissions": "openssl s_client -quiet -crlf -connect {at}",
    "pop3": (
        "curl --url pop3://{at} --user {first}:{password}\n"
        "curl --url pop3://{at}/1 --user {first}:{password}"
    ),
    "pop3s": "curl --insecure --url pop3s://{at}/1 --user {first}:{password}",
}
"""What to try with each listener, one command a line."""


def show_around(settings: Settings, bound: Sequence[tuple[str, HostPort]]) -> None:
    """Send the welcome message through the front door, and print commands to paste."""
    from restante.cli.instance import DEMO_ALIAS

    reachable = {service: _reachable(address) for service, address in reversed(bound)}
    print(_tour(settings.directory, reachable), flush=True)
    smtp = reachable.get("smtp")
    if smtp is not None:
        command = [sys.executable, "-m", __name__, smtp.host, str(smtp.port), DEMO_ALIAS]
        subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own program


def _reachable(address: HostPort) -> HostPort:
    return HostPort(_ANY.get(address.host, address.host), address.port)


def _tour(directory: str, reachable: Mapping[str, HostPort]) -> str:
    from restante.cli.instance import DEMO_ALIAS, DEMO_MAILBOXES, DEMO_PASSWORD

    first, second = DEMO_MAILBOXES
    instance = f"{program()} --dir {shlex.quote(directory)}"
    lines = [
        "",
        f"Restante serves {directory}.",
        f"Mailboxes: {first} and {second}, password {DEMO_PASSWORD}; {DEMO_ALIAS} reaches both.",
        "The certificate is self-signed: clients must be told not to mind.",
        "",
        "Try, in another terminal:",
    ]
    for service, commands in _COMMANDS.items():
        if service in reachable:
            words = {"first": first, "second": second, "alias": DEMO_ALIAS}
            filled = commands.format(at=reachable[service], password=DEMO_PASSWORD, **words)
            lines += [f"  {command}" for command in filled.splitlines()]
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
        remark(f"the welcome message was not accepted: {error}")
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

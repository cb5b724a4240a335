"""procmail, maildrop and vacation run as they do under qmail, and mboxes are shared with others."""

from __future__ import annotations

import mailbox
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from restante.config.tree import Programs
from restante.envelope import Content, memory_content
from restante.mda import MboxDelivery, ProgramDelivery
from restante.mda.acts import Actor
from restante.mda.answers import Policy
from restante.mda.durable import LocalDisk
from restante.status import Delivered, Outcome, PermanentFailure
from tests.support.deliveries import BODY, CONTENT, HOST, TRACE, envelope
from tests.support.owner import as_owner
from tests.support.peer_user import NAME, peer, peers_home

pytestmark = pytest.mark.peer

RELEASE = platform.freedesktop_os_release()
ADDRESS = f"{NAME}@example.com"
WITH_LINES = '(printf %s "$UFLINE$RPLINE$DTLINE"; cat) | '
"""What qmail's preline does."""


@pytest.fixture
def home() -> Iterator[Path]:
    with peers_home() as found:
        yield found


def write(home: Path, name: str, text: str) -> None:
    path = home / name
    path.write_text(text)
    path.chmod(0o600)
    os.chown(path, peer(home).uid, peer(home).gid)


def actor() -> Actor:
    return Actor(Policy(HOST, 100, 1), Programs(), False, LocalDisk(), os.eventfd(0))


def run(command: str, home: Path, content: Content = CONTENT) -> Outcome:
    account = peer(home)
    program = ProgramDelivery(command, account, (ADDRESS,), NAME)
    return as_owner(
        lambda: actor().run(envelope(), content, program), account.uid, account.gid
    ).outcome


def in_maildir(path: Path) -> list[bytes]:
    return [each.read_bytes() for each in (path / "new").iterdir()]


def test_procmail_sorts(home: Path) -> None:
    write(home, ".procmailrc", ":0c\n* ^Subject: hello\nhello/\n:0:\nMailbox\n")
    assert isinstance(run(WITH_LINES + "procmail", home), Delivered)
    fields = f"Return-Path: <paul@example.org>\nDelivered-To: {ADDRESS}\n".encode()
    assert in_maildir(home / "hello") == [fields + TRACE + BODY]
    text = (home / "Mailbox").read_bytes()
    assert (
        text == b"From paul@example.org Tue Nov 14 22:13:20 2023\n" + fields + TRACE + BODY + b"\n"
    )


def test_procmail_pipes_and_bounces(home: Path) -> None:
    write(
        home,
        ".procmailrc",
        ":0\n* ^Subject: hello\n| cat >piped; echo 'no such list' >&2; exit 67\n",
    )
    write(home, "rc", "EXITCODE=77\nDEFAULT=/dev/null\n")
    run("procmail", home)
    assert (home / "piped").read_bytes() == TRACE + BODY + b"\n"
    assert isinstance(run("procmail ./rc", home), PermanentFailure)


@pytest.mark.skipif(
    (RELEASE["ID"], RELEASE.get("VERSION_ID")) == ("ubuntu", "24.04"),
    reason="this Ubuntu has no package of it",
)
def test_maildrop_filters(home: Path) -> None:
    (home / "Maildir").mkdir()
    for part in ("tmp", "new", "cur"):
        (home / "Maildir" / part).mkdir()
    account = peer(home)
    for path in (home / "Maildir", *(home / "Maildir").iterdir()):
        os.chown(path, account.uid, account.gid)
    write(home, ".mailfilter", 'if (/^Subject: hello/)\n{\n  cc "Mailbox"\n}\nto "Maildir"\n')
    assert isinstance(run("maildrop", home), Delivered)
    assert in_maildir(home / "Maildir") == [TRACE + BODY]
    assert (home / "Mailbox").read_bytes().endswith(TRACE + BODY + b"\n")
    write(home, ".mailfilter", "EXITCODE=77\nexit\n")
    assert isinstance(run("maildrop", home), PermanentFailure)


def test_vacation_answers_once(home: Path) -> None:
    write(home, ".vacation.msg", "Subject: away\n\nI am away.\n")
    letter = memory_content(TRACE, f"From: paul@example.org\nTo: {ADDRESS}\n\nHi\n".encode())
    assert isinstance(run(f"{WITH_LINES}vacation {NAME}", home, letter), Delivered)
    # The reply itself is the system's sendmail's matter; vacation has noted whom it went to.
    listed = subprocess.run(
        ["vacation", "-l"],
        user=NAME,
        group=NAME,
        env={"HOME": str(home)},
        capture_output=True,
        check=True,
    )
    assert b"paul@example.org" in listed.stdout


# An mbox that others read and write


def delivery(home: Path) -> MboxDelivery:
    return MboxDelivery(str(home / "Mailbox"), peer(home), (ADDRESS,))


def append_all(home: Path, contents: list[Content], first: int) -> None:
    """One process's deliveries; ends itself with a status."""
    acting = actor()
    for number, content in enumerate(contents, start=first):
        numbered = replace(content, trace=b"X-Number: %d\n" % number + content.trace)
        outcome = acting.append(
            envelope(number), numbered, delivery(home), again=False, asked_at=time.monotonic()
        )
        assert isinstance(outcome, Delivered), outcome


def test_mail_readers_see_every_message(home: Path) -> None:
    contents = [
        memory_content(
            TRACE, b"From: a@example.org\nSubject: number %d\n\nFrom me\n\n>From you\n" % n
        )
        for n in range(3)
    ]
    account = peer(home)
    as_owner(lambda: append_all(home, contents, 0), account.uid, account.gid)
    mbox = str(home / "Mailbox")
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "MAILRC": "/dev/null"}
    listed = subprocess.run(
        ["s-nail", "-n", "-R", "-H", "-f", mbox], capture_output=True, env=environment, check=True
    )
    assert re.findall(rb"number \d", listed.stdout) == [b"number 0", b"number 1", b"number 2"]
    with open(mbox, "rb") as file:
        split = subprocess.run(
            ["formail", "-s", "formail", "-xSubject:"], stdin=file, capture_output=True, check=True
        )
    assert split.stdout == b" number 0\n number 1\n number 2\n"


PROCMAIL = "for i in $(seq 20); do procmail -m rc <letter || exit 1; done"
DOTLOCKFILE = (
    "for i in $(seq 20); do dotlockfile -r 100 -i 1 -p Mailbox.lock || exit 1;"
    " cat letter >>Mailbox && dotlockfile -u Mailbox.lock || exit 1; done"
)


def test_all_who_add_to_an_mbox_wait_for_each_other(home: Path) -> None:
    write(home, "rc", "LOCKSLEEP=1\n:0:\nMailbox\n")
    write(
        home,
        "letter",
        "From other@example.org Tue Nov 14 22:13:20 2023\nSubject: other\n\nOther.\n\n",
    )
    account = peer(home)
    others = [
        subprocess.Popen(["sh", "-c", script], cwd=home, user=NAME, group=NAME, extra_groups=[])
        for script in (PROCMAIL, DOTLOCKFILE)
    ]
    ours = [memory_content(TRACE, b"Subject: ours\n\n" + b"From me\n" * 5000)] * 20

    def three_processes() -> list[int]:
        children = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    append_all(home, ours, 100 * child)
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        return [os.waitpid(pid, 0)[1] for pid in children]

    assert as_owner(three_processes, account.uid, account.gid) == [0, 0, 0]
    assert [other.wait() for other in others] == [0, 0]
    found = mailbox.mbox(str(home / "Mailbox"), create=False)
    subjects = [message["Subject"] for message in found]
    payloads = {message.get_payload() for message in found}
    found.close()
    assert (subjects.count("ours"), subjects.count("other"), len(subjects)) == (60, 40, 100)
    assert payloads == {">From me\n" * 5000, "Other.\n"}
    assert not (home / "Mailbox.lock").exists()

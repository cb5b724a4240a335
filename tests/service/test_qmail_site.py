"""A qmail site meets Restante: what explain promises for every kind of address is what happens.

The administrator's story. He has a control directory and a database that only SQL statements have
filled. He looks at it with ``check`` and ``explain``, serves it, sends to every kind of address,
reads everything, breaks one thing after the other, and takes his settings into a restante.toml.
"""

from __future__ import annotations

import json
import os
import poplib
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from tests.support.household import descendants, helpers, servant, uids_of
from tests.support.instance import NO_DNS, Instance, until
from tests.support.mariadb import PASSWORD, MariaDB
from tests.support.owner import only_root
from tests.support.promises import BOUNCE, SENDER, found, promised, subject_of
from tests.support.qmail_site import ALIAS, LOGINS, OWNERS, SAM, QmailSite, qmail_site
from tests.support.serving import NOBODY, reload, start, workers
from tests.support.smtp_peer import SmtpPeer, smtp_peer

pytestmark = pytest.mark.mariadb

FRIEND = "friend@elsewhere.example"
_EXPLAIN = """
import sys
from restante.cli.app import run
for address in sys.stdin.read().split():
    run([*sys.argv[1:], "explain", "--json", address])
    print("\\0", end="")
"""


class Told(NamedTuple):
    """An address, and what its mail comes to."""

    address: str
    comes_to: tuple[str, ...] = ()
    """Everything that happens; paths are below the homes, or in one where they begin with a dot."""
    reply: str = "250 2.1.5"
    """To RCPT."""
    unless: tuple[str, ...] = ()
    """What explain lists, and a program before it can prevent, and does."""
    waits: bool = False
    """It stays in the queue."""
    refuses: bool = False
    """A program has it returned."""


def maildir(home: str, delivered_to: str) -> str:
    """A copy in a Maildir."""
    return f"{home}/Maildir as {delivered_to}"


def refused(address: str, reply: str) -> Told:
    """Nothing happens."""
    return Told(address, (), reply)


OUT = f"sent to {FRIEND} from {SENDER}"
STORY = [
    # Accounts, and what is said of the overview's example
    Told("example@iain.cx", (maildir("iain", "iain@babasse.com"),)),
    Told("iain@iain.cx", (maildir("iain", "iain@iain.cx"),)),
    Told("CARL@Iain.CX", (maildir("carl", "carl@iain.cx"),)),
    Told("dan@example.org", (maildir("dan", "dan@example.org"),)),
    Told("old@example.org", (maildir("old", "old@example.org"),)),
    Told("eve+shop@example.org", (maildir("eve", "eve@example.org"),)),
    Told("anybody@example.org", (maildir("eve", "eve@example.org"),)),
    refused("iain-unheard-of@iain.cx", "550 5.1.1"),
    refused("ghost@iain.cx", "550 5.1.1"),
    refused("ghost@babasse.com", "550 5.1.1"),
    # Rows of alias
    Told("postmaster@iain.cx", (maildir("iain", "iain@iain.cx"),)),
    Told("iain-note@iain.cx", ("|NOTE kept 0 as iain-note@babasse.com",)),
    Told("iain-box@iain.cx", ("./box as iain-box@babasse.com",)),
    Told(
        "iain-refuse@iain.cx",
        ("|NOTE refused 100 as iain-refuse@babasse.com", BOUNCE),
        refuses=True,
    ),
    Told("iain-later@iain.cx", ("|NOTE later 111 as iain-later@babasse.com",), waits=True),
    Told(
        "iain-enough@iain.cx",
        ("|NOTE enough 99 as iain-enough@babasse.com",),
        unless=("./never as iain-enough@babasse.com",),
    ),
    Told("iain-out@iain.cx", (OUT,)),
    Told("iain-both@iain.cx", (maildir("iain", "iain-both@babasse.com"), OUT)),
    Told("one@iain.cx", (BOUNCE,)),
    Told(
        "friends@lists.example.org",
        (
            maildir("carl", "carl@iain.cx"),
            f"sent to {FRIEND} from lists-friends-owner@lists.example.org",
        ),
    ),
    # A user of the system, and .qmail files
    Told("sam@iain.cx", (maildir("sam", "sam@babasse.com"),)),
    Told("sam-box@iain.cx", ("./Mailbox as sam-box@babasse.com",)),
    Told("sam-dot.ted@iain.cx", ("./box as sam-dot.ted@babasse.com",)),
    Told("sam-empty@iain.cx", (maildir("sam", "sam-empty@babasse.com"),)),
    Told("sam-trash@iain.cx"),
    Told(
        "sam-list@iain.cx",
        (
            maildir("carl", "carl@iain.cx"),
            f"sent to {FRIEND} from sam-list-owner-friend=elsewhere.example@babasse.com",
        ),
    ),
    Told("sam-list-owner@iain.cx", (maildir("sam", "sam-list-owner@babasse.com"),)),
    refused("sam-unheard-of@iain.cx", "550 5.1.1"),
    refused("sam-open@iain.cx", "451 4.3.5"),
    # The user alias
    Told("root@iain.cx", (maildir("sam", "sam@babasse.com"),)),
    Told("all-day@iain.cx", (maildir("alias", "all-day@babasse.com"),)),
    # virtualdomains, rcpthosts and morercpthosts
    Told(
        "u@virt.example.net",
        (
            maildir("sam", "sam-site-u@virt.example.net"),
            "|NOTE site 0 as sam-site-u@virt.example.net",
        ),
    ),
    Told("u@more.example.net", (maildir("alias", "alias-all-u@more.example.net"),)),
    refused("boss@more.example.net", "550 5.1.1"),
    Told("u@a.sub.example.net", (maildir("alias", "alias-all-u@a.sub.example.net"),)),
    refused("u@away.more.example.net", "550 5.7.1"),
    refused("u@not.example", "550 5.7.1"),
    refused(FRIEND, "550 5.7.1"),
]


@dataclass
class Story:
    """The site while it is served."""

    site: QmailSite
    instance: Instance
    database: MariaDB
    peer: SmtpPeer
    promises: dict[str, dict[str, Any]] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> tuple[str, ...]:
        """Of every command: the control directory is all that there is of settings."""
        return ("--control", str(self.site.control), "--dir", str(self.instance.directory))

    def run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """A command on this host, as its administrator calls it."""
        return subprocess.run(
            self.site.users.seen_by(command),
            input=stdin,
            env=os.environ | self.instance.environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def restante(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The restante command."""
        return self.run(sys.executable, "-m", "restante", *self.options, *words)

    def explain(self, *addresses: str, options: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """What ``explain --json`` prints for each of them."""
        program = [sys.executable, "-c", _EXPLAIN, *(options or self.options)]
        done = self.run(*program, stdin="\n".join(addresses))
        told = [json.loads(text) for text in done.stdout.split("\0") if text.strip()]
        return dict(zip(addresses, told, strict=True))

    def send(self, address: str) -> str:
        """Send a message that names its address; the reply to RCPT, or a refusal of the content."""
        with self.instance.smtp() as client:
            client.ehlo()
            client.mail(SENDER)
            code, text = client.rcpt(address)
            if code == 250:
                content = f"From: {SENDER}\nSubject: {subject_of(address)}\n\nFrom here\n"
                accepted = client.data(content)
                if accepted[0] != 250:  # who was taken before is taken first, and then asked about
                    code, text = accepted
            return f"{code} {text.decode()}"

    def rest(self) -> None:
        """Wait until all that was accepted, and all bounces, came to an end or wait for long."""
        until(lambda: not self._under_way(), "everything is delivered, returned, or waits")

    def _under_way(self) -> set[str]:
        log = self.instance.log()
        accepted = set(re.findall(r"event=message_accepted .* id=(\S+) .* how=queued", log))
        bounces = set(re.findall(r"event=bounced .* bounce=(\S+)", log))
        return (accepted | bounces) - set(
            re.findall(r"event=(?:message_finished|deferred) id=(\S+)", log)
        )


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, mariadb_server: MariaDB) -> Iterator[Story]:
    """The site is served, what is promised was noted, and everybody was sent a message."""
    top = tmp_path_factory.mktemp("site")
    with smtp_peer(SmtpPeer()) as peer:
        site = qmail_site(top, mariadb_server, peer.port)
        environ = {
            "RESTANTE_CONTROL": str(site.control),
            "RESTANTE_SMTP__LISTEN": '["127.0.0.1:0"]',
            "RESTANTE_POP3__LISTEN": '["127.0.0.1:0"]',
            "RESTANTE_RELAY__NAMESERVERS": NO_DNS,
            "RESTANTE_AUTH__REFUSAL_DELAY": "0.05",
            "RESTANTE_SERVER__WORKERS": "1",
        }
        directory = top / "instance"
        directory.mkdir(mode=0o711)
        instance = Instance(directory, environ, site.users.seen_by([]))
        told = Story(site, instance, mariadb_server, peer)
        told.promises = told.explain(*(each.address for each in STORY))
        start(instance)
        try:
            told.replies = {each.address: told.send(each.address) for each in STORY}
            told.rest()
            yield told
        finally:
            instance.kill()


# He looks at it, and serves it


@only_root
def test_check_finds_it_in_order(story: Story) -> None:
    done = story.restante("check")

    assert done.returncode == 0, done.stdout
    for odd in (
        "me: only the first line counts",
        "locals: '.never.example' never matches",
        "sqlserver: line 7: begins with none of server, login",
        "concurrencylocal: line 1: what follows 5 does not count",
        "percenthack is not read",
    ):
        assert f"advice: {story.site.control}/{odd}" in done.stdout


@only_root
@pytest.mark.parametrize("told", STORY, ids=lambda told: told.address)
def test_what_is_promised_is_done(story: Story, told: Told) -> None:
    promise = story.promises[told.address]
    reply = promise["reply"]
    assert story.replies[told.address] == f"{reply['code']} {reply['enhanced']} {reply['text']}"
    assert story.replies[told.address].startswith(told.reply)

    expected = promised(story.site, promise)
    done = found(story.site, story.peer, told.address)
    assert {each.what for each in done} == set(told.comes_to)
    # Only a program's end is nobody's to foresee.
    assert {each.what for each in expected - done} == set(told.unless)
    assert {each.what for each in done - expected} <= ({BOUNCE} if told.refuses else set())


@only_root
def test_what_waits_can_be_seen(story: Story) -> None:
    listed = json.loads(story.restante("queue", "list", "--json").stdout)

    waiting = {each.address for each in STORY if each.waits}
    assert {to["address"] for each in listed for to in each["recipients"]} == waiting


@only_root
def test_the_log_answers_who_got_what(story: Story) -> None:
    """Asked for the address that the sender knows, whatever became of it."""
    log = story.instance.log()
    for told in STORY:
        events = re.findall(
            rf"event=(\S+) .*recipient={re.escape(told.address)} ", log, re.IGNORECASE
        )
        assert events, told.address
    assert PASSWORD not in log
    assert "event=unplanned" not in log


# Everybody reads


@only_root
@pytest.mark.parametrize("login", LOGINS)
def test_mail_is_read_by_pop3(story: Story, login: str) -> None:
    messages = story.instance.messages(login, LOGINS[login])

    owner = login.partition("@")[0]
    files = list((story.site.home(owner) / "Maildir" / "new").iterdir())
    assert sorted(messages) == sorted(file.read_bytes().rstrip(b"\n") for file in files)
    assert messages


@only_root
@pytest.mark.parametrize("login", ["lists", "root", "alias", "ghost", "anybody@example.org"])
def test_nobody_else_does(story: Story, login: str) -> None:
    for password in ("", "wrong"):
        with pytest.raises(poplib.error_proto, match=r"\[AUTH\]|password"):
            story.instance.pop3(login, password)


@only_root
def test_everything_is_its_owners(story: Story) -> None:
    uids = OWNERS | {"sam": SAM, "alias": ALIAS}
    for owner, uid in uids.items():
        for path in story.site.home(owner).rglob("*"):
            about = path.lstat()
            assert (about.st_uid, about.st_gid) == (uid, uid), path
            if not path.name.startswith(".qmail"):
                expected = 0o700 if path.is_dir() else 0o600
                assert stat.S_IMODE(about.st_mode) == expected, path


@only_root
def test_who_runs(story: Story) -> None:
    assert story.instance.process is not None
    story.send("sam@iain.cx")
    nursery = servant(story.instance, "nursery")
    for pid in descendants(story.instance.process.pid) - {nursery}:
        assert set(uids_of(pid)) <= {NOBODY, SAM, ALIAS, *OWNERS.values()}
    assert SAM in {uids_of(pid)[0] for pid in helpers(story.instance)}


# One thing after the other breaks


@only_root
def test_the_database_goes_away(story: Story) -> None:
    asked = ("iain@iain.cx", "sam@iain.cx", "ghost@iain.cx", "u@virt.example.net", FRIEND)
    story.database.stop()
    try:
        for address, explained in story.explain(*asked).items():
            assert explained["reply"]["code"] == 451, address
            assert story.send(address).startswith("451 4.3.0"), address
        assert story.restante("explain", "ghost@iain.cx").returncode == 75
        for login in ("iain", "sam", "ghost"):
            with pytest.raises(poplib.error_proto, match=r"\[SYS/TEMP\]"):
                story.instance.pop3(login, "whatever")
        assert check_password(story, "iain", "iain pw").returncode == 111
    finally:
        story.database.start()
    until(lambda: story.send("iain@iain.cx").startswith("250 "), "it is back")
    assert story.send("ghost@iain.cx").startswith("550 5.1.1")


@only_root
def test_a_home_is_somebody_elses(story: Story) -> None:
    home = story.site.home("carl")
    os.chown(home, OWNERS["dan"], OWNERS["dan"])
    try:
        why = f"belongs to uid {OWNERS['dan']}, not to {OWNERS['carl']}"
        assert why in str(story.explain("carl@iain.cx")["carl@iain.cx"]["decision"])
        assert f"the home {home} {why}; its mail waits" in story.restante("check").stdout
        assert story.send("carl@iain.cx").startswith("451 4.3.5")
        seen = len(story.instance.log())
        with pytest.raises(poplib.error_proto, match=r"\[SYS/TEMP\]"):
            story.instance.pop3("carl", LOGINS["carl"]).stat()
        assert (
            f"belongs to uid {OWNERS['dan']}, not to {OWNERS['carl']}"
            in story.instance.log()[seen:]
        )
    finally:
        os.chown(home, OWNERS["carl"], OWNERS["carl"])
    assert story.send("carl@iain.cx").startswith("250 ")


@only_root
def test_a_control_file_is_changed_and_broken(story: Story) -> None:
    locals_ = story.site.control / "locals"
    before = locals_.read_bytes()
    try:
        assert story.send("iain@new.babasse.com").startswith("550 5.7.1")
        with (story.site.control / "morercpthosts").open("a") as file:
            file.write("new.babasse.com\n")
        locals_.write_bytes(before + b"new.babasse.com\n")
        until(lambda: story.send("iain@new.babasse.com").startswith("250 "), "it counts")
        locals_.write_bytes(b"\xff\n")
        told = f'event=control_refused problems="{locals_}: line 1: is not UTF-8"'
        until(
            lambda: (
                story.send("iain@new.babasse.com").startswith("250 ")
                and told in story.instance.log()
            ),
            "it is told, and what was stands",
        )
        done = story.restante("check")
        assert (done.returncode, "is not UTF-8" in done.stdout) == (1, True)
        assert "event=reload_refused" in reload(story.instance)
    finally:
        locals_.write_bytes(before)
    assert "event=server_reloaded" in reload(story.instance)


@only_root
def test_the_default_delivery_becomes_an_mbox(story: Story) -> None:
    """As most qmail sites have it."""
    file = story.site.control / "defaultdelivery"
    before = file.read_bytes()
    address, wanted = "old+box@example.org", "./Mailbox as old@example.org"
    try:
        file.write_text("# qmail's own\n./Mailbox\n")
        assert story.restante("check").returncode == 0
        (promise,) = promised(story.site, story.explain(address)[address])
        assert promise.what == wanted

        def kept() -> bool:
            assert story.send(address).startswith("250 ")
            return promise in found(story.site, story.peer, address)

        until(kept, "the change counts, and what is promised is done")
    finally:
        file.write_bytes(before)


@only_root
def test_everybody_can_read_the_password(story: Story) -> None:
    sqlserver = story.site.control / "sqlserver"
    sqlserver.chmod(0o644)
    try:
        done = story.restante("check")
        assert done.returncode == 1
        assert f"run: chmod o-rwx {sqlserver}" in done.stdout
        assert f"chmod o-rwx {sqlserver}" in reload(story.instance)
        assert check_password(story, "iain", "iain pw", running=False).returncode == 111
    finally:
        sqlserver.chmod(0o600)
    assert story.send("iain@iain.cx").startswith("250 ")


@only_root
def test_a_worker_is_killed_and_the_server_started_again(story: Story) -> None:
    (worker,) = workers(story.instance, 1)
    os.kill(worker, signal.SIGKILL)
    until(lambda: workers(story.instance, 1) != {worker}, "it has a successor")
    assert story.send("dan@example.org").startswith("250 ")
    assert story.instance.stop() == 0
    start(story.instance)
    test_what_waits_can_be_seen(story)
    assert story.send("dan@example.org").startswith("250 ")


# The control directory alone, and without it


@only_root
def test_checkpassword_needs_no_server(story: Story) -> None:
    done = check_password(story, "sam", "sam pw", running=False)
    assert (done.returncode, done.stdout) == (0, f"sam {SAM} {story.site.home('sam')}\n")
    assert check_password(story, "iain@iain.cx", "iain pw").stdout.startswith("iain 54201 ")
    assert check_password(story, "iain", "wrong", running=False).returncode == 1


@only_root
def test_settings_are_taken_over(story: Story) -> None:
    taken = story.site.top / "taken"
    done = story.run(
        sys.executable,
        "-m",
        "restante",
        "init",
        "--from-qmail",
        str(story.site.control),
        str(taken),
    )
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((taken / "restante.toml").stat().st_mode) == 0o600
    for left in ("percenthack", "sqlserver: line 7", ".never.example"):
        assert left in done.stdout
    addresses = [each.address for each in STORY]
    del story.instance.environ["RESTANTE_CONTROL"]
    told = story.explain(*addresses, options=("--dir", str(taken)))
    for address in addresses:
        assert decided(told[address]) == decided(story.promises[address])


def check_password(
    story: Story, login: str, password: str, *, running: bool = True
) -> subprocess.CompletedProcess[str]:
    """By hand; ``running``: of the server's instance, else of none, by the directory alone."""
    credentials = story.site.top / "credentials"
    credentials.write_bytes(f"{login}\0{password}\0Y123456\0".encode())
    instance = str(story.instance.directory if running else story.site.top / "none")
    program = [sys.executable, "-m", "restante.checkpassword", "--dir", instance]
    tell = ["sh", "-c", "echo $USER $(id -u) $HOME"]
    with_third = ["sh", "-c", f'exec "$@" 3< {credentials}', "sh"]
    return story.run(*with_third, *program, *story.options[:2], *tell)


def decided(explanation: dict[str, Any]) -> dict[str, Any]:
    """All of it but the steps, which name where a setting stands, and how mail leaves."""
    return {key: value for key, value in explanation.items() if key != "steps"}

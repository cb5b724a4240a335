"""Programs, run for real as the user whose they are (qmail-command(8))."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from restante.address import NULL_REVERSE_PATH, Address
from restante.config.tree import Programs
from restante.directory import Account
from restante.envelope import Content, Envelope, HeaderFacts, memory_content
from restante.mda import ProgramDelivery, Ran, program
from restante.mda.acts import Actor
from restante.mda.answers import Policy
from restante.mda.durable import LocalDisk
from restante.mda.environment import environment
from restante.status import Delivered, PermanentFailure, TemporaryFailure
from tests.support.contents import spooled_content
from tests.support.deliveries import BODY, CONTENT, HOST, TRACE, envelope
from tests.support.owner import AS_ROOT, as_owner, owner, owners_home

PROGRAMS = Programs()
Run = Callable[..., Ran]


@pytest.fixture
def home() -> Iterator[Path]:
    with owners_home() as found:
        yield found


def delivery(command: str, home: Path, account: Account | None = None) -> ProgramDelivery:
    return ProgramDelivery(
        command, account or owner(home), ("iain-list-x@a.example.com",), "iain", "list-x"
    )


def actor(
    programs: Programs = PROGRAMS, *, is_server: bool = False, stop: int | None = None
) -> Actor:
    never = os.eventfd(0) if stop is None else stop
    return Actor(Policy(HOST, 100, 1), programs, is_server, LocalDisk(), never)


def run(
    command: str,
    home: Path,
    *,
    content: Content = CONTENT,
    programs: Programs = PROGRAMS,
    from_whom: Envelope | None = None,
) -> Ran:
    """How the command ends as the owner."""
    sent = from_whom or envelope()
    return as_owner(lambda: actor(programs).run(sent, content, delivery(command, home)))


def detail_of(ran: Ran) -> str:
    return ran.outcome.detail


def variables(home: Path, text: bytes) -> dict[str, str]:
    pairs = text.decode("utf-8", "surrogateescape").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def test_the_message_is_standard_input_without_return_path(home: Path) -> None:
    assert isinstance(run("cat >got", home).outcome, Delivered)
    assert (home / "got").read_bytes() == TRACE + BODY


def test_the_message_bears_the_aliases_by_which_it_came(home: Path) -> None:
    """So one that goes back to them is known to be looping, whatever the program does of DTLINE."""
    came = replace(delivery("cat >got", home), delivered_to=("iain@x", "list@x", "all@y"))
    ran = as_owner(lambda: actor().run(envelope(), CONTENT, came))
    assert isinstance(ran.outcome, Delivered)
    fields = b"Delivered-To: list@x\nDelivered-To: all@y\n"
    assert (home / "got").read_bytes() == fields + TRACE + BODY


def test_a_large_message_from_its_file(home: Path) -> None:
    body = os.urandom(3_000_001).replace(b"\r", b"")
    spool = home.parent / "spool"
    spool.write_bytes(body)
    content = spooled_content(TRACE, str(spool), body.count(b"\n"), HeaderFacts())
    assert isinstance(run("cat >got", home, content=content).outcome, Delivered)
    assert (home / "got").read_bytes() == TRACE + body


def test_no_command_gets_a_part_of_a_message(home: Path) -> None:
    spool = home.parent / "spool"
    spool.write_bytes(BODY)
    content = spooled_content(TRACE, str(spool), BODY.count(b"\n"), HeaderFacts())
    os.truncate(spool, len(BODY) - 1)
    ran = run("cat >got", home, content=content)
    assert isinstance(ran.outcome, TemporaryFailure)
    assert "1 octets shorter than it was" in detail_of(ran)
    assert not (home / "got").exists()


def test_standard_input_can_be_rewound_and_not_written(home: Path) -> None:
    script = home / "twice.py"
    script.write_text(
        "import os\n"
        "first = os.read(0, 10**6); os.lseek(0, 0, 0); again = os.read(0, 10**6)\n"
        "try:\n os.write(0, b'x'); print('written')\n"
        "except OSError: print(first == again, os.lseek(0, 0, 1) == len(first))\n"
    )
    assert "True True" in detail_of(run("python3 twice.py", home))


def test_the_environment_is_exactly_this(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTANTE_SECRET", "x")
    run("cat /proc/self/environ >env", home)
    found = variables(home, (home / "env").read_bytes())
    recipient = "iain-list-x@a.example.com"
    assert found == {
        "PATH": PROGRAMS.path,
        "SHELL": "/bin/sh",
        "PWD": str(home),
        "HOME": str(home),
        "USER": "iain",
        "SENDER": "paul@example.org",
        "NEWSENDER": "paul@example.org",
        "RECIPIENT": recipient,
        "LOCAL": "iain-list-x",
        "HOST": "a.example.com",
        "HOST2": "a.example",
        "HOST3": "a",
        "HOST4": "a",
        "EXT": "list-x",
        "EXT2": "x",
        "EXT3": "",
        "EXT4": "",
        "DTLINE": f"Delivered-To: {recipient}\n",
        "RPLINE": "Return-Path: <paul@example.org>\n",
        "UFLINE": "From paul@example.org Tue Nov 14 22:13:20 2023\n",
    }


def test_default_and_new_sender(home: Path) -> None:
    one = replace(delivery("", home), default="x", new_sender="list-owner-@example.com-@[]")
    found = environment(envelope(), one, "/bin")
    assert (found["DEFAULT"], found["NEWSENDER"]) == ("x", "list-owner-@example.com-@[]")
    bounce = Envelope("q", NULL_REVERSE_PATH, (), 0.0)
    found = environment(bounce, one, "/bin")
    assert (found["SENDER"], found["NEWSENDER"]) == ("", "")
    assert found["RPLINE"] == "Return-Path: <>\n"
    assert found["UFLINE"] == "From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n"


def test_hostile_senders_stay_within_their_variables(home: Path) -> None:
    sender = Address("$(touch x) `id`\t'\"\u00e9", "example.org")
    hostile = Envelope("q", sender, (), 0.0)
    run("cat /proc/self/environ >env", home, from_whom=hostile)
    found = variables(home, (home / "env").read_bytes())
    assert found["SENDER"] == str(sender)
    assert found["UFLINE"].count("\n") == found["RPLINE"].count("\n") == 1
    assert found["UFLINE"].startswith("From $(touch-x)-`id`-'\"")
    assert sorted(os.listdir(home)) == ["env"]


def test_a_nul_cannot_be_passed_on(home: Path) -> None:
    nul = Envelope("q", Address("a\0b", "example.org"), (), 0.0)
    for ran in (run("true", home, from_whom=nul), run("true\0x", home)):
        assert isinstance(ran.outcome, TemporaryFailure)
        assert str(ran.outcome.reply).startswith("451 4.3.5")


def test_exit_codes(home: Path) -> None:
    def run_all() -> list[Ran]:
        acting = actor()
        commands = [delivery(f"echo because; exit {code}", home) for code in range(256)]
        return [acting.run(envelope(), CONTENT, command) for command in commands]

    for code, ran in enumerate(as_owner(run_all)):
        outcome = ran.outcome
        assert f"exit {code}, it wrote: because" in outcome.detail
        if code in (0, 99):
            assert isinstance(outcome, Delivered)
        elif code in (100, 64, 65, 70, 76, 77, 78, 112):
            assert isinstance(outcome, PermanentFailure)
            assert outcome.reply.enhanced == "5.0.0"
            assert outcome.reply.text.endswith("and said:\nbecause")
        else:
            assert isinstance(outcome, TemporaryFailure)
            assert "because" not in outcome.reply.text


def test_99_is_the_last(home: Path) -> None:
    assert run("exit 99", home).is_last
    assert not run("exit 0", home).is_last


def test_a_signal_is_temporary(home: Path) -> None:
    outcome = run("kill -SEGV $$", home).outcome
    assert isinstance(outcome, TemporaryFailure)
    assert "killed by SIGSEGV" in outcome.detail


def test_what_it_writes_is_bounded_and_cleaned(home: Path) -> None:
    few = replace(PROGRAMS, max_output=40)
    outcome = run(
        r"printf 'a\033[31mred\000\n\377\n' >&2; head -c 3000000 /dev/zero | tr '\0' x; exit 100",
        home,
        programs=few,
    ).outcome
    assert isinstance(outcome, PermanentFailure)
    assert outcome.reply.text.splitlines()[1:] == ["a [31mred", "\ufffd", "x" * (40 - 13)]
    assert outcome.reply.text.isprintable() is False  # line ends alone
    assert outcome.reply.text.replace("\n", "").isprintable()


def test_who_reads_nothing_is_not_harmed_by_it(home: Path) -> None:
    large = memory_content(TRACE, b"x" * 1_000_000 + b"\n")
    assert isinstance(run("exec <&-; exit 0", home, content=large).outcome, Delivered)
    assert isinstance(run("head -c 1 >/dev/null", home, content=large).outcome, Delivered)


def test_descriptors_session_umask_signals(home: Path) -> None:
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    script = home / "look.py"
    script.write_text(
        "import os, signal, resource\n"
        "fds = sorted(map(int, os.listdir('/proc/self/fd')))\n"
        "status = dict(l.split(':', 1) for l in open('/proc/self/status'))\n"
        "print(fds[:3], len(fds), os.getsid(0) == os.getpgid(0), oct(os.umask(0)),\n"
        " hex(int(status['SigBlk'], 16)), hex(int(status['SigIgn'], 16) & 0x7fffffff),\n"
        " resource.getrlimit(resource.RLIMIT_CORE),\n"
        " resource.getrlimit(resource.RLIMIT_NOFILE)[0],\n"
        " os.getuid(), os.getgroups(), os.getcwd() == os.environ['HOME'])\n"
    )

    def with_odd_signals() -> Ran:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        return actor().run(envelope(), CONTENT, delivery("exec python3 -S look.py", home))

    try:
        text = detail_of(as_owner(with_odd_signals))
    finally:
        os.close(leak)
    # Python itself ignores SIGPIPE and SIGXFSZ; listing takes a descriptor.
    assert f"[0, 1, 2] 4 True 0o77 0x0 0x1001000 (0, 0) 1024 {owner(home).uid}" in text
    assert text.endswith("[] True" if AS_ROOT else "True")


def test_limits(home: Path) -> None:
    limits = replace(
        PROGRAMS, max_cpu=7, max_memory=2**30, max_file=4096, max_processes=1000, umask="027"
    )
    command = "ulimit -t; ulimit -v; ulimit -f; umask; grep '^Max processes' /proc/self/limits"
    text = detail_of(run(command, home, programs=limits))
    assert "it wrote: 7 / 1048576 / 8 / 0027 / Max processes" in text
    assert text.split()[-3:] == ["1000", "1000", "processes"]
    outcome = run("head -c 5000 /dev/zero >file", home, programs=limits).outcome
    assert isinstance(outcome, TemporaryFailure)
    assert (home / "file").stat().st_size == 4096


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in (b"Z", b"X")


def wait_until_dead(pid: int) -> None:
    while is_alive(pid):
        time.sleep(0.01)


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "KILL_AFTER", 1.0)


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("echo here; : >begun; exec sleep 1000", "no end in 1 seconds: killed by SIGTERM"),
        ("trap '' TERM; echo here; : >begun; while :; do sleep 1000; done", "killed by SIGKILL"),
        ("trap 'exit 0' TERM; echo here; : >begun; while :; do sleep 0.01; done", "exit 0"),
        ("echo here; : >begun; kill -STOP $$", "no end in 1 seconds: killed by SIGKILL"),
        ("echo here; echo here; : >begun; yes here", "killed by SIGTERM, it wrote: here / here"),
    ],
)
def test_the_time_limit(
    home: Path, monkeypatch: pytest.MonkeyPatch, command: str, how: str
) -> None:
    """It is over as soon as the command has come so far, and no sooner."""

    def clock() -> float:
        return time.monotonic() if (home / "begun").exists() else 0.0

    monkeypatch.setattr(program, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(program, "KILL_AFTER", 1.0 if "SIGKILL" in how else 60.0)
    outcome = run(command, home, programs=replace(PROGRAMS, timeout=1.0)).outcome
    assert isinstance(outcome, TemporaryFailure)
    assert how in outcome.detail
    assert "here" in outcome.detail


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize(
    "child", ["sleep 1000", "sh -c 'trap \"\" TERM HUP; sleep 1000'", "sh -c 'kill -STOP $$'"]
)
def test_nothing_of_its_group_stays(home: Path, child: str) -> None:
    outcome = run(f"{child} & echo $! >pid; exit 0", home).outcome
    assert isinstance(outcome, Delivered)
    wait_until_dead(int((home / "pid").read_text()))


def test_others_of_its_group_may_finish_soon(home: Path) -> None:
    assert isinstance(run("{ sleep 0.2; echo >done; } & exit 0", home).outcome, Delivered)
    assert (home / "done").exists()


@pytest.mark.usefixtures("little_patience")
def test_it_ends_when_the_server_stops(home: Path) -> None:
    stop = os.eventfd(1)
    command = delivery("exec sleep 1000", home)

    def run_and_stop() -> Ran:
        never = os.eventfd(0)
        acting = actor(stop=never)
        pid = os.fork()
        if pid == 0:
            while not any(home.iterdir()):
                time.sleep(0.01)
            os.eventfd_write(never, 1)
            os._exit(0)
        begun = replace(command, command="echo >begun; exec sleep 1000")
        return acting.run(envelope(), CONTENT, begun)

    outcome = as_owner(run_and_stop).outcome
    assert isinstance(outcome, TemporaryFailure)
    assert "the server stops: killed by SIGTERM" in outcome.detail
    closing = as_owner(lambda: actor(stop=stop).run(envelope(), CONTENT, command)).outcome
    assert isinstance(closing, TemporaryFailure)
    assert closing.reply.enhanced == "4.3.2"


def test_a_looping_message_bounces(home: Path) -> None:
    looping = memory_content(TRACE, BODY, HeaderFacts(1, frozenset({"iain-list-x@a.example.com"})))
    outcome = run("echo >ran", home, content=looping).outcome
    assert isinstance(outcome, PermanentFailure)
    assert outcome.reply.enhanced == "5.4.6"
    assert not (home / "ran").exists()


def test_never_as_the_servers_own_user(home: Path) -> None:
    def as_server(programs: Programs) -> Ran:
        return as_owner(
            lambda: actor(programs, is_server=True).run(envelope(), CONTENT, delivery("true", home))
        )

    refused = as_server(PROGRAMS).outcome
    assert isinstance(refused, TemporaryFailure)
    assert refused.reply.enhanced == "4.3.5"
    assert "programs.run_as_server_user is not set" in refused.detail
    allowed = as_server(replace(PROGRAMS, run_as_server_user=True)).outcome
    assert isinstance(allowed, Delivered)


def test_never_as_root_nor_as_another(home: Path) -> None:
    other = replace(owner(home), uid=owner(home).uid + 1)
    outcome = as_owner(
        lambda: actor().run(envelope(), CONTENT, delivery("echo >ran", home, other))
    ).outcome
    assert isinstance(outcome, TemporaryFailure)
    assert f"the account's uid is {other.uid}, the server runs as" in outcome.detail
    if AS_ROOT:
        for account in (owner(home), replace(owner(home), uid=0)):
            outcome = actor().run(envelope(), CONTENT, delivery("echo >ran", home, account)).outcome
            assert isinstance(outcome, TemporaryFailure)
            assert "by root" in outcome.detail
    assert not (home / "ran").exists()


def test_homes_that_cannot_be_trusted(home: Path) -> None:
    home.chmod(0o777)
    outcome = run("echo >ran", home).outcome
    assert isinstance(outcome, TemporaryFailure)
    assert f"the home {home} can be written by everybody" in outcome.detail
    home.chmod(0o755)
    if AS_ROOT:
        os.chown(home, 54321, 54321)
        outcome = run("echo >ran", home).outcome
        assert isinstance(outcome, TemporaryFailure)
        uid = owner(home).uid
        assert f"{home} belongs to uid 54321, the account's uid is {uid}" in outcome.detail
        assert outcome.reply.enhanced == "4.3.5"
    assert not (home / "ran").exists()


def test_a_home_is_made(home: Path) -> None:
    new = home / "example.com" / "iain"
    assert isinstance(run("echo >ran", new).outcome, Delivered)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new.parent, new)] == [0o711, 0o700]
    home.chmod(0o500)
    outcome = run("echo >ran", home / "no").outcome
    assert isinstance(outcome, TemporaryFailure)
    assert "no is missing, and uid" in outcome.detail
    home.chmod(0o700)
    if AS_ROOT:
        outcome = run("echo >ran", home.parent / "no").outcome
        assert isinstance(outcome, TemporaryFailure)
        assert "may not make it in a directory of uid 0" in outcome.detail


def test_a_home_behind_a_link(home: Path) -> None:
    link = home.parent / "link"
    link.symlink_to(home)
    outcome = run("pwd", link).outcome
    assert f"it wrote: {home}" in outcome.detail
    home.parent.chmod(0o777)
    outcome = run("pwd", link).outcome
    assert isinstance(outcome, TemporaryFailure)
    assert "a symbolic link where others could have put one" in outcome.detail


def test_no_zombie_and_no_descriptor_is_left(home: Path) -> None:
    def count() -> tuple[list[str], list[str]]:
        acting = actor()
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            acting.run(envelope(), CONTENT, delivery("sleep 1000 & exit 0", home))
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, 0)
        return before, os.listdir("/proc/self/fd")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "KILL_AFTER", 0.1)
        before, after = as_owner(count)
    assert before == after


def test_a_command_of_any_octets(home: Path) -> None:
    """A .qmail file may hold any, and what is told of it is text all the same."""
    outcome = run("printf 'a\udcff' >got; echo '\udcfe'; exit 1", home).outcome
    assert (home / "got").read_bytes() == b"a\xff"
    assert "printf 'a\\udcff' >got" in outcome.detail
    assert outcome.detail.endswith("exit 1, it wrote: \ufffd")


def test_a_quoted_command_is_the_shells_matter(home: Path) -> None:
    text = "a  'b' \"c\" $HOME \\ \n end"
    run(f"printf %s {shlex.quote(text)} >got", home)
    assert (home / "got").read_text() == text

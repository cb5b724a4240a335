"""Real helpers with real uids: what they do, and what they cannot do. Root alone can have them."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from restante.config.tree import Programs
from restante.directory import Account, BadFile
from restante.envelope import HeaderFacts, memory_content
from restante.helper.become import become
from restante.helper.files import HelperFiles
from restante.helper.limits import Limits
from restante.helper.pool import Helpers
from restante.helper.start import order
from restante.helper.store import HelperStore
from restante.helper.wire import HEAD, Kind, Reader
from restante.helper.writer import HelperWriter
from restante.mda import Delivery, MboxDelivery, ProgramDelivery
from restante.status import Delivered, Outcome, TemporaryFailure
from restante.store import Maildrop, MaildropInUse, MaildropUnavailable
from tests.support.contents import spooled_content
from tests.support.deliveries import (
    BODY,
    CONTENT,
    HOST,
    TRACE,
    envelope,
    expected,
    messages,
)
from tests.support.helpers import NurserySupplier, nursery, passable_directory
from tests.support.household import status_of
from tests.support.jumping_clock import until
from tests.support.owner import only_root

ANN, BOB = 12345, 12346
TRACER = """
import ctypes, os, sys
os.setgroups([]); os.setresgid(*[int(sys.argv[2])] * 3); os.setresuid(*[int(sys.argv[2])] * 3)
libc = ctypes.CDLL(None, use_errno=True)
traced = libc.ptrace(16, int(sys.argv[1]), None, None)
try:
    os.listdir(f"/proc/{sys.argv[1]}/fd")
except PermissionError:
    sys.exit(traced == 0)
sys.exit(2)
"""
"""Exits with 0 if the process can neither be traced (PTRACE_ATTACH) nor its descriptors be seen."""


class Site:
    """Two users with homes, a nursery, and a worker's side of it."""

    def __init__(self, root: Path, supplier: NurserySupplier, pid: int) -> None:
        self.root = root
        self.supplier = supplier
        self.nursery = pid
        self.helpers = Helpers(supplier, 60.0)
        self.writer = HelperWriter(self.helpers)
        self.store = HelperStore(self.helpers)
        self.ann = self.delivery("ann", ANN)
        self.bob = self.delivery("bob", BOB)

    def delivery(self, name: str, uid: int) -> Delivery:
        """For somebody new, whose home is theirs."""
        home = self.root / name
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        account = Account(f"{name}@example.com", uid, uid, str(home))
        return Delivery(f"{home}/Maildir", account, (f"{name}@example.com",))

    async def deliver(self, *deliveries: Delivery, number: int = 0) -> Outcome:
        return await self.writer.deliver_all(envelope(number), CONTENT, deliveries)

    def processes(self) -> list[int]:
        """The helpers that are there now."""
        return _children(self.nursery)

    async def until_helpers(self, number: int) -> None:
        await asyncio.to_thread(self._wait_for_helpers, number)

    def _wait_for_helpers(self, number: int) -> None:
        while len(self.processes()) != number:
            time.sleep(0.01)


async def octets(drop: Maildrop, index: int) -> bytes:
    return b"".join([piece async for piece in drop.read(index)])


def detail(outcome: Outcome) -> str:
    assert isinstance(outcome, TemporaryFailure), outcome
    return outcome.detail


class AsRoot:
    """Collected by its subclass."""

    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(HOST, 100, 1, 10, 30.0)

    @pytest.fixture
    def root(self) -> Iterator[Path]:
        with passable_directory() as path:
            yield path

    @pytest.fixture
    async def site(self, root: Path, limits: Limits) -> AsyncIterator[Site]:
        with nursery(limits) as (supplier, process):
            site = Site(root, supplier, process.pid)
            yield site
            await site.writer.close()
            await site.helpers.close()

    # Work

    async def test_mail_is_the_owners(self, site: Site) -> None:
        assert await site.deliver(site.ann, site.bob) == Delivered("2 mailboxes")
        for one, uid in ((site.ann, ANN), (site.bob, BOB)):
            assert list(messages(one).values()) == [expected(one)]
            assert _owners(one) == {(uid, uid)}
            assert _rights_of_others(one) == {0}
        assert len(site.processes()) == 2

    async def test_the_first_of_a_domain_closes_it_to_no_other(self, site: Site) -> None:
        """mail.user, to whom most accounts belong, and one who has a uid of his own."""
        top = site.delivery("mail", ANN)
        domain = Path(top.account.home, "example.com")
        os.chmod(top.account.home, 0o711)
        first, other = [
            replace(
                each,
                maildir=str(domain / name / "Maildir"),
                account=replace(each.account, home=str(domain / name)),
            )
            for name, each in (("ann", site.ann), ("bob", site.bob))
        ]
        assert isinstance(await site.deliver(first), Delivered)
        assert stat.S_IMODE(os.stat(domain).st_mode) == 0o711
        assert stat.S_IMODE(os.stat(domain / "ann").st_mode) == 0o700
        os.mkdir(other.account.home, 0o700)
        os.chown(other.account.home, BOB, BOB)
        assert isinstance(await site.deliver(other), Delivered)

    async def test_a_spooled_body_that_the_owner_could_not_open(
        self, site: Site, tmp_path: Path
    ) -> None:
        body = os.urandom(1_000_000).replace(b"\r", b"") + b"\n"
        spool = tmp_path / "spool"
        spool.write_bytes(body)
        spool.chmod(0o600)
        content = spooled_content(TRACE, str(spool), body.count(b"\n"), HeaderFacts())
        outcome = await site.writer.deliver_all(envelope(), content, [site.ann, site.bob])
        assert isinstance(outcome, Delivered)
        for one in (site.ann, site.bob):
            assert list(messages(one).values()) == [expected(one, TRACE + body)]

    async def test_a_large_body_in_memory(self, site: Site) -> None:
        body = BODY + b"x" * 3_000_000 + b"\n"
        outcome = await site.writer.deliver_all(envelope(), memory_content(TRACE, body), [site.ann])
        assert isinstance(outcome, Delivered)
        assert list(messages(site.ann).values()) == [expected(site.ann, TRACE + body)]

    async def test_a_message_beyond_what_a_file_may_have(self, site: Site) -> None:
        """As where a service manager limits the size of files (LimitFSIZE)."""
        resource.prlimit(site.nursery, resource.RLIMIT_FSIZE, (500_000, 500_000))
        large = memory_content(TRACE, b"x" * 900_000)
        outcome = await site.writer.deliver_all(envelope(0), large, [site.ann])
        assert isinstance(outcome, TemporaryFailure)
        assert f"{outcome.reply.code} {outcome.reply.enhanced}" == "452 4.3.1"
        assert isinstance(await site.deliver(site.ann, number=1), Delivered)

    async def test_more_deliveries_than_one_request_takes(self, site: Site) -> None:
        home = site.ann.account.home
        many = [
            Delivery(f"{home}/box{number}", site.ann.account, ("ann@example.com",))
            for number in range(1100)
        ]
        outcomes = await site.writer.deliver_each(envelope(), CONTENT, many, again=False)
        assert [outcome.detail.rpartition("/new/")[0] for outcome in outcomes] == [
            each.maildir for each in many
        ]

    async def test_a_session(self, site: Site) -> None:
        body = BODY + b"x" * 700_000 + b"\n"
        await site.writer.deliver_all(envelope(0), memory_content(TRACE, body), [site.ann])
        for number in range(1, 40):
            await site.deliver(site.ann, number=number)
        drop = await site.store.open(site.ann.account)
        assert len(drop.messages) == 40
        assert await octets(drop, 0) == expected(site.ann, TRACE + body)
        for index in range(1, 40):
            assert await octets(drop, index) == expected(site.ann)
        await drop.remove(range(1, 40, 2))
        drop.close()
        drop = await site.store.open(site.ann.account)
        assert len(drop.messages) == 20
        drop.close()

    async def test_two_workers_share_a_helper(self, site: Site) -> None:
        await site.deliver(site.ann)
        others = Helpers(site.supplier, 60.0)
        drop = await site.store.open(site.ann.account)
        with pytest.raises(MaildropInUse):
            await HelperStore(others).open(site.ann.account)
        assert len(site.processes()) == 1
        drop.close()
        (await HelperStore(others).open(site.ann.account)).close()
        await others.close()

    async def test_a_session_may_follow_at_another_worker_at_once(self, site: Site) -> None:
        await site.deliver(site.ann)
        others = Helpers(site.supplier, 60.0)
        stores = [site.store, HelperStore(others)]
        for turn in range(40):
            drop = await stores[turn % 2].open(site.ann.account)
            drop.close()
        await others.close()

    async def test_a_worker_that_goes_away_lets_go_of_its_maildrops(self, site: Site) -> None:
        await site.deliver(site.ann)
        others = Helpers(site.supplier, 60.0)
        await HelperStore(others).open(site.ann.account)
        await others.close()
        while True:
            try:
                (await site.store.open(site.ann.account)).close()
            except MaildropInUse:
                await asyncio.sleep(0.01)
            else:
                break

    async def test_dot_qmail_files(self, site: Site) -> None:
        files = HelperFiles(site.helpers)
        account = site.ann.account
        assert await files.dot_qmail(account, "") is None
        path = os.path.join(account.home, ".qmail-list")
        _write_for(ANN, path, "# friends\n&bob@example.com\n")
        found = await files.dot_qmail(account, "list")
        assert found is not None
        assert (found.path, found.lines) == (path, ("# friends", "&bob@example.com"))
        os.chmod(path, 0o666)
        with pytest.raises(BadFile, match="qmail-list"):
            await files.dot_qmail(account, "list")

    async def test_an_mbox(self, site: Site) -> None:
        account = site.ann.account
        mbox = MboxDelivery(f"{account.home}/mbox", account, ("ann@example.com",))
        for number in range(2):
            outcome = await site.writer.append(envelope(number), CONTENT, mbox, again=False)
            assert outcome == Delivered(mbox.path)
        found = os.stat(mbox.path)
        assert (found.st_uid, found.st_mode & 0o777) == (ANN, 0o600)
        assert _content_of(mbox.path).count(b"\nHello.\n") == 2

    async def test_a_command(self, site: Site) -> None:
        command = "id -u; id -g; id -G; pwd; echo $SENDER $EXT $DEFAULT; cat; exit 99"
        ran = await site.writer.run(envelope(), CONTENT, _program(site, f"({command}) > ran"))
        assert isinstance(ran.outcome, Delivered)
        assert ran.is_last
        lines = _content_of(f"{site.ann.account.home}/ran").decode().splitlines()
        home = site.ann.account.home
        assert lines[:5] == [*[str(ANN)] * 3, home, "paul@example.org ext default"]
        assert lines[-3:] == ["Subject: hello", "", "Hello."]

    async def test_a_large_message_for_a_command(self, site: Site) -> None:
        body = BODY + b"x" * 3_000_000 + b"\n"
        content = memory_content(TRACE, body)
        ran = await site.writer.run(envelope(), content, _program(site, "cat > ran"))
        assert isinstance(ran.outcome, Delivered)
        assert _content_of(f"{site.ann.account.home}/ran").endswith(TRACE + body)

    async def test_a_command_ends_with_the_server(self, site: Site) -> None:
        command = _program(site, "echo $$ > pid; trap '' HUP; sleep 1000 & wait")
        running = asyncio.create_task(site.writer.run(envelope(), CONTENT, command))
        path = f"{site.ann.account.home}/pid"
        await asyncio.to_thread(_wait_for_content, path)
        site.supplier.orders.close()
        await site.helpers.close()
        assert "helper" in detail((await running).outcome)
        await site.until_helpers(0)
        assert not _is_there(f"/proc/{int(_content_of(path))}")

    async def test_a_command_ends_with_its_worker_before_another_runs_it(self, site: Site) -> None:
        await site.deliver(site.ann)
        last_words = "trap 'sleep 0.5; echo ended >>told; exit 1' TERM"
        first = f"{last_words}; echo begun >>told; sleep 1000 & wait"
        command = _program(site, f"if mkdir first; then {first}; fi; echo again >>told")
        others = Helpers(site.supplier, 60.0)
        running = asyncio.create_task(HelperWriter(others).run(envelope(), CONTENT, command))
        told = f"{site.ann.account.home}/told"
        await asyncio.to_thread(_wait_for_content, told)
        await others.close()
        assert "helper" in detail((await running).outcome)
        assert isinstance((await site.writer.run(envelope(), CONTENT, command)).outcome, Delivered)
        assert _content_of(told) == b"begun\nended\nagain\n"

    @pytest.mark.parametrize("limits", [Limits(HOST, 100, 1, 10, 30.0, server_uid=ANN)])
    async def test_a_command_of_the_servers_user(self, site: Site) -> None:
        """As where workers run them: a home that may hang makes no difference."""
        refused = (await site.writer.run(envelope(), CONTENT, _program(site, "echo >ran"))).outcome
        assert "programs.run_as_server_user is not set" in detail(refused)
        assert isinstance(refused, TemporaryFailure)
        assert refused.reply.enhanced == "4.3.5"
        assert os.listdir(site.ann.account.home) == []
        assert isinstance(await site.deliver(site.ann), Delivered)

    @pytest.mark.parametrize(
        "limits",
        [
            Limits(
                HOST, 100, 1, 10, 30.0, programs=Programs(run_as_server_user=True), server_uid=ANN
            )
        ],
    )
    async def test_a_command_of_the_servers_user_gains_no_rights(self, site: Site) -> None:
        for one, gains_none in ((site.ann, "1"), (site.bob, "0")):
            command = replace(
                _program(site, "grep NoNewPrivs /proc/self/status >ran"), account=one.account
            )
            ran = await site.writer.run(envelope(), CONTENT, command)
            assert isinstance(ran.outcome, Delivered)
            told = _content_of(f"{one.account.home}/ran").decode()
            assert told == f"NoNewPrivs:\t{gains_none}\n"

    # Rights

    async def test_what_a_helper_is(self, site: Site) -> None:
        await site.deliver(site.ann)
        (pid,) = site.processes()
        status = _status(pid)
        assert status["Uid"].split() == status["Gid"].split() == [str(ANN)] * 4
        assert status["Groups"].split() == []
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")} == {0}
        assert status["Umask"] == "0077"
        assert status["Name"] == "restante-helper"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        paths = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
        opened = {path for path in paths if path.startswith("/") and "Maildir" not in path}
        assert opened <= {"/dev/null", os.readlink("/proc/self/fd/2")}

    async def test_a_program_of_the_same_uid_cannot_reach_into_it(self, site: Site) -> None:
        await site.deliver(site.ann)
        (pid,) = site.processes()
        command = [sys.executable, "-I", "-c", TRACER, str(pid), str(ANN)]
        assert await asyncio.to_thread(subprocess.call, command) == 0

    @pytest.mark.parametrize("uid", [1, ANN])
    def test_root_does_not_come_back(self, uid: int) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                become(uid, uid)
                os.setresuid(-1, 0, -1)
            except PermissionError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0

    async def test_nobody_reads_anothers_mail(self, site: Site) -> None:
        await site.deliver(site.bob)
        thief = Account("ann@example.com", ANN, ANN, site.bob.account.home)
        with pytest.raises(MaildropUnavailable, match="Permission denied"):
            await site.store.open(thief)

    async def test_nobody_writes_anothers_mail(self, site: Site) -> None:
        await site.deliver(site.bob)
        forged = Delivery(site.bob.maildir, site.ann.account, ("ann@example.com",))
        assert f"uid {ANN} may not pass" in detail(await site.deliver(forged, number=1))
        os.chmod(site.bob.account.home, 0o755)
        for part in ("", "/tmp", "/new", "/cur"):
            os.chmod(site.bob.maildir + part, 0o777)
        why = detail(await site.deliver(forged, number=2))
        assert f"belongs to uid {BOB}, the account's uid is {ANN}" in why
        assert len(messages(site.bob)) == 1

    @pytest.mark.parametrize("is_open", [False, True])
    async def test_a_link_to_anothers_maildir(self, site: Site, is_open: bool) -> None:
        await site.deliver(site.bob)
        if is_open:
            os.chmod(site.bob.account.home, 0o755)
            os.chmod(site.bob.maildir, 0o755)
        os.symlink(site.bob.maildir, site.ann.maildir)
        assert detail(await site.deliver(site.ann, number=1))
        with pytest.raises(MaildropUnavailable):
            await site.store.open(site.ann.account)
        assert len(messages(site.bob)) == 1

    async def test_a_home_of_another_uid_defers_and_says_so(self, site: Site) -> None:
        os.chown(site.ann.account.home, BOB, BOB)
        os.chmod(site.ann.account.home, 0o755)
        why = detail(await site.deliver(site.ann))
        assert f"uid {BOB}" in why
        assert os.listdir(site.ann.account.home) == []

    async def test_a_home_that_its_owner_cannot_make(self, site: Site) -> None:
        home = f"{site.root}/nowhere"
        account = Account("eve@example.com", ANN, ANN, home)
        why = detail(await site.deliver(Delivery(f"{home}/Maildir", account, ("eve@x.org",))))
        assert f"nowhere is missing, and uid {ANN} may not make it in a directory of uid 0" in why

    @pytest.mark.parametrize(
        ("uid", "gid", "why"),
        [
            (0, 1000, "uid 0 is below the minimum 100"),
            (99, 1000, "uid 99 is below the minimum 100"),
            (ANN, 0, "gid 0 is below the minimum 1"),
        ],
    )
    async def test_ids_below_the_minimum(self, site: Site, uid: int, gid: int, why: str) -> None:
        account = Account("eve", uid, gid, "/")
        outcome = await site.deliver(Delivery("/tmp/Maildir", account, ("eve@example.com",)))
        assert why in detail(outcome)
        assert site.processes() == []

    # Processes

    async def test_a_helper_that_is_not_needed_ends(self, root: Path, site: Site) -> None:
        await site.deliver(site.ann, site.bob)
        await site.helpers.close()
        await site.until_helpers(0)

    async def test_an_unused_connection_is_given_back(self, site: Site) -> None:
        impatient = Helpers(site.supplier, 0.05)
        await HelperWriter(impatient).deliver_all(envelope(), CONTENT, [site.ann])
        await site.until_helpers(0)
        await impatient.close()

    @pytest.mark.parametrize("limits", [Limits(HOST, 100, 1, 2, 30.0)])
    async def test_an_unused_helper_makes_room(self, site: Site, limits: Limits) -> None:
        more = [site.delivery(f"user{number}", 13000 + number) for number in range(5)]
        for one in (site.ann, site.bob, *more, site.ann):
            assert isinstance(await site.deliver(one), Delivered)
            assert len(site.processes()) <= limits.helpers

    @pytest.mark.parametrize("limits", [Limits(HOST, 100, 1, 1, 30.0)])
    async def test_all_are_busy(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        await site.deliver(site.ann)
        drop = await site.store.open(site.ann.account)
        outcome = await site.deliver(site.bob)
        assert "all 1 helpers are busy (mail.helpers)" in detail(outcome)
        waiting = asyncio.create_task(site.deliver(site.bob, number=1))
        await asyncio.sleep(0)
        drop.close()
        assert isinstance(await waiting, Delivered)

    async def test_a_helper_is_killed_with_work_in_hand(self, site: Site) -> None:
        await site.deliver(site.ann)
        (pid,) = site.processes()
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: status_of(pid)["State"].startswith("T"))
        work = asyncio.create_task(site.deliver(site.ann, number=1))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        assert "helper of uid" in detail(await work)
        await site.until_helpers(0)
        outcomes = await site.writer.deliver_each(envelope(1), CONTENT, [site.ann], again=False)
        assert isinstance(outcomes[0], Delivered)
        assert len(messages(site.ann)) == 2

    async def test_what_was_delivered_without_an_answer_is_found(self, site: Site) -> None:
        """The first connection of a kind never hears its answers; the message is there once."""
        await site.deliver(site.ann)
        link = await site.helpers.link(site.ann.account)
        work = asyncio.create_task(site.deliver(site.ann, number=1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        link.close()
        assert detail(await work)
        outcomes = await site.writer.deliver_each(envelope(1), CONTENT, [site.ann], again=False)
        assert isinstance(outcomes[0], Delivered)
        assert len(messages(site.ann)) == 2

    async def test_one_of_two_owners_fails(self, site: Site) -> None:
        os.chown(site.bob.account.home, 0, 0)
        assert detail(await site.deliver(site.ann, site.bob))
        assert messages(site.ann) == messages(site.ann, "tmp") == {}

    async def test_a_worker_that_misbehaves_loses_its_connection_alone(self, site: Site) -> None:
        await site.deliver(site.ann)
        ours, its = socket.socketpair()
        order(site.supplier.orders, ANN, ANN, its)
        ours.sendall(HEAD.pack(1, 1, 200, 0) + b"x")
        assert await asyncio.to_thread(ours.recv, 10) == b""
        ours.close()
        assert isinstance(await site.deliver(site.ann, number=1), Delivered)
        assert len(site.processes()) == 1

    async def test_signals_to_all_processes_are_the_supervisors_business(self, site: Site) -> None:
        await site.deliver(site.ann)
        (pid,) = site.processes()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
            os.kill(site.nursery, number)
        assert isinstance(await site.deliver(site.ann, number=1), Delivered)
        assert isinstance(await site.deliver(site.bob, number=1), Delivered)
        assert pid in site.processes()

    async def test_one_uid_has_a_helper_for_each_far_file_system(self, site: Site) -> None:
        ends = []
        for place in ("", "/srv/far", "/srv/far", "/srv/farther"):
            ours, its = socket.socketpair()
            order(site.supplier.orders, ANN, ANN, its, place=place)
            ends.append(ours)
        assert isinstance(await site.deliver(site.ann), Delivered)
        assert isinstance(await site.deliver(site.bob), Delivered)
        assert len(site.processes()) == len({"", "/srv/far", "/srv/farther", "bob's"})
        for end in ends:
            end.close()

    @pytest.mark.parametrize("limits", [Limits(HOST, 100, 1, 4, 30.0)])
    async def test_a_far_file_system_does_not_have_all_helpers(self, site: Site) -> None:
        """It hangs, with as many uids as there are helpers, and more."""
        ends = []
        for number in range(5):
            ours, its = socket.socketpair()
            order(site.supplier.orders, 13000 + number, 13000, its, place="/srv/far")
            ends.append(ours)
        assert isinstance(await site.deliver(site.ann), Delivered)
        for end in ends[3:]:
            said = await asyncio.to_thread(end.recv, 1000)
            assert HEAD.unpack_from(said)[2] == Kind.REFUSED
            why = Reader(said[HEAD.size :]).text(1000)
            assert why == "all 3 helpers for /srv/far are busy (mail.helpers)"
        for end in ends:
            end.close()

    async def test_orders_that_are_none(self, site: Site) -> None:
        for octets in (b"{", b"[]", b"{}", b'{"uid": "x", "gid": 1}', b'{"uid": {}, "gid": 1}'):
            ours, its = socket.socketpair()
            socket.send_fds(site.supplier.orders, [octets], [its.fileno()])
            its.close()
            assert await asyncio.to_thread(ours.recv, 10) == b""
            ours.close()
        site.supplier.orders.send(b'{"uid": 1000, "gid": 1000}')
        assert isinstance(await site.deliver(site.ann), Delivered)

    async def test_a_refusal_says_why(self, site: Site) -> None:
        ours, its = socket.socketpair()
        order(site.supplier.orders, 0, 0, its)
        said = await asyncio.to_thread(ours.recv, 1000)
        assert HEAD.unpack_from(said)[2] == Kind.REFUSED
        why = "uid 0 is below the minimum 100 (mail.minimum_uid)"
        assert Reader(said[HEAD.size :]).text(1000) == why
        ours.close()

    def test_the_end_of_the_supervisor_is_the_end_of_all(self, root: Path) -> None:
        with nursery() as (supplier, process):
            ours, its = socket.socketpair()
            order(supplier.orders, ANN, ANN, its)
            while not (pids := _children(process.pid)):
                time.sleep(0.01)
            ours.close()
        assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


def _program(site: Site, command: str) -> ProgramDelivery:
    return ProgramDelivery(command, site.ann.account, ("ann@example.com",), "ann", "ext", "default")


def _content_of(path: str) -> bytes:
    return Path(path).read_bytes()


def _is_there(path: str) -> bool:
    return os.path.exists(path)


def _wait_for_content(path: str) -> None:
    while not _is_there(path) or not _content_of(path):
        time.sleep(0.01)


def _owners(one: Delivery) -> set[tuple[int, int]]:
    paths = [Path(one.maildir), *Path(one.maildir).rglob("*")]
    return {(path.stat().st_uid, path.stat().st_gid) for path in paths}


def _rights_of_others(one: Delivery) -> set[int]:
    paths = [Path(one.maildir), *Path(one.maildir).rglob("*")]
    return {path.stat().st_mode & 0o077 for path in paths}


def _write_for(uid: int, path: str, text: str) -> None:
    Path(path).write_text(text)
    os.chown(path, uid, uid)


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _children(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(each) for each in children.split()]


@only_root
class TestAsRoot(AsRoot):
    """Nobody else can start helpers."""

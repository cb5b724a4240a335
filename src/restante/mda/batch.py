"""One batch of deliveries: staged out of sight, made durable, put into ``new``, made durable again.

Runs in the writer's thread. docs/internals.md says what a crash at each step leaves.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from restante.mda.answers import NOT_NOW, Policy, failure, refusal, shown, unplanned_failure
from restante.mda.copies import Copy, Job, Place
from restante.mda.durable import Disk, sync_way
from restante.mda.home import UnsafePlace
from restante.mda.maildir import KnownMaildir, Maildirs, Part, has_message
from restante.mda.together import all_together
from restante.status import Delivered, Outcome, TemporaryFailure

FEW_FILES = 1
"""So many files of a batch on one file system are synced one by one; more, by syncfs(2).

Measured on ext4: one message at a time, fsync(2) delivers some 2,000 a second and syncfs(2)
1,600; two at a time, syncfs(2) is a third faster already, and at three nearly twice as fast.
"""
MANY = 100
"""Copies of which the first half is brought to the disk while the second is made.

Measured with 1,000 on ext4: a tenth less for the whole batch. Few are not worth the thread.
"""
AT_A_TIME = 64
"""Copies that are open at the same time where each is synced for itself."""
NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS)
"""What open(2) says of O_TMPFILE where the file system, the kernel, or what stands between does not
know it."""
NO_LINKS = (
    errno.EPERM,
    errno.EACCES,
    errno.EXDEV,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EMLINK,
)
"""What link(2) says where such a file may not get a name, now or ever: of root, where it may not do
all that root may, by rules of another kind, or from a file system that has no links."""


@dataclass(slots=True)
class Batch:
    """The jobs that were waiting when the writer was free."""

    disk: Disk
    maildirs: Maildirs
    policy: Policy
    jobs: Sequence[Job]
    whole: dict[int, int] = field(default_factory=dict)
    """File systems that are synced as a whole, each with a descriptor on it."""
    singly: set[int] = field(default_factory=set)
    """Those where that is not to be trusted: each file is synced for itself, and its name."""
    last: dict[int, Copy] = field(default_factory=dict)
    """On those that keep an order: the copy that gets its name last. All are durable with it."""
    files: dict[int, int] = field(default_factory=dict)
    """How many copies each file system gets."""
    prepared: int = 0
    """How many copies are."""
    _pairs: list[tuple[Job, Copy]] = field(init=False)
    """Every copy, with its job."""

    def __post_init__(self) -> None:
        self._pairs = [(job, copy) for job in self.jobs for copy in job.copies]

    def run(self) -> None:
        """Settle every copy of every job; raises nothing that the disk can raise."""
        try:
            self._each(self._pairs, self._prepare)
            self._each_with_sync(self._stage)
            self._on_whole(self._order)
            self._each_with_sync(self._publish)
            self._on_whole(self._make_durable)
            self._each(self._pairs, self._settle)
        finally:
            for fd in self.whole.values():
                self.disk.close(fd)
            for _, copy in self._pairs:
                self._let_directory_go(copy)

    def abandon(self) -> None:
        """After a bug: make everything unsettled invisible again."""
        for _, copy in self._pairs:
            if not isinstance(copy.outcome, Delivered):
                self._withdraw(copy)
                copy.outcome = copy.outcome or unplanned_failure()

    # The steps

    def _prepare(self, job: Job, copy: Copy) -> None:
        copy.outcome = refusal(self.policy, job.content, copy.delivery)
        if copy.outcome is not None:
            self._fail(job, copy, copy.outcome)
            return
        copy.head(job, self.policy.host)
        if job.withdraws:
            self._take_back(copy)
            return
        maildir = copy.maildir = self.maildirs.find(copy.delivery)
        copy.device, copy.system = maildir.device, maildir.system
        if job.again:
            self._look_for(copy, maildir)
        self._choose_sync(maildir)
        copy.needs_name = self.prepared >= self.maildirs.unnamed.most
        self.prepared += 1

    def _take_back(self, copy: Copy) -> None:
        """Now, ahead of what comes after it: whoever has given this up may deliver it again."""
        copy.outcome = TemporaryFailure(NOT_NOW, "it was taken back")
        new = self.maildirs.find(copy.delivery).new
        with contextlib.suppress(FileNotFoundError):
            self._unlink(copy.name.full, new)
            new.sync(self.disk)

    def _look_for(self, copy: Copy, maildir: KnownMaildir) -> None:
        """Find what an earlier attempt delivered; ``new`` first, as readers move to ``cur``."""
        for part in ("new", "cur"):
            if has_message(self.disk, maildir, part, copy.name):
                copy.place = Place.FOUND
                # Who made it may not have come so far.
                copy.system = self._sync_as_a_whole(maildir)
                return

    def _choose_sync(self, maildir: KnownMaildir) -> None:
        """Many files on a file system, or new directories: it is synced as a whole."""
        system = maildir.system
        files = self.files[system] = self.files.get(system, 0) + 1
        if system not in self.whole and (maildir.fresh or files > FEW_FILES):
            self._sync_as_a_whole(maildir)

    def _sync_as_a_whole(self, maildir: KnownMaildir) -> int:
        """Take a descriptor before anything is written: it reports what fails from now on.

        Or leave each copy there to itself, where the file system knows no such sync. The file
        system, which is another one if the Maildir has moved.
        """
        if maildir.system in self.whole or maildir.system in self.singly:
            return maildir.system
        fd = maildir.new.open(self.disk)
        try:
            _, system = self._place_of(fd, maildir)
            if not self.disk.syncs_all(fd):
                self.singly.add(system)
            elif system not in self.whole:
                self.whole[system], fd = fd, -1
                self.last.pop(system, None)  # who was alone there is not any more
        finally:
            if fd >= 0:
                self.disk.close(fd)
        return system

    def _place_of(self, fd: int, maildir: KnownMaildir) -> tuple[int, int]:
        """The device on which an open file lies, and the file system.

        What is named by its path may lie elsewhere by now: its Maildir became a link.
        """
        device = os.fstat(fd).st_dev
        if device == maildir.device:
            return device, maildir.system
        return device, self.disk.file_system(fd)

    def _stage(self, job: Job, copy: Copy) -> None:
        if copy.place is Place.FOUND:
            return
        fd = self._create(copy)
        try:
            copy.device, copy.system = self._place_of(fd, self._reach(copy))
            self._fill(fd, job, copy)
            if copy.system in self.singly:
                copy.fd = fd
            elif copy.system not in self.whole:
                self._order_alone(fd, copy)
        finally:
            if copy.place is Place.TMP and copy.fd != fd:
                self.disk.close(fd)

    def _order_alone(self, fd: int, copy: Copy) -> None:
        """Bring the octets of the only file of its file system to the disk before its name."""
        if copy.place is Place.UNNAMED and self.disk.keeps_order(fd):
            self.disk.order(fd)
            self.last[copy.system] = copy
        else:
            self.disk.fsync(fd)

    def _create(self, copy: Copy) -> int:
        try:
            return self._create_once(copy)
        except FileNotFoundError:
            # The Maildir was removed under us: make it again, but only once.
            self.maildirs.forget(copy.delivery)
            fd = self._create_once(copy)
        try:
            self._sync_as_a_whole(self.maildirs.get(copy.delivery))
        except BaseException:
            if copy.place is Place.TMP:
                self.disk.close(fd)
            raise
        return fd

    def _create_once(self, copy: Copy) -> int:
        maildir = self._reach(copy)
        if not copy.needs_name and self.maildirs.unnamed.may_be_on(maildir.device):
            try:
                return self._create_unnamed(copy, maildir)
            except PermissionError:
                pass  # ext4 says so of a directory that was removed; ``tmp`` says what it is
            except OSError as error:
                if error.errno not in NO_UNNAMED_FILES:
                    raise
                self.maildirs.unnamed.refused_by(maildir.device)
        return self._create_named(copy, maildir.tmp)

    def _reach(self, copy: Copy) -> KnownMaildir:
        """Its Maildir; if it had to be made again since it was found, the sync is for it too."""
        maildir = copy.maildir
        if maildir is None or maildir.gone:
            maildir = copy.maildir = self.maildirs.get(copy.delivery)
            if maildir.fresh:
                self._sync_as_a_whole(maildir)
        return maildir

    def _create_unnamed(self, copy: Copy, maildir: KnownMaildir) -> int:
        copy.fd = maildir.new.create_unnamed(self.disk)
        if not self.maildirs.unnamed.are_kept_on(maildir.device, copy.fd):
            self._let_go(copy)
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        copy.place = Place.UNNAMED
        return copy.fd

    def _create_named(self, copy: Copy, tmp: Part) -> int:
        name = tmp.entry(copy.name.full)
        try:
            fd = self.disk.create(name, tmp.fd)
        except FileExistsError:
            # The name is ours alone, so this is what an attempt left when it crashed.
            self.disk.unlink(name, tmp.fd)
            fd = self.disk.create(name, tmp.fd)
        copy.place = Place.TMP
        return fd

    def _fill(self, fd: int, job: Job, copy: Copy) -> None:
        if os.geteuid() == 0:
            self.disk.chown(fd, copy.delivery.account.uid, copy.delivery.account.gid)
        body = job.content.body
        if isinstance(body, bytes):
            self.disk.write(fd, (copy.header, job.content.trace, body))
        else:
            self.disk.write(fd, (copy.header, job.content.trace))
            self.disk.copy(body, fd, job.content.body_size)

    def _publish(self, job: Job, copy: Copy) -> None:
        maildir = self._reach(copy)
        if copy.place is Place.UNNAMED:
            self._give_name(job, copy, maildir)
        elif copy.place is Place.TMP:
            self._move(copy, maildir)
        if copy.system in self.singly and copy.directory < 0:
            copy.directory = maildir.new.open(self.disk)

    def _give_name(self, job: Job, copy: Copy, maildir: KnownMaildir) -> None:
        self._hold(copy, maildir.new)
        try:
            self._link(copy, maildir.new)
        except OSError as error:
            self._let_directory_go(copy)
            if error.errno not in NO_LINKS:
                raise
            self._write_again(job, copy, maildir, error)
            return
        copy.place = Place.NEW
        if copy.system not in self.whole and self.last.get(copy.system) is not copy:
            # Without a journal, the file itself says on the disk that it has no name; a power cut
            # would be the end of it, whatever ``new`` says.
            self.disk.fsync(copy.fd)
            copy.is_durable = copy.directory < 0
        self._let_go(copy)

    def _hold(self, copy: Copy, new: Part) -> None:
        """Take the directory in which a name is given, where it is synced for itself."""
        is_last, is_alone = self.last.get(copy.system) is copy, copy.system not in self.whole
        if not (is_last or (is_alone and not self._name_follows(copy))):
            return
        try:
            copy.directory = new.open(self.disk)
        except PermissionError:
            if is_alone:
                raise
            del self.last[copy.system]  # who may not open it has the file system synced

    def _name_follows(self, copy: Copy) -> bool:
        """Whether a sync of the file itself will do."""
        return copy.place is Place.UNNAMED and self.disk.names_follow(copy.fd)

    def _let_directory_go(self, copy: Copy) -> None:
        fd, copy.directory = copy.directory, -1
        if fd >= 0:
            self.disk.close(fd)

    def _link(self, copy: Copy, new: Part) -> None:
        name, parent = self._place_in(copy, new)
        try:
            self.disk.link(copy.fd, name, parent)
        except FileExistsError:
            # The name is ours alone: an attempt before this one could not take it back.
            self.disk.unlink(name, parent)
            self.disk.link(copy.fd, name, parent)

    def _place_in(self, copy: Copy, new: Part) -> tuple[str, int | None]:
        """The name that a copy gets, and what it is relative to."""
        if copy.directory >= 0:
            return copy.name.full, copy.directory
        return new.entry(copy.name.full), new.fd

    def _write_again(self, job: Job, copy: Copy, maildir: KnownMaildir, refusal: OSError) -> None:
        """Make the file by way of ``tmp``, since it may get no name where it is."""
        self._let_go(copy)
        copy.place = Place.NOWHERE
        if self.last.get(copy.system) is copy:
            del self.last[copy.system]  # it comes by another way than those before
        fd = self._create_named(copy, maildir.tmp)
        try:
            if os.fstat(fd).st_dev != copy.device:
                raise refusal  # the Maildir has moved: links are not forbidden
            self._fill(fd, job, copy)
            self.disk.fsync(fd)
        finally:
            self.disk.close(fd)
        self._move(copy, maildir)
        self.maildirs.unnamed.refused_by(copy.device)

    def _move(self, copy: Copy, maildir: KnownMaildir) -> None:
        self._hold(copy, maildir.new)
        tmp = maildir.tmp
        self.disk.rename(tmp.entry(copy.name.full), tmp.fd, *self._place_in(copy, maildir.new))
        copy.place = Place.NEW

    def _let_go(self, copy: Copy) -> None:
        fd, copy.fd = copy.fd, -1
        self.disk.close(fd)

    def _on_whole(self, sync: Callable[[int, int], None]) -> None:
        """Do this with each file system that is synced as a whole, and its descriptor."""
        for system, fd in self.whole.items():
            try:
                sync(system, fd)
            except OSError as error:
                self._fail_all_on(system, error)

    def _order(self, system: int, fd: int) -> None:
        """Bring octets to the disk before they get names.

        They are brought there each for itself, where they are in order by that. That makes nothing
        durable, which is for ``_make_durable`` to do, with the directory of the last one alone: it
        spares ext4 one commit of two, and the search for whatever else there is to be written.
        """
        pairs = [pair for pair in self._pairs if pair[1].system == system]
        if not self._may_go_alone(pairs) or not self.disk.keeps_order(fd):
            self.disk.order_all(fd)
            return
        # Begun together, they are waited for together.
        self._each(pairs, lambda _, copy: self.disk.begin_order(copy.fd))
        self._each(pairs, lambda _, copy: self.disk.order(copy.fd))
        left = [copy for _, copy in pairs if copy.outcome is None]
        if left:
            self.last[system] = left[-1]

    def _may_go_alone(self, pairs: Sequence[tuple[Job, Copy]]) -> bool:
        """Whether these are new files, all without names, in old Maildirs."""
        return bool(pairs) and all(
            copy.place is Place.UNNAMED and copy.maildir is not None and not copy.maildir.fresh
            for _, copy in pairs
            if copy.outcome is None
        )

    def _make_durable(self, system: int, fd: int) -> None:
        last = self.last.get(system)
        if last is not None and last.directory >= 0:
            self.disk.fsync(last.directory)
            return
        self.disk.syncfs(fd)
        self.maildirs.settle(system)

    def _each_with_sync(self, step: Callable[[Job, Copy], None]) -> None:
        """As ``_each``, and what is synced for each copy by itself is."""
        if not self.singly:
            self._each_half(step)
            if self.singly:  # only now, as a Maildir was made again there
                self._sync_singly(self._pairs)
            return
        for begin in range(0, len(self._pairs), AT_A_TIME):
            some = self._pairs[begin : begin + AT_A_TIME]
            self._each(some, step)
            self._sync_singly(some)

    def _each_half(self, step: Callable[[Job, Copy], None]) -> None:
        """As ``_each``; of many copies, a thread syncs the first half while the second is made.

        That leaves less for the sync that follows. What it reports counts: no other will report it.
        """
        if len(self._pairs) < MANY:
            self._each(self._pairs, step)
            return
        half = len(self._pairs) // 2
        self._each(self._pairs[:half], step)
        with ThreadPoolExecutor(1, "early sync") as executor:
            early = self._begun(executor)
            self._each(self._pairs[half:], step)
        for system, sync in early.items():
            try:
                sync.result()
            except OSError as error:
                self._fail_all_on(system, error)

    def _sync_singly(self, pairs: Sequence[tuple[Job, Copy]]) -> None:
        """Make durable what was done last with each of these: its octets, or its name."""
        waiting = [
            (job, copy)
            for job, copy in pairs
            if copy.outcome is None and copy.system in self.singly
        ]
        errors = all_together([partial(self._sync_one, copy) for _, copy in waiting])
        for (job, copy), error in zip(waiting, errors, strict=True):
            if error is not None:
                self._fail(job, copy, failure(copy.delivery.maildir, error))
        self._each(waiting, self._note_synced)

    def _sync_one(self, copy: Copy) -> None:
        """In any thread. In a new Maildir, the way to it counts too."""
        if copy.fd >= 0:
            self.disk.fsync(copy.fd)
        elif copy.directory >= 0 and copy.maildir is not None and copy.maildir.fresh:
            sync_way(self.disk, copy.directory)
        elif copy.directory >= 0:
            self.disk.fsync(copy.directory)

    def _note_synced(self, _job: Job, copy: Copy) -> None:
        if copy.place is Place.TMP and copy.fd >= 0:
            self._let_go(copy)
        elif copy.directory >= 0:
            if copy.maildir is not None:
                self.maildirs.settle_one(copy.maildir)
            copy.is_durable = True
            self._let_directory_go(copy)

    def _begun(self, executor: ThreadPoolExecutor) -> dict[int, Future[None]]:
        """Syncs of each file system; none where no thread can be started."""
        with contextlib.suppress(RuntimeError):
            return {
                system: executor.submit(self.disk.order_all, fd)
                for system, fd in self.whole.items()
            }
        return {}

    def _settle(self, _job: Job, copy: Copy) -> None:
        if not (copy.is_durable or copy.system in self.whole):
            self.disk.fsync(copy.directory)
        copy.outcome = Delivered(shown(f"{copy.delivery.maildir}/new/{copy.name.full}"))

    # What goes wrong

    def _each(self, pairs: Iterable[tuple[Job, Copy]], step: Callable[[Job, Copy], None]) -> None:
        """Take a step with those copies that nothing was decided about yet."""
        for job, copy in pairs:
            if copy.outcome is not None:
                continue
            try:
                step(job, copy)
            except Exception as error:  # noqa: BLE001 - _failure logs what is a bug
                self._fail(job, copy, failure(copy.delivery.maildir, error))

    def _fail_all_on(self, system: int, error: OSError) -> None:
        for job, copy in self._pairs:
            if copy.outcome is None and copy.system == system:
                self._fail(job, copy, failure(copy.delivery.maildir, error))

    def _fail(self, job: Job, copy: Copy, outcome: Outcome) -> None:
        """Settle a copy, and its companions where they belong together."""
        for failed in job.copies if job.together else (copy,):
            failed.outcome = outcome
            self._withdraw(failed)

    def _withdraw(self, copy: Copy) -> None:
        place, copy.place = copy.place, Place.NOWHERE
        if copy.fd >= 0:
            with contextlib.suppress(OSError):
                self._let_go(copy)
        # What cannot be removed either is at worst delivered twice; nothing is lost by it.
        with contextlib.suppress(OSError, UnsafePlace):
            if place not in (Place.TMP, Place.NEW):
                return
            maildir = self.maildirs.get(copy.delivery)
            self._unlink(copy.name.full, maildir.tmp if place is Place.TMP else maildir.new)

    def _unlink(self, name: str, part: Part) -> None:
        self.disk.unlink(part.entry(name), part.fd)

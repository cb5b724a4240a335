"""Control files that change while the server runs: what is looked at, when, and what counts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from restante.config.live import LOOK_INTERVAL, SETTLING_TIME, Derived, LiveSettings
from restante.config.load import load
from restante.config.tree import Settings
from restante.errors import OperatorError
from tests.support.control import control_directory

LONG_AGO = 1_000_000.0
"""When files were written that have settled."""


class Told:
    """What the log was told."""

    def __init__(self) -> None:
        self.changes: list[list[str]] = []
        self.warnings: list[str] = []
        self.problems: list[list[str]] = []

    def reread(self, changed: list[str], warnings: list[str]) -> None:
        self.changes.append(changed)
        self.warnings += warnings

    def refused(self, problems: list[str]) -> None:
        self.problems.append(problems)


class Site:
    """A running server's view of a control directory, with clocks that are set by hand."""

    def __init__(
        self,
        tmp_path: Path,
        files: dict[str, str],
        toml: str = "",
        proof: Callable[[Settings], object] = bool,
    ) -> None:
        self.control = control_directory(tmp_path, {"me": "mx.example.com", **files})
        (tmp_path / "restante.toml").write_text(f'control = "control"\n{toml}')
        self.told = Told()
        self.seconds = 0.0
        self.now = LONG_AGO + 3600
        self.live = LiveSettings(
            load(str(tmp_path), {}), self.told, proof, {}, lambda: self.seconds, lambda: self.now
        )

    def write(self, name: str, content: str, age: float = 60.0) -> None:
        """Write a file ``age`` seconds ago."""
        path = self.control / name
        path.write_text(content)
        self.date(path, age)

    def date(self, path: Path, age: float) -> None:
        # The time of the inode cannot be set: the clock goes by it.
        os.utime(path, (self.now - age, self.now - age))
        self.now = os.stat(path).st_ctime + age

    def later(self, seconds: float = LOOK_INTERVAL) -> Settings:
        """The settings after some time."""
        self.seconds += seconds
        self.now += seconds
        return self.live()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, {"rcpthosts": "a.example\n", "smtproutes": ":smart.example\n"})


def test_a_change_counts_at_the_next_look(site: Site) -> None:
    before = site.live()
    site.write("rcpthosts", "b.example\n")

    assert site.later(LOOK_INTERVAL / 2) is before
    after = site.later(LOOK_INTERVAL / 2)

    assert after.routing.rcpthosts == ("b.example",)
    assert after.routing.smtproutes == before.routing.smtproutes
    assert site.told.changes == [["rcpthosts"]]
    assert site.later() is after


def test_a_change_counts_within_a_second() -> None:
    assert LOOK_INTERVAL + SETTLING_TIME <= 1.0


def test_nothing_is_read_where_nothing_changes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    looked_at: list[str] = []
    real = os.stat

    def count(path: str) -> os.stat_result:
        looked_at.append(path)
        return real(path)

    monkeypatch.setattr(os, "open", lambda *args: opened.append(args))
    monkeypatch.setattr(os, "stat", count)
    site.later()
    for _ in range(100):
        site.live()

    assert opened == []
    assert len(looked_at) == len(set(looked_at)) > 0


def test_what_is_being_written_in_this_moment_waits(site: Site) -> None:
    site.seconds += LOOK_INTERVAL
    site.write("rcpthosts", "", age=SETTLING_TIME / 2)

    assert site.live().routing.rcpthosts == ("a.example",)
    assert site.later().routing.rcpthosts == ()


def test_a_file_that_goes_and_comes_back_is_never_missed(site: Site) -> None:
    """As editors do it: the old file is moved away before the new one is written."""
    (site.control / "rcpthosts").rename(site.control / "rcpthosts~")
    site.now = os.stat(site.control).st_mtime + SETTLING_TIME / 2
    site.seconds += LOOK_INTERVAL

    assert site.live().routing.rcpthosts == ("a.example",)


def test_a_file_that_is_removed_leaves_the_default(site: Site) -> None:
    (site.control / "rcpthosts").unlink()
    site.now = os.stat(site.control).st_mtime + 60

    assert site.later().routing.rcpthosts == ()
    assert [text for text in site.told.warnings if "rcpthosts: is missing" in text]


def test_a_file_dated_in_the_future_counts(site: Site) -> None:
    site.write("rcpthosts", "b.example\n", age=-3600)

    assert site.later().routing.rcpthosts == ("b.example",)


def test_a_file_that_becomes_bad_changes_nothing_and_is_told_once(site: Site) -> None:
    before = site.live()
    site.write("smtproutes", ":smart host\n")

    for _ in range(3):
        assert site.later() is before
    (problems,) = site.told.problems
    assert [text.startswith(f"{site.control}/smtproutes: line 1: ") for text in problems] == [True]

    site.write("smtproutes", ":other.example\n")
    assert site.later().routing.smtproutes == {"": "other.example"}


def test_a_file_that_cannot_be_read_changes_nothing(site: Site) -> None:
    before = site.live()
    (site.control / "rcpthosts").unlink()
    (site.control / "rcpthosts").mkdir()
    site.date(site.control / "rcpthosts", 60)

    assert site.later() is before
    assert site.told.problems == [[f"{site.control}/rcpthosts: is no regular file"]]


def test_a_file_that_is_bad_keeps_no_other_from_counting(site: Site) -> None:
    site.write("smtproutes", ":smart host\n")
    site.write("rcpthosts", "b.example\n")
    after = site.later()

    assert after.routing.rcpthosts == ("b.example",)
    assert after.routing.smtproutes == {"": "smart.example"}
    assert site.told.changes == [["rcpthosts"]]
    assert len(site.told.problems) == 1

    site.write("rcpthosts", "c.example\n")
    assert site.later().routing.rcpthosts == ("c.example",)
    assert len(site.told.problems) == 1


def test_files_that_have_not_changed_are_not_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may not be allowed to read what the supervisor has read."""
    opened: list[str] = []
    real = os.open

    def note(path: str, flags: int) -> int:
        opened.append(os.path.basename(path))
        return real(path, flags)

    site.write("rcpthosts", "b.example\n")
    monkeypatch.setattr(os, "open", note)
    site.later()

    assert opened == ["rcpthosts", "morercpthosts"]


def test_a_directory_that_goes_changes_nothing(site: Site) -> None:
    before = site.live()
    site.control.rename(site.control.parent / "gone")

    for _ in range(3):
        assert site.later() is before
    assert site.told.problems == [[f"{site.control}: there is no such control directory"]]


def test_what_nobody_can_make_anything_of_changes_nothing(tmp_path: Path) -> None:
    def proof(settings: Settings) -> None:
        if settings.routing.defaultdelivery == "rubbish":
            raise OperatorError("rubbish cannot be done")

    site = Site(tmp_path, {}, proof=proof)
    before = site.live()
    site.write("defaultdelivery", "rubbish\n")

    assert site.later() is before
    assert site.told.problems == [[f"{site.control}/defaultdelivery: rubbish cannot be done"]]


def test_what_restante_toml_says_is_not_overruled(tmp_path: Path) -> None:
    site = Site(tmp_path, {"rcpthosts": "a.example\n"}, '[routing]\nrcpthosts = ["t.example"]\n')
    before = site.live()
    site.write("rcpthosts", "b.example\n")

    assert site.later() is before


def test_restante_toml_itself_waits_for_sighup(site: Site, tmp_path: Path) -> None:
    (tmp_path / "restante.toml").write_text("[smtp]\nmax_errors = 1\n")
    site.write("rcpthosts", "b.example\n")

    assert site.later().smtp.max_errors == 20


def test_what_waits_for_sighup(site: Site) -> None:
    before = site.live()
    site.write("me", "other.example\n")
    site.write("concurrencyremote", "1\n")

    assert site.later() is before


def test_without_a_control_directory_nothing_is_looked_at(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path))
    live = LiveSettings(settings, Told(), bool, {}, iter((0.0, 100.0)).__next__)

    assert live() is settings


def test_what_is_made_of_settings_is_made_anew_when_they_change(site: Site) -> None:
    made = Derived(site.live, lambda settings: [settings.routing.rcpthosts])
    first = made()
    assert made() is first

    site.write("rcpthosts", "b.example\n")
    site.later()
    assert made() == [("b.example",)]

"""The restante.toml that init writes is complete, and means what it says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from restante.config.catalog import Setting, catalog
from restante.config.load import load
from restante.config.template import WIDTH, render
from restante.config.tree import HostPort, Settings

ALL = [setting for section in catalog().values() for setting in section.settings.values()]


def read(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "restante.toml").write_text(text)
    return load(str(tmp_path), {})


def test_as_written_it_gives_the_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, render({})) == Settings(str(tmp_path))


def test_with_everything_uncommented_it_gives_the_defaults(tmp_path: Path) -> None:
    uncommented = re.sub(r"^#(?=\w)", "", render({}), flags=re.MULTILINE)

    assert sum(len(table) for table in tomllib.loads(uncommented).values()) == len(ALL)
    assert read(tmp_path, uncommented) == Settings(str(tmp_path))


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.environment_name)
def test_every_setting_is_explained(setting: Setting) -> None:
    text = " ".join(line.removeprefix("# ") for line in render({}).splitlines())

    assert setting.doc
    assert " ".join(setting.doc.split()) in text


def test_overrides_are_set(tmp_path: Path) -> None:
    text = render(
        {
            "server": {"me": 'mx."quoted"\\example'},
            "smtp": {"listen": (HostPort("::1", 0),), "databytes": 5},
            "routing": {"envnoathosts": {"iain.cx": "babasse.com"}},
            "log": {"sql": True},
        }
    )
    table = tomllib.loads(text)

    assert table["server"] == {"me": 'mx."quoted"\\example'}
    assert table["smtp"] == {"listen": ["[::1]:0"], "databytes": 5}
    assert table["routing"] == {"envnoathosts": {"iain.cx": "babasse.com"}}
    assert table["log"] == {"sql": True}


def test_explanations_fit_a_terminal() -> None:
    comments = [line for line in render({}).splitlines() if line.startswith("# ")]

    assert max(map(len, comments)) <= WIDTH + 2


def test_every_default_is_within_its_own_bounds() -> None:
    for setting in ALL:
        if setting.low is not None:
            assert setting.default >= setting.low
        if setting.high is not None:
            assert setting.default <= setting.high

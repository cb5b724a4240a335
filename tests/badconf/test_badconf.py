"""Every configuration in ``cases`` is refused with exactly the lines in the file next to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from restante.config.load import load
from restante.errors import ConfigurationError

CONTROL_CASES = sorted((Path(__file__).parent / "cases").glob("*.control"))
CASES = sorted((Path(__file__).parent / "cases").glob("*.toml"))


def test_there_are_cases() -> None:
    assert CASES
    assert CONTROL_CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_bad_configuration_is_refused_with_all_its_problems(case: Path, tmp_path: Path) -> None:
    shutil.copy(case, tmp_path / "restante.toml")
    (tmp_path / "restante.toml").chmod(0o600)

    with pytest.raises(ConfigurationError) as refused:
        load(str(tmp_path), {})

    assert refused.value.problems == case.with_suffix(".txt").read_text().splitlines()


@pytest.mark.parametrize("case", CONTROL_CASES, ids=lambda case: case.stem)
def test_bad_control_directory_is_refused_with_all_its_problems(case: Path, tmp_path: Path) -> None:
    control = tmp_path / "control"
    shutil.copytree(case, control)
    for file in control.iterdir():
        file.chmod(0o600)

    with pytest.raises(ConfigurationError) as refused:
        load(str(tmp_path), {}, str(control))

    problems = [text.replace(str(control), "CONTROL") for text in refused.value.problems]
    assert problems == case.with_suffix(".txt").read_text().splitlines()

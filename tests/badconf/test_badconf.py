"""Every configuration in ``cases`` is refused with exactly the lines in the file next to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from restante.config.load import load
from restante.errors import ConfigurationError

CASES = sorted((Path(__file__).parent / "cases").glob("*.toml"))


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_bad_configuration_is_refused_with_all_its_problems(case: Path, tmp_path: Path) -> None:
    shutil.copy(case, tmp_path / "restante.toml")
    (tmp_path / "restante.toml").chmod(0o600)

    with pytest.raises(ConfigurationError) as refused:
        load(str(tmp_path), {})

    assert refused.value.problems == case.with_suffix(".txt").read_text().splitlines()

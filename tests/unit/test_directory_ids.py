"""Whose rights may be had."""

from __future__ import annotations

import pytest

from restante.directory import MAX_ID, objection_to_ids


@pytest.mark.parametrize(
    ("uid", "gid", "objection"),
    [
        (0, 1000, "uid 0 is below the minimum 1 (mail.minimum_uid)"),
        (1000, 0, "gid 0 is below the minimum 1 (mail.minimum_gid)"),
        (-1, 1000, "uid -1 is below the minimum 1 (mail.minimum_uid)"),
        (MAX_ID + 1, 1000, "uid 4294967295 is none"),
        (1000, MAX_ID + 1, "gid 4294967295 is none"),
        (1, 1, ""),
        (MAX_ID, MAX_ID, ""),
    ],
)
def test_root_s_may_not_whatever_the_minimum(uid: int, gid: int, objection: str) -> None:
    assert objection_to_ids(uid, gid, 0, 0) == objection


def test_each_has_a_minimum_of_its_own() -> None:
    assert objection_to_ids(100, 50, 100, 50) == ""
    assert objection_to_ids(99, 50, 100, 50).startswith("uid 99 is below the minimum 100")
    assert objection_to_ids(100, 49, 100, 50).startswith("gid 49 is below the minimum 50")

"""Each test of a mailbox writer: by each writer, on each kind of disk."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from restante.mda import MailboxWriter
from tests.support.faulty_disk import FaultyDisk
from tests.support.helpers import passable_directory
from tests.support.mailbox_writers import IN_ITS_LOOP, writer_at_work
from tests.support.owner import owners_rights


@pytest.fixture(params=["files without names", "names in tmp", "in order", "names follow"])
def disk(request: pytest.FixtureRequest) -> FaultyDisk:
    return FaultyDisk(
        named_only=request.param == "names in tmp",
        in_order=request.param in ("names in tmp", "in order"),
        following=request.param == "names follow",
    )


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with passable_directory() as path:
        yield path


@pytest.fixture(params=["here", "by a helper", "as its owner", IN_ITS_LOOP])
async def writer(
    disk: FaultyDisk, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[MailboxWriter]:
    rights = owners_rights(tmp_path) if "owner" in request.param else contextlib.nullcontext()
    with rights:
        async with writer_at_work(disk, request.param) as writer:
            yield writer

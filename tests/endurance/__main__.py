"""``python -m tests.endurance kills`` and ``flat``: what takes hours (make endurance)."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.endurance import flat, kills

SHOWN = 50
"""So many faults are named."""


def main() -> int:
    """0: every promise was kept; 1: not, and the server's directory is left."""
    options = _options()
    directory = Path(tempfile.mkdtemp(prefix="restante-endurance-", dir="/var/tmp"))
    directory.chmod(0o711)
    work = _kills if options.work == "kills" else _flat
    faults = work(directory / "site", options)
    _tell(*faults[:SHOWN], f"{len(faults)} faults")
    if faults:
        _tell(f"see {directory}")
    else:
        shutil.rmtree(directory)
    return bool(faults)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.endurance", description=__doc__)
    works = parser.add_subparsers(dest="work", required=True)
    one = works.add_parser("kills", help="kill it often, and reckon up every message")
    one.add_argument("--kills", type=int, default=1000)
    one.add_argument("--period", type=int, default=25, help="kills between two reckonings")
    one.add_argument("--life", type=float, default=4.0, help="seconds between kills, at most")
    one.add_argument("--seed", type=int, default=1)
    other = works.add_parser("flat", help="see that memory and descriptors do not grow")
    other.add_argument("--hours", type=float, default=24.0)
    other.add_argument("--samples", type=int, default=100)
    other.add_argument("--pace", type=float, default=0.05, help="seconds each client rests")
    other.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _kills(directory: Path, options: argparse.Namespace) -> Sequence[str]:
    outcome = kills.campaign(
        directory,
        kills=options.kills,
        period=options.period,
        life=options.life,
        seed=options.seed,
        tell=_tell,
    )
    _tell(*(f"killed {times} times: {what}" for what, times in outcome.kills.most_common()))
    _tell(*(f"heard {times} times: {what}" for what, times in outcome.borne.most_common()))
    return outcome.faults


def _flat(directory: Path, options: argparse.Namespace) -> Sequence[str]:
    seconds = options.hours * 3600
    course = flat.run(
        directory,
        seconds=seconds,
        interval=seconds / options.samples,
        pace=options.pace,
        seed=options.seed,
        tell=_tell,
    )
    return course.faults()


def _tell(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

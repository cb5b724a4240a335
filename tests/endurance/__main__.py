"""``python -m tests.endurance``: what takes hours (make endurance)."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.endurance.kills import campaign


def main() -> int:
    """0: nothing was lost, doubled, torn or brought back; 1: something was."""
    parser = argparse.ArgumentParser(prog="tests.endurance", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--period", type=int, default=25, help="kills between two reckonings")
    parser.add_argument("--life", type=float, default=3.0, help="seconds between kills, at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="restante-endurance-", dir="/var/tmp"))
    directory.chmod(0o711)
    outcome = campaign(
        directory / "site",
        kills=options.kills,
        period=options.period,
        life=options.life,
        seed=options.seed,
        tell=lambda line: print(line, flush=True),
    )
    sys.stdout.writelines(f"{how}: {times}\n" for how, times in outcome.kills.most_common())
    sys.stdout.writelines(
        f"clients heard {times} times: {what}\n" for what, times in outcome.borne.items()
    )
    sys.stdout.writelines(f"{fault}\n" for fault in outcome.faults[:50])
    if outcome.faults:
        sys.stdout.write(f"see {directory}\n")
    else:
        shutil.rmtree(directory)
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.guided [TARGET ...]``: look for inputs with which promises are broken."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from tests.guided.campaign import Bounds, run_all
from tests.guided.targets import TARGETS

EXECUTIONS = 10_000_000
UNUSABLE = 2
NO_ATHERIS = (
    "atheris is not there, which guides the fuzzing: pip install -e '.[fuzz]' installs it for "
    "CPython 3.11 to 3.13; name one with: make fuzz PYTHON=python3.13"
)


def main() -> int:
    """0: nothing was found; 1: something was; 2: it could not be tried."""
    options = _options()
    chosen = [TARGETS[name] for name in options.targets or TARGETS]
    if options.list:
        for target in chosen:
            print(f"{target.name}: {(target.run.__doc__ or '').splitlines()[0]}")
        return 0
    if options.replay:
        for target in chosen:
            target.run(options.replay.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        print(NO_ATHERIS, file=sys.stderr)
        return UNUSABLE
    bounds = Bounds(options.executions, options.seconds)
    clean = True
    for outcome in run_all(chosen, bounds, options.corpus.absolute(), options.processes):
        print(outcome, flush=True)
        clean = clean and outcome.is_clean
    return int(not clean)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.guided", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="these alone")
    parser.add_argument("--list", action="store_true", help="name them, and what they promise")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="one input, without atheris")
    parser.add_argument("--executions", type=int, default=EXECUTIONS, help="of each target")
    parser.add_argument("--seconds", type=int, default=0, help="for each target, at the most")
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"), help="what is kept")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at a time")
    options = parser.parse_args()
    unknown = sorted(set(options.targets) - TARGETS.keys())
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    if options.replay and len(options.targets) != 1:
        parser.error("--replay is for one target")
    return options


if __name__ == "__main__":
    sys.exit(main())

"""Speed on this machine, now, beside that of others: ``restante-bench --help``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench.arena import SCRATCH, Bench, Options, arena
from bench.benches import (
    growth,
    growth_pop3,
    idle,
    listings,
    lookups,
    mailboxes,
    pop3,
    privileges,
    queue,
    recipients,
    relay,
    sendmail,
    startup,
    tls,
)
from bench.machine import describe, versions
from bench.programs import MissingError
from bench.results import DIRECTORY, Results

MODULES = (
    mailboxes,
    recipients,
    relay,
    pop3,
    tls,
    listings,
    idle,
    lookups,
    startup,
    sendmail,
    privileges,
    queue,
    growth,
    growth_pop3,
)
BENCHES: Mapping[str, Bench] = {bench.name: bench for module in MODULES for bench in module.BENCHES}
PEERS = ("postfix", "dovecot", "exim")
ROUNDS, MESSAGES = 5, 4000
"""More than 4,096 mailboxes would be more than one batch writer knows (KNOWN_MAILDIRS)."""
QUICK_ROUNDS, QUICK_MESSAGES = 3, 1000
QUICK_CROWDED = 3000
"""Of many sessions: in a round of 1,000 Postfix waits for about a second, and computes nothing."""


def main() -> None:
    """Run the benches that were named, or all."""
    signal.signal(signal.SIGTERM, _end)
    arguments = _parser().parse_args()
    if arguments.list:
        for bench in BENCHES.values():
            print(f"{bench.name:12} {bench.summary}")
        return
    names = list(dict.fromkeys(name.partition("/")[0] for name in arguments.names or BENCHES))
    if unknown := [name for name in names if name not in BENCHES]:
        sys.exit(f"restante-bench: there is no {unknown[0]}, but: {', '.join(BENCHES)}")
    try:
        run(_options(arguments), [BENCHES[name] for name in names])
    except MissingError as error:
        sys.exit(f"restante-bench: {error}")


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """As an exception: whatever was started is ended with it, and not interrupted at that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit("restante-bench: told to end")


def run(options: Options, benches: Sequence[Bench], directory: Path = DIRECTORY) -> Results:
    """Run the benches; their results, as far as they get, go into ``directory``."""
    results = Results(describe(Path(SCRATCH)), versions(), asdict(options))
    try:
        with arena(options, results.rows.append) as place:
            for bench in benches:
                bench.run(place)
    finally:
        if results.rows:
            _finish(results, directory)
    return results


def _finish(results: Results, directory: Path) -> None:
    print(f"results: {results.write(directory)}")
    try:
        from bench.plots import draw
    except ModuleNotFoundError as missing:
        print(f"no pictures: {missing.name} is missing (pip install '.[bench]')")
    else:
        draw(results.rows, directory, results.stem)
    for row in results.missed():
        print(f"MISSED: {row.title} [{row.key}]")


def _options(arguments: argparse.Namespace) -> Options:
    quick = arguments.quick
    return Options(
        rounds=arguments.rounds or (QUICK_ROUNDS if quick else ROUNDS),
        workers=arguments.workers,
        messages=arguments.messages or (QUICK_MESSAGES if quick else MESSAGES),
        against=tuple(arguments.against),
        quick=quick,
        only=tuple(name for name in arguments.names if "/" in name),
        sqlite=arguments.sqlite,
        crowded=QUICK_CROWDED if quick and arguments.messages is None else None,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="restante-bench", description=__doc__)
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        metavar="NAME",
        help="a bench, or a row of it: BENCH/ROW; all without",
    )
    add("--list", action="store_true", help="what can be measured")
    add("--quick", action="store_true", help="fewer rows, rounds, messages: half an hour")
    add("--rounds", type=_positive, help=f"all take turns in each ({ROUNDS}; quick {QUICK_ROUNDS})")
    add("--messages", type=_positive, help=f"a round ({MESSAGES}; quick {QUICK_MESSAGES})")
    add(
        "--workers",
        type=_positive,
        default=os.cpu_count() or 1,
        help="of Restante; one for each core without",
    )
    add(
        "--against",
        type=_peers,
        default=("postfix", "dovecot"),
        help=f"peers, of {', '.join(PEERS)} (postfix,dovecot); none: Restante alone",
    )
    add("--sqlite", action="store_true", help="Restante alone, with its accounts in SQLite")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    if names == ("none",):
        return ()
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]}, but: {', '.join(PEERS)}, none")
    return names


if __name__ == "__main__":
    main()

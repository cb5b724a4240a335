"""``python -m tests.guided.child TARGET OPTION ...``: one target under libFuzzer, whose options
these are. It ends with the first finding."""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    with atheris.instrument_imports(include=["restante"]):
        targets = importlib.import_module("tests.guided.targets")
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, targets.TARGETS[name].run)
    atheris.Fuzz()


main()

"""Commands that look and change nothing: check, explain."""

from __future__ import annotations

from typing import Annotated

import typer

from restante.cli.context import any_address, ask, settings_of
from restante.cli.output import AsJson, one_line, print_json
from restante.cli.status import ExitCode
from restante.errors import ConfigurationError


def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Check configuration, database, directories and listeners; name all problems at once."""
    from restante.cli.examination import Findings, examine

    findings = Findings()
    try:
        settings = settings_of(context)
    except ConfigurationError as error:
        findings.problems += error.problems
    else:
        examine(settings, findings)
    if as_json:
        print_json(
            {
                "ok": not findings.problems,
                "problems": findings.problems,
                "advice": findings.advice,
            }
        )
    else:
        _print_findings(findings.problems, findings.advice)
    raise typer.Exit(ExitCode.REFUSED if findings.problems else ExitCode.OK)


def _print_findings(problems: list[str], advice: list[str]) -> None:
    for line in problems:
        print(f"problem: {one_line(line)}")
    for line in advice:
        print(f"advice: {one_line(line)}")
    if not problems:
        print("Everything is in order.")


def explain(
    context: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show every step of routing for an address, and what a stranger hears at RCPT."""
    from restante.cli.explain import render, to_json
    from restante.directory.lookups import SqlDirectory
    from restante.routing.decision import Unknown
    from restante.routing.explanation import explain as find_explanation
    from restante.routing.router import Router

    wanted = any_address(address)
    settings = settings_of(context)
    router = Router(settings.routing, settings.hostname)
    found = ask(settings, lambda engine: find_explanation(router, SqlDirectory(engine), wanted))
    if as_json:
        print_json(to_json(found))
    else:
        print(render(found), end="")
    if isinstance(found.decision, Unknown):
        raise typer.Exit(ExitCode.TEMPORARY)

"""Commands that look and change nothing: check, explain, status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from restante.cli.context import any_address, ask, directory_of, settings_of
from restante.cli.output import AsJson, one_line, print_json, print_rows
from restante.cli.status import ExitCode
from restante.errors import ConfigurationError

if TYPE_CHECKING:
    from restante.config.tree import Settings
    from restante.routing.explanation import Explanation


def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Check configuration, database, directories and listeners; name all problems at once."""
    from restante.cli.check.examination import examine
    from restante.cli.check.findings import Findings

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


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Ask every listener of the running server for its greeting; for monitors too.

    The exit code is 0 if all of them greet. Nothing else is asked: a server whose database is
    away is there, and says so to its clients.
    """
    from restante.cli.greetings import greeting, greets
    from restante.config.listeners import LISTENERS

    settings = settings_of(context)
    rows = []
    for listening in LISTENERS:
        for address in listening.addresses(settings):
            said = greeting(listening, address)
            state = "up" if greets(listening, said) else "down"
            rows.append((listening.name, str(address), state, said))
    print_rows(("service", "address", "state", "greeting"), rows, as_json=as_json)
    if not rows or any(state == "down" for _, _, state, _ in rows):
        raise typer.Exit(ExitCode.UNAVAILABLE)


def _print_findings(problems: list[str], advice: list[str]) -> None:
    for line in problems:
        print(f"problem: {one_line(line)}")
    for line in advice:
        print(f"advice: {one_line(line)}")
    if not problems:
        print("Everything is in order.")


def _undeliverable(settings: Settings, found: Explanation) -> list[dict[str, str]]:
    """What an address leads to and is not done for now, each with the reason.

    That is an account to which nothing is delivered, or a list that sends on what has to wait.
    """
    from restante.mda.answers import Policy, objection_to_programs
    from restante.routing.decision import Mailbox, ToProgram
    from restante.routing.expand import Act
    from restante.service.user import serving_uid, starting_uid

    policy = Policy(settings.hostname, settings.mail.minimum_uid, settings.mail.minimum_gid)
    starter = starting_uid(settings)

    def objection(to: Mailbox | Act) -> str:
        why = policy.objection(to.account, starter)
        if why or isinstance(to, Mailbox) or not isinstance(to.action, ToProgram):
            return why
        return objection_to_programs(settings.programs, to.account, serving_uid(settings))

    ends = [each for each in found.ends if isinstance(each, Mailbox | Act)]
    waiting = [("account", to.account.name, why) for to in ends if (why := objection(to))]
    stuck = {
        str(leaf.address)
        for leaf in found.leaves
        if leaf.instruction
        and (not isinstance(leaf.decision, Mailbox | Act) or objection(leaf.decision))
    }
    waiting += [
        ("list", each, "that is done last, when all else is")
        for leaf in found.leaves
        for each in leaf.after
        if each in stuck
    ]
    return [{kind: name, "why": why} for kind, name, why in dict.fromkeys(waiting)]


def _waits(each: dict[str, str]) -> str:
    name = each.get("account") or f"what {each['list']} sends on"
    return one_line(f"Waits      {name}: {each['why']}")


def explain(
    context: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show every step of routing for an address, where its mail goes, and the reply at RCPT."""
    from restante.cli.control_places import name_places
    from restante.cli.explain import render, to_json
    from restante.cli.leaving import way_record, ways
    from restante.receiver.literals import Literals
    from restante.routing.explanation import explain as find_explanation
    from restante.routing.router import Router

    settings = settings_of(context)
    asked = any_address(address)
    wanted = Literals(settings.routing.localiphost).resolved(asked)
    router = Router(settings.routing, settings.hostname)
    found = ask(
        settings,
        lambda engine: find_explanation(
            router,
            directory_of(settings, engine),
            wanted,
            verify=settings.receiver.verify_recipients,
        ),
    )
    name_places(settings, found.trace)
    waits, leaving = _undeliverable(settings, found), ways(settings, found)
    if as_json:
        leaves_by = [*map(way_record, leaving)]
        print_json({**to_json(found), "waits": waits, "leaves_by": leaves_by})
    else:
        if wanted != asked:
            print(f"{asked} is at this host itself: setting routing.localiphost makes it {wanted}")
        print(render(found), end="")
        for each in waits:
            print(_waits(each))
        for way in leaving:
            print(f"Leaves     {way}")
    if not found.is_known:
        raise typer.Exit(ExitCode.TEMPORARY)

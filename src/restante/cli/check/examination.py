"""What ``check`` looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from restante.cli.check.certificates import examine_certificates
from restante.cli.check.control import examine_control
from restante.cli.check.findings import Findings
from restante.cli.check.listeners import examine_listeners
from restante.cli.check.marks import examine_marks
from restante.cli.check.mounts import examine_mounts
from restante.cli.check.places import examine_places, name_of, silent_places
from restante.cli.check.programs import examine_programs
from restante.cli.check.queues import examine_queues
from restante.cli.check.reach import Reach
from restante.cli.check.reports import examine_reports
from restante.cli.check.sending import examine_sending
from restante.cli.check.servers import (
    examine_engines,
    examine_file,
    examine_servers,
    examine_version,
)
from restante.cli.check.system_files import examine_system_files
from restante.cli.context import ask
from restante.cli.homes import mail_owner
from restante.config.tree import Settings
from restante.errors import OperatorError, RestanteError
from restante.service.user import starting_uid

if TYPE_CHECKING:
    from restante.directory.engine import Engine
    from restante.directory.schema import Inspection


def examine(settings: Settings, findings: Findings) -> None:
    """Look at everything, whatever is found on the way."""
    examine_control(settings, findings)
    examine_marks(settings, findings)
    _examine_database(settings, findings, Reach())
    _examine_routing(settings, findings)
    silent = silent_places(settings, findings)
    if not silent:
        examine_places(settings, findings)
        examine_mounts(settings, findings)
    _examine_user(settings, findings)
    examine_sending(settings, findings)
    examine_certificates(settings, findings)
    examine_listeners(settings, findings)
    if "queue.root" not in silent:
        examine_queues(settings, findings)
    examine_programs(settings, findings)
    examine_reports(settings, findings)


def _examine_database(settings: Settings, findings: Findings, reach: Reach) -> None:
    from restante.directory.schema import inspect

    try:
        found: Inspection = ask(settings, inspect)
    except RestanteError as error:
        findings.problems.append(str(error))
        return
    findings.problems += found.problems
    findings.advice += found.advice
    examine_file(settings, findings)
    examine_servers(settings, findings)
    if not found.problems:
        _examine_rows(settings, findings, reach)
        examine_system_files(settings, findings, reach)


def _examine_rows(settings: Settings, findings: Findings, reach: Reach) -> None:
    from restante.cli.check.columns import examine_columns
    from restante.cli.check.homes import examine_homes
    from restante.cli.check.passwords import examine_passwords
    from restante.cli.check.rows import examine_rows

    examinations: tuple[Callable[[Engine], Awaitable[None]], ...] = (
        lambda engine: examine_version(engine, findings),
        lambda engine: examine_engines(engine, findings),
        lambda engine: examine_columns(engine, findings),
        lambda engine: examine_rows(engine, settings, findings),
        lambda engine: examine_passwords(engine, settings.auth, findings),
        lambda engine: examine_homes(engine, findings, reach),
    )
    for examination in examinations:
        try:
            ask(settings, examination)
        except RestanteError as error:
            findings.problems.append(str(error))


def _examine_routing(settings: Settings, findings: Findings) -> None:
    from restante.routing.decision import ToProgram
    from restante.routing.instructions import parse_instructions
    from restante.routing.router import Router

    try:
        Router(settings.routing, settings.hostname)
    except RestanteError as error:
        findings.problems.append(f"[routing] defaultdelivery: {error}")
        return
    actions = parse_instructions(settings.routing.defaultdelivery.splitlines())
    own = starting_uid(settings) != 0 and not settings.programs.run_as_server_user
    if own and any(isinstance(each, ToProgram) for each in actions):
        findings.problems.append(
            "[routing] defaultdelivery: it has a program, and programs.run_as_server_user is not "
            "set for a server whose accounts have its own uid; mail for accounts waits"
        )


def _examine_user(settings: Settings, findings: Findings) -> None:
    if settings.control is not None and settings.control.alone and not settings.mail.user:
        return  # new accounts are made as they were before
    try:
        owner = mail_owner(settings)
    except OperatorError as error:
        findings.problems.append(str(error))
        return
    starter = starting_uid(settings)
    if starter not in (0, owner.uid):
        findings.problems.append(
            f"mail.user: new accounts get uid {owner.uid}, but {name_of(starter)} cannot deliver "
            "to them; run the server as that user or as root"
        )

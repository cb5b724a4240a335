"""What commands have in common: the instance they work on, its database, and typed arguments."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import typer

from restante.address import Address, AddressSyntaxError, check_domain
from restante.cli.invocation import Invocation, NoInstance, is_utf8
from restante.cli.status import ExitCode
from restante.config.tree import HostPort, Settings
from restante.errors import OperatorError

if TYPE_CHECKING:
    from restante.directory.admin import Administration
    from restante.directory.engine import Engine
    from restante.directory.lookups import SqlDirectory
    from restante.routing.decision import Decision

_T = TypeVar("_T")

MAX_PASSWORD_LINE = 4096
"""Octets of standard input that are read for a password."""


def settings_of(context: typer.Context) -> Settings:
    """The settings of the instance that --dir or RESTANTE_DIR names, or of this host's own."""
    asked: Invocation = context.obj
    try:
        return asked.settings()
    except NoInstance as error:
        raise typer.BadParameter(str(error), context) from None


def administer(
    settings: Settings, work: Callable[[Administration], Awaitable[_T]], *, create: bool = False
) -> _T:
    """Do ``work`` on the instance's tables; ``create`` makes a missing SQLite file."""
    from restante.directory.admin import Administration

    return ask(settings, lambda engine: work(Administration(engine)), create=create)


def administer_each(
    settings: Settings, work: Callable[[Administration], AsyncIterator[_T]]
) -> Iterator[_T]:
    """What ``work`` on the instance's tables yields, each when it is asked for."""
    from restante.directory.admin import Administration
    from restante.directory.engine import open_engine

    with asyncio.Runner() as runner:
        engine = open_engine(settings.database, settings.directory)
        try:
            found = work(Administration(engine))
            while one := runner.run(_next(found)):
                yield from one
        finally:
            runner.run(engine.close())


async def _next(found: AsyncIterator[_T]) -> list[_T]:
    async for one in found:
        return [one]
    return []


def ask(settings: Settings, work: Callable[[Engine], Awaitable[_T]], *, create: bool = False) -> _T:
    """Do ``work`` with the instance's database; ``create`` makes a missing SQLite file."""
    from restante.directory.engine import open_engine

    async def session() -> _T:
        engine = open_engine(settings.database, settings.directory, create=create)
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(session())


def directory_of(settings: Settings, engine: Engine) -> SqlDirectory:
    """What the server asks: the instance's tables, and the system's files if settings say so."""
    from restante.directory.lookups import SqlDirectory
    from restante.directory.system import system_files

    return SqlDirectory(engine, system_files(settings))


def decision_about(settings: Settings, address: Address) -> Decision:
    """What becomes of mail for an address; raises RestanteError."""
    from restante.routing.router import Router

    router = Router(settings.routing, settings.hostname)
    return ask(settings, lambda engine: router.route(address, directory_of(settings, engine)))


def any_address(text: str) -> Address:
    """The address in an argument; raises OperatorError unless it is one."""
    try:
        return Address.parse(text)
    except AddressSyntaxError as error:
        raise OperatorError(f"{text!r} is no address: {error}") from None


def full_address(text: str) -> Address:
    """As ``any_address``, but it must have a domain."""
    address = any_address(text)
    if not address.domain:
        raise OperatorError(f"{text!r} has no domain; write it as {text}@example.com")
    return address


def account_name(text: str) -> Address:
    """The name of an account: an address, or whatever else a row written by hand is named."""
    if not text or not is_utf8(text):
        raise OperatorError(f"{text!r} is no mailbox: restante mailbox list shows those there are")
    try:
        return Address.parse(text)
    except AddressSyntaxError:
        return Address.from_stored(text)


def stored_text(text: str) -> str:
    """What a row or a setting may hold; raises OperatorError for what is not UTF-8."""
    if not is_utf8(text):
        raise OperatorError(f"{text!r} is not UTF-8")
    return text


def domain_name(text: str) -> str:
    """The domain in an argument; raises OperatorError unless it can be one."""
    try:
        return check_domain(text)
    except AddressSyntaxError as error:
        raise OperatorError(f"{text!r} is no domain: {error}") from None


def host_port(text: str, option: str) -> HostPort:
    """The address in an option; raises OperatorError."""
    try:
        return HostPort.parse(text)
    except ValueError as error:
        raise OperatorError(f"{option}: {text!r} {error}") from None


def hashed_password(*, from_stdin: bool) -> str:
    """A hash of the password that the first line of standard input or a prompt gives."""
    from restante.auth.schemes import hash_password

    clear = _read_password() if from_stdin else _prompt_password()
    try:
        return hash_password(clear)
    except ValueError as error:
        raise OperatorError(f"the password cannot be used: {error}") from None


def _read_password() -> str:
    line = sys.stdin.buffer.readline(MAX_PASSWORD_LINE)
    try:
        clear = line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise OperatorError("the password on standard input is not UTF-8") from None
    if not clear:
        raise OperatorError("standard input holds no password; its first line must be one")
    return clear


def _prompt_password() -> str:
    if not sys.stdin.isatty():
        raise OperatorError("there is no terminal to ask for a password; use --password-stdin")
    try:
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    except typer.Abort:
        print(file=sys.stderr)
        raise typer.Exit(ExitCode.INTERRUPTED) from None

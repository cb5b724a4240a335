"""What each file of a control directory means, in qmail-control(5)'s syntax.

The functions take one file, or two that belong together, and give what restante.toml would say;
None: the file is not there or says nothing, and what qmail does then is its default. A line that
qmail can never match is a warning; one that it obeys and Restante cannot obey is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from restante.address import Address, AddressSyntaxError, check_domain, fold
from restante.config.control_files import Files, Line

_NUMBER = re.compile(r"[0-9]{1,18}")
NEVER_MATCHES = "never matches"


def text(files: Files, name: str) -> str | None:
    """The first line."""
    line = files.first_line(name)
    if line is not None and not line.text:
        files.warn(name, "the first line is empty")
    return line.text if line is not None and line.text else None


def domain(files: Files, name: str) -> str | None:
    """The first line, which is a host name."""
    found = text(files, name)
    if found is None:
        return None
    try:
        check_domain(found)
    except AddressSyntaxError as error:
        files.problem(name, f"{found!r}: {error}", 1)
        return None
    return found


def number(files: Files, name: str) -> int | None:
    """The digits with which the first line begins; without any, qmail keeps its default."""
    found = text(files, name)
    if found is None:
        return None
    match = _NUMBER.match(found)
    if match is None:
        files.warn(name, f"{found!r} does not begin with a digit, and does not count", 1)
        return None
    if match.end() < len(found):
        files.warn(name, f"what follows {match[0]} does not count", 1)
    return int(match[0])


def seconds(files: Files, name: str, most: int) -> int | None:
    """A time to wait, brought within 1 and ``most``: to qmail, 0 is the least it can wait."""
    found = number(files, name)
    if found is None or 1 <= found <= most:
        return found
    nearest = 1 if found < 1 else most
    files.warn(name, f"{found} seconds are taken for {nearest}", 1)
    return nearest


def domains(files: Files, name: str) -> list[str] | None:
    """A list of domains; suffixes are none, as qmail has it for locals."""
    listed = suffixes(files, name)
    if listed is None:
        return None
    for suffix in filter(_is_suffix, listed):
        files.warn(name, f"{suffix!r} {NEVER_MATCHES}: domains are named one by one here")
    return [domain for domain in listed if not _is_suffix(domain)]


def suffixes(files: Files, name: str) -> list[str] | None:
    """A list of domains and, for what is a ``.suffix``, all that end in it."""
    lines = files.lines(name)
    if lines is None:
        return None
    return [line.text for line in lines if _is_key(files, name, line, line.text)]


def senders(files: Files, name: str) -> list[str] | None:
    """A list of addresses and of ``@domain``."""
    lines = files.lines(name)
    if lines is None:
        return None
    return [line.text for line in lines if _is_sender(files, name, line)]


def table(
    files: Files, name: str, check: Callable[[str], object] | None = None
) -> dict[str, str] | None:
    """Lines of ``key:value``; the last one of a key counts. ``check`` raises ValueError."""
    lines = files.lines(name)
    if lines is None:
        return None
    found: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.text.partition(":")
        if not colon:
            files.warn(name, f"{key!r} has no colon, and {NEVER_MATCHES}", line.number)
        elif _is_address(key) or _is_key(files, name, line, key):
            value = value.strip()
            if not _passes(files, name, line, value, check):
                continue
            if found.get(fold(key), value) != value:
                files.warn(name, f"{key!r} is there twice; the last one counts", line.number)
            found[fold(key)] = value
    return found


def routes(files: Files, name: str) -> dict[str, str] | None:
    """smtproutes: what cannot be a next hop is a problem, for mail would be sent elsewhere."""
    found = table(files, name, _parse_route)
    if found is None:
        return None
    for key in [key for key in found if "@" in key]:
        files.warn(name, f"{key!r} {NEVER_MATCHES}: routes are for domains")
        del found[key]
    return found


def recipient_hosts(files: Files, name: str) -> list[str]:
    """rcpthosts and morercpthosts; without the first, qmail would accept mail for any domain."""
    listed = suffixes(files, name)
    if listed is None:
        files.warn(name, "is missing: mail for the rows of rcpthosts is accepted, not for all")
    return (listed or []) + (suffixes(files, "morercpthosts") or [])


def double_bounces(files: Files, name: str) -> str:
    """doublebounceto at doublebouncehost; a first line that is empty has them dropped."""
    line = files.first_line(name)
    host = domain(files, "doublebouncehost") or files.me
    local = line.text if line is not None else "postmaster"
    if "@" in local:
        files.warn(name, f"{local!r} is taken for the whole address", 1)
        return local
    return f"{local}@{host}" if local else ""


def delivery(files: Files, name: str) -> str | None:
    """defaultdelivery: all lines, as in a .qmail file."""
    lines = files.lines(name)
    return "\n".join(line.text for line in lines) if lines else None


def _passes(
    files: Files, name: str, line: Line, value: str, check: Callable[[str], object] | None
) -> bool:
    if check is None or not value:
        return True
    try:
        check(value)
    except ValueError as error:
        files.problem(name, f"{value!r} {error}", line.number)
        return False
    return True


def _parse_route(value: str) -> object:
    from restante.config.nexthop import NextHop  # few sites need it, and small programs load too

    return NextHop.parse(value)


def _is_key(files: Files, name: str, line: Line, key: str) -> bool:
    """Whether a domain, a ``.suffix`` or the empty key; complains if not."""
    if not key and ":" in line.text:
        return True
    try:
        check_domain(key.removeprefix("."))
    except AddressSyntaxError as error:
        files.warn(name, f"{key!r} {NEVER_MATCHES}: {error}", line.number)
        return False
    return True


def _is_suffix(key: str) -> bool:
    return key.startswith(".")


def _is_sender(files: Files, name: str, line: Line) -> bool:
    if _is_address(f"anybody{line.text}" if line.text.startswith("@") else line.text):
        return True
    files.warn(name, f"{line.text!r} {NEVER_MATCHES}: write ADDRESS or @DOMAIN", line.number)
    return False


def _is_address(text: str) -> bool:
    """Whether it has a local part and a domain."""
    try:
        return bool(Address.parse(text).domain)
    except AddressSyntaxError:
        return False

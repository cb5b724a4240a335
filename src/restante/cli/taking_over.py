"""``init --from-qmail``: a restante.toml that says what a qmail control directory says."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from restante.cli.creation import create_instance
from restante.cli.output import one_line, program
from restante.config.catalog import catalog
from restante.config.control import ME, SOURCES, SYSTEM_FILES
from restante.config.leftovers import leftovers
from restante.config.load import FILE_NAME, PREFIX, load
from restante.config.tree import Settings
from restante.errors import OperatorError

Sections = dict[str, dict[str, object]]


def take_over(directory: str, control: str, wanted: Mapping[str, Mapping[str, object]]) -> None:
    """Make the instance, with what is ``wanted`` besides, and say what of qmail's is left behind.

    A database that control/sqlserver names is not touched. Raises as ``create_instance`` does.
    """
    control = os.path.abspath(control)
    taken = _read(directory, control, wanted)
    assert taken.control is not None
    sections = said_by(taken)
    for section, settings in wanted.items():
        sections.setdefault(section, {}).update(settings)
    is_qmails = ("database", "url") in _said(taken) and "database" not in wanted
    made = create_instance(directory, sections, tables=not is_qmails)
    left = [*taken.control.warnings, *leftovers(control)]
    print(f"{made.directory} says what {control} says. It listens on ports of its own for now.")
    if left:
        print("Left behind:")
        for line in left:
            print(f"  {one_line(line)}")
    restante = f"{program()} --dir {shlex.quote(directory)}"
    print(f"Next:\n  {restante} check\n  {restante} explain ADDRESS\n  {restante} serve")


def said_by(settings: Settings) -> Sections:
    """What a restante.toml must say to mean the same without the control directory."""
    sections: Sections = {}
    for (section, name), value in _said(settings).items():
        sections.setdefault(section, {})[name] = value
    return sections


def _said(settings: Settings) -> dict[tuple[str, str], object]:
    """What differs from Restante's own defaults, and the host's name in any case."""
    known = catalog()
    said: dict[tuple[str, str], object] = {ME: settings.hostname}
    for section, name in (*(source.setting for source in SOURCES), SYSTEM_FILES):
        value = getattr(getattr(settings, section), name)
        if value != known[section].settings[name].default:
            said[section, name] = value
    return said


def _read(directory: str, control: str, wanted: Mapping[str, Mapping[str, object]]) -> Settings:
    """What the control directory says, whatever the environment says at this moment.

    But that its password may be read: qmail's own programs may have to go on reading it.
    Options count for more than its files, which may have defaults that follow the host's name.
    """
    if os.path.exists(os.path.join(directory, FILE_NAME)):
        raise OperatorError(f"{directory} is an instance already: it has a {FILE_NAME}")
    known = catalog()
    may_read = known["database"].settings["allow_exposed_password"].environment_name
    environ = {
        key: value
        for key, value in os.environ.items()
        if key == may_read or not key.startswith(PREFIX)
    }
    for section, settings in wanted.items():
        for name, value in settings.items():
            if isinstance(value, str):
                environ[known[section].settings[name].environment_name] = value
    return load(directory, environ, control)

"""What the program that is run has of the person: rights, home, environment."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping

from restante.checkpassword import TEMPORARY, Ending
from restante.checkpassword.wire import Person
from restante.errors import reason_of

SHELL = "/bin/sh"
"""SHELL for accounts that are nobody in the passwd file."""
MINIMUMS = {"minimum_uid": 100, "minimum_gid": 1}
"""Settings in ``[mail]``, and what they are where restante.toml does not say."""


def check(person: Person, directory: str, environ: Mapping[str, str]) -> None:
    """Once more by root, who need not believe the server's workers that uid 0 has mail.

    Raises Ending.
    """
    least_uid, least_gid = _minimums(directory, environ)
    if person.uid < max(least_uid, 1) or person.gid < max(least_gid, 1):
        raise Ending(
            TEMPORARY,
            f"uid {person.uid}, gid {person.gid} of {person.name}: "
            f"below mail.minimum_uid ({least_uid}) or mail.minimum_gid ({least_gid})",
        )


def become(person: Person) -> None:
    """Take the person's rights, and go to their home; raises Ending.

    As root: gid, no other groups, uid. As whoever has the person's uid already there is nothing
    to take.
    """
    own = os.geteuid()
    if own == 0:
        try:
            os.setgroups([person.gid])
            os.setresgid(person.gid, person.gid, person.gid)
            os.setresuid(person.uid, person.uid, person.uid)
        except OSError as error:
            why = f"cannot become uid {person.uid}, gid {person.gid}: {error.strerror}"
            raise Ending(TEMPORARY, why) from None
    elif own != person.uid:
        raise Ending(
            TEMPORARY,
            f"{person.name} has uid {person.uid} and this program runs as {own}: start it as root",
        )
    try:
        os.chdir(person.home)
        owner = os.stat(".").st_uid
    except (OSError, ValueError) as error:
        raise Ending(TEMPORARY, f"{person.home}: {reason_of(error)}") from None
    if owner != person.uid:
        why = f"the home {person.home} belongs to uid {owner}, not to {person.uid}"
        raise Ending(TEMPORARY, why)


def environment(environ: Mapping[str, str], person: Person) -> dict[str, str]:
    """The environment with USER, HOME and SHELL of the person, and nothing that was Dovecot's.

    Nor any setting: the database's password may be among them, and is not for mailbox owners.
    """
    return {
        **{name: value for name, value in environ.items() if not _is_ours(name)},
        "USER": person.name,
        "HOME": person.home,
        "SHELL": _shell(person),
    }


def _is_ours(name: str) -> bool:
    """Whether a variable is for this program alone: Dovecot's, or a setting."""
    return name == "AUTHORIZED" or (name.startswith("RESTANTE_") and "__" in name)


def hand_to_dovecot(
    environ: Mapping[str, str], person: Person, *, wants_user: bool
) -> dict[str, str]:
    """The environment in which Dovecot's reply program tells Dovecot of the person.

    Rights stay as they are, as somebody's own processes could meddle with a reply that is given
    with that person's rights: Dovecot takes them by uid and gid (userdb prefetch).
    """
    if "\t" in person.name + person.home or "\n" in person.name + person.home:
        raise Ending(TEMPORARY, f"{person.name!r} cannot be told to Dovecot")
    told = {"userdb_uid": str(person.uid), "userdb_gid": str(person.gid)}
    extra = [*environ.get("EXTRA", "").split(), *told]
    made = {**environment(environ, person), **told, "EXTRA": " ".join(extra)}
    return {**made, "AUTHORIZED": "2"} if wants_user else made


def _minimums(directory: str, environ: Mapping[str, str]) -> list[int]:
    """Those two settings, without all the others, which take long to read."""
    import tomllib

    try:
        with open(os.path.join(directory, "restante.toml"), "rb") as file:
            mail = tomllib.load(file).get("mail", {})
    except FileNotFoundError:
        mail = {}
    except (OSError, ValueError) as error:
        raise Ending(TEMPORARY, f"restante.toml in {directory}: {reason_of(error)}") from None
    named = {name: environ.get(f"RESTANTE_MAIL__{name.upper()}") for name in MINIMUMS}
    return [int(named[name] or mail.get(name, usual)) for name, usual in MINIMUMS.items()]


def _shell(person: Person) -> str:
    try:
        entry = pwd.getpwnam(person.name)
    except (KeyError, ValueError):
        return SHELL
    return entry.pw_shell if entry.pw_uid == person.uid and entry.pw_shell else SHELL

"""A site as qmail with its MySQL tables left it: control files, rows, homes, users of the system.

Nothing of it was made by Restante. For root alone: mail belongs to several uids.
"""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.support.control import control_directory
from tests.support.mariadb import PASSWORD, USER, MariaDB
from tests.support.serving import LOOPBACK
from tests.support.system_users import SystemUsers, hashed

OWNERS = {"iain": 54201, "lists": 54201, "eve": 54202, "carl": 54202, "dan": 54203, "old": 54203}
"""Homes of rows in mailbox, and uids that no user of the system has."""
ALIAS, SAM = 54301, 54302
"""Users of the system."""
LOGINS = {
    "iain": "iain pw",
    "iain@iain.cx": "iain pw",
    "eve@example.org": "eve pw",
    "dan@example.org": "dan pw",
    "old@example.org": "old pw",
    "carl": "carl pw",
    "sam": "sam pw",
}
"""Who reads mail; among them hashes of all three types, an address, a user of the system."""

# As such tables were made: without keys, and with NULL for what does not apply.
_TABLES = """
CREATE TABLE rcpthosts (host VARCHAR(64));
CREATE TABLE mailbox (username VARCHAR(64), uid INT, gid INT, home VARCHAR(200),
    password VARCHAR(64), password_type ENUM('MySQL-Password', 'Crypt-Password', 'Password')
    DEFAULT 'MySQL-Password');
CREATE TABLE `virtual` (username VARCHAR(64), virtual_username VARCHAR(64),
    virtual_host VARCHAR(64));
CREATE TABLE alias (username VARCHAR(64), alias VARCHAR(64), alias_username VARCHAR(200),
    alias_host VARCHAR(64));
"""
# Hashes as PASSWORD, OLD_PASSWORD and ENCRYPT made them, functions that MySQL 8 has no more.
_ROWS = """
INSERT INTO rcpthosts VALUES ('iain.cx'), ('babasse.com'), ('example.org'), ('lists.example.org');
INSERT INTO mailbox (username, uid, gid, home, password) VALUES
    ('iain', 54201, 54201, 'HOMES/iain', '*28EDDE1FFF5826EC09DB553885F789B1326E3897'),
    ('eve@example.org', 54202, 54202, 'HOMES/eve', '*33D717305F8884FDE82AC70A7FEBA33D3B94F690'),
    ('old@example.org', 54203, 54203, 'HOMES/old', '09301740536db389');
INSERT INTO mailbox VALUES
    ('dan@example.org', 54203, 54203, 'HOMES/dan', 'dan pw', 'Password'),
    ('carl', 54202, 54202, 'HOMES/carl', 'abbTF6FQlkNGc', 'Crypt-Password'),
    ('lists', 54201, 54201, 'HOMES/lists', NULL, NULL);
INSERT INTO `virtual` VALUES
    ('iain', 'example', 'babasse.com'), ('iain', 'iain', 'iain.cx'),
    ('eve@example.org', 'eve', 'example.org'), ('eve@example.org', '', 'example.org'),
    ('dan@example.org', 'dan', 'example.org'), ('dan@example.org', 'dan', 'example.org'),
    ('old@example.org', 'old', 'example.org'),
    ('lists', 'lists', 'lists.example.org'), ('lists-friends', 'friends', 'lists.example.org'),
    ('lists-friends-owner', 'friends-owner', 'lists.example.org');
INSERT INTO alias VALUES
    ('alias', 'postmaster', 'iain', 'iain.cx'),
    ('alias', 'one', 'two', 'iain.cx'), ('alias', 'two', 'one', 'iain.cx'),
    ('iain', 'note', '|NOTE kept 0', NULL), ('iain', 'box', './box', ''),
    ('iain', 'refuse', '|NOTE refused 100', ''), ('iain', 'later', '|NOTE later 111', ''),
    ('iain', 'enough', '|NOTE enough 99', ''), ('iain', 'enough', './never', ''),
    ('iain', 'out', 'friend', 'elsewhere.example'),
    ('iain', 'both', './Maildir/', ''), ('iain', 'both', '# and', NULL),
    ('iain', 'both', '&friend@elsewhere.example', NULL),
    ('lists', 'friends', 'carl', 'iain.cx'), ('lists', 'friends', 'friend', 'elsewhere.example'),
    ('lists', 'friends-owner', 'iain', 'iain.cx');
"""
_NOTE = """\
#!/bin/sh
# note WORD STATUS: writes down which message it got as whom, and ends as it is told to
subject=$(sed -n 's/^Subject: //p')
what="|NOTE $1 $2 as $RECIPIENT"
printf '%s\\t%s\\t%s\\n' "$subject" "$(id -u)" "$what" >> "$HOME/notes"
exit "$2"
"""
_DOT_QMAIL = {
    "sam": {
        ".qmail-box": "./Mailbox\n",
        ".qmail-list": "# friends\nfriend@elsewhere.example\n&carl@iain.cx\n",
        ".qmail-list-owner": "./Maildir/\n",
        ".qmail-list-owner-default": "./Maildir/\n",
        ".qmail-site-default": "./Maildir/\n|NOTE site 0 \t\n",
        ".qmail-trash": "# nothing\n",
        ".qmail-empty": "",
        ".qmail-open": "./Maildir/\n",
        ".qmail-dot:ted": "./box\n",
    },
    "alias": {".qmail-root": "sam@iain.cx\n", ".qmail-all-default": "./Maildir/\n"},
}


@dataclass(frozen=True, slots=True)
class QmailSite:
    """Where everything of the site is."""

    top: Path
    control: Path
    homes: Path
    users: SystemUsers
    note: str
    """A program that addresses are handed to."""

    def home(self, name: str) -> Path:
        """Of whoever has one."""
        return self.homes / name


def qmail_site(top: Path, database: MariaDB, far_port: int) -> QmailSite:
    """Make it; mail for elsewhere goes to ``far_port``."""
    homes = top / "homes"
    homes.mkdir()
    note = top / "note"
    note.write_text(_NOTE)
    note.chmod(0o755)
    name = database.new_database()
    rows = _ROWS.replace("HOMES", str(homes)).replace("NOTE", str(note))
    database.sql(_TABLES + rows, name)
    for owner, uid in OWNERS.items():
        _make_home(homes / owner, uid)
    users = SystemUsers(homes)
    for user, uid, stored in (("alias", ALIAS, "!"), ("sam", SAM, hashed("sam pw"))):
        users.add(user, uid, stored).rename(homes / user)
        passwd = homes / "passwd"
        passwd.write_text(passwd.read_text().replace(f"{homes}/home-{user}", f"{homes}/{user}"))
        for file, text in _DOT_QMAIL[user].items():
            path = homes / user / file
            path.write_text(text.replace("NOTE", str(note)))
            os.chown(path, uid, uid)
    (homes / "sam" / ".qmail-open").chmod(0o666)
    control = control_directory(top, _control_files(database, name, far_port))
    return QmailSite(top, control, homes, users, str(note))


def _make_home(path: Path, uid: int) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, uid, uid)


def _control_files(database: MariaDB, name: str, far_port: int) -> dict[str, str]:
    """All legal, and some of it odd: comments, blanks at line ends, missing line ends."""
    files = {
        "me": "mail.iain.cx \t\nwhat follows the first line is not read\n",
        "locals": "# ours\niain.cx \t\n\n.never.example\n",
        "rcpthosts": "iain.cx\n#not.example\nVIRT.example.net",
        "morercpthosts": "more.example.net\n.sub.example.net\n",
        "envnoathost": "babasse.com",
        "virtualdomains": """
            # prefixes
            virt.example.net:sam-site
            more.example.net:alias-all
            boss@more.example.net:iain-unheard-of
            away.more.example.net:
            .example.net:alias-all
        """,
        "smtproutes": f"""
            # the one place where all mail goes
            elsewhere.example:[{LOOPBACK}]:{far_port}
            :{LOOPBACK}:{far_port}
        """,
        "defaultdelivery": "./Maildir/\n",
        "badmailfrom": "# spammers\nspammer@bad.example\n@worse.example\n",
        "sqlserver": f"""
            # the tables
            server {LOOPBACK}
            port {database.port}
            login {USER}
            password {PASSWORD}
            db {name}
            whatever 7
        """,
        "smtpgreeting": "mail.iain.cx NO UCE",
        "concurrencyremote": "1\n",
        "concurrencylocal": "5 at the most\n",
        "queuelifetime": "86400\n",
        "databytes": "0\n",
        "percenthack": "iain.cx\n",
    }
    return {name: textwrap.dedent(text).lstrip("\n") for name, text in files.items()}

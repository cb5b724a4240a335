"""A qmail control directory becomes settings: syntax, defaults, and what overrules it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from restante.config.control import SOURCES
from restante.config.control_files import MAX_COMPLAINTS, MAX_FILE
from restante.config.load import load, load_again
from restante.config.tree import Settings, system_hostname
from restante.errors import ConfigurationError
from tests.support.control import control_directory

ME = "mx.example.com"


def settings_of(tmp_path: Path, files: Mapping[str, str | bytes], **environ: str) -> Settings:
    """What a control directory says, where there is nothing else, with ``me`` in it."""
    directory = control_directory(tmp_path, {"me": f"{ME}\n", **files})
    return load(str(tmp_path), environ, str(directory))


def value(settings: Settings, setting: str) -> Any:
    section, name = setting.split(".")
    return getattr(getattr(settings, section), name)


def warnings(settings: Settings) -> list[str]:
    """With the directory cut off, and without what every sparse directory hears."""
    assert settings.control is not None
    said = [
        text.removeprefix(f"{settings.control.directory}/") for text in settings.control.warnings
    ]
    return [text for text in said if not text.startswith("rcpthosts: is missing")]


def problems(tmp_path: Path, files: Mapping[str, str | bytes], **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        settings_of(tmp_path, files, **environ)
    return [text.removeprefix(f"{tmp_path}/control/") for text in refused.value.problems]


# What each file says

SAYS: list[tuple[str, str, str, Any]] = [
    ("me", "mail.example.net\n", "server.me", "mail.example.net"),
    ("me", "mail.example.net", "server.me", "mail.example.net"),
    ("me", "mail.example.net \t \n", "server.me", "mail.example.net"),
    ("defaulthost", "a.example\n", "sendmail.defaulthost", "a.example"),
    ("defaultdomain", "example\n", "sendmail.defaultdomain", "example"),
    ("plusdomain", "plus.example\n", "sendmail.plusdomain", "plus.example"),
    ("envnoathost", "babasse.com\n", "routing.envnoathost", "babasse.com"),
    ("localiphost", "ip.example\n", "routing.localiphost", "ip.example"),
    ("locals", "a.example\nB.Example\n", "routing.locals", ("a.example", "B.Example")),
    ("locals", "# none\n\n \t\n", "routing.locals", ()),
    (
        "locals",
        "a.example\n#b.example\n\nc.example \n",
        "routing.locals",
        ("a.example", "c.example"),
    ),
    ("rcpthosts", "a.example\n.b.example\n", "routing.rcpthosts", ("a.example", ".b.example")),
    ("rcpthosts", "[192.0.2.1]\n", "routing.rcpthosts", ("[192.0.2.1]",)),
    ("morercpthosts", "c.example\n", "routing.rcpthosts", ("c.example",)),
    ("virtualdomains", "a.example:ann\n", "routing.virtualdomains", {"a.example": "ann"}),
    ("virtualdomains", "Joe@A.example:joe\n", "routing.virtualdomains", {"joe@a.example": "joe"}),
    (
        "virtualdomains",
        ".b.example:b\n:all\n",
        "routing.virtualdomains",
        {".b.example": "b", "": "all"},
    ),
    ("virtualdomains", "a.example:\n", "routing.virtualdomains", {"a.example": ""}),
    ("virtualdomains", "a.example:b:c\n", "routing.virtualdomains", {"a.example": "b:c"}),
    (
        "smtproutes",
        "a.example:relay.example\n",
        "routing.smtproutes",
        {"a.example": "relay.example"},
    ),
    (
        "smtproutes",
        "a.example:relay.example:26\n",
        "routing.smtproutes",
        {"a.example": "relay.example:26"},
    ),
    (
        "smtproutes",
        ".a.example:[192.0.2.1]:26\n",
        "routing.smtproutes",
        {".a.example": "[192.0.2.1]:26"},
    ),
    ("smtproutes", "a.example:192.0.2.1\n", "routing.smtproutes", {"a.example": "192.0.2.1"}),
    (
        "smtproutes",
        "a.example:\n:smart.example\n",
        "routing.smtproutes",
        {"a.example": "", "": "smart.example"},
    ),
    (
        "smtproutes",
        "a.example:[2001:db8::1]:26\n",
        "routing.smtproutes",
        {"a.example": "[2001:db8::1]:26"},
    ),
    ("smtpgreeting", "mx.example.com no spam\n", "smtp.greeting", "mx.example.com no spam"),
    ("smtpgreeting", "# is no comment here\n", "smtp.greeting", "# is no comment here"),
    ("helohost", "helo.example\n", "relay.helohost", "helo.example"),
    ("databytes", "20000000\n", "smtp.databytes", 20000000),
    ("databytes", "0\n", "smtp.databytes", 0),
    (
        "badmailfrom",
        "ann@a.example\n@b.example\n",
        "receiver.badmailfrom",
        ("ann@a.example", "@b.example"),
    ),
    ("bouncefrom", "bounces\n", "queue.bouncefrom", "bounces"),
    ("bouncehost", "bounce.example\n", "queue.bouncehost", "bounce.example"),
    ("doublebounceto", "hostmaster\n", "queue.doublebounceto", f"hostmaster@{ME}"),
    ("doublebounceto", "\n", "queue.doublebounceto", ""),
    ("doublebouncehost", "b.example\n", "queue.doublebounceto", "postmaster@b.example"),
    ("queuelifetime", "86400\n", "queue.queuelifetime", 86400),
    ("concurrencylocal", "10\n", "queue.concurrencylocal", 10),
    ("concurrencyremote", "120\n", "queue.concurrencyremote", 120),
    ("timeoutconnect", "30\n", "relay.timeoutconnect", 30),
    ("timeoutremote", "600\n", "relay.timeoutremote", 600),
    ("timeoutsmtpd", "300\n", "smtp.timeoutsmtpd", 300),
    ("defaultdelivery", "./Mailbox\n", "routing.defaultdelivery", "./Mailbox"),
    (
        "defaultdelivery",
        "# to both\n|vacation\n\n./Maildir/\n",
        "routing.defaultdelivery",
        "|vacation\n./Maildir/",
    ),
    (
        "sqlserver",
        "server db.example\nlogin q\npassword p\ndb mail\nport 3307\n",
        "database.url",
        "mysql://q:p@db.example:3307/mail",
    ),
]


@pytest.mark.parametrize(("name", "content", "setting", "says"), SAYS)
def test_what_a_file_says(tmp_path: Path, name: str, content: str, setting: str, says: Any) -> None:
    settings = settings_of(tmp_path, {name: content})

    assert value(settings, setting) == says
    assert warnings(settings) == []


def test_every_file_of_the_rules_is_read() -> None:
    rules = """
        me defaultdomain defaulthost plusdomain envnoathost locals rcpthosts morercpthosts
        virtualdomains smtproutes smtpgreeting helohost localiphost databytes badmailfrom
        bouncefrom bouncehost doublebounceto doublebouncehost queuelifetime concurrencylocal
        concurrencyremote timeoutconnect timeoutremote timeoutsmtpd defaultdelivery sqlserver
    """
    read = {name for source in SOURCES for name in source.files}

    assert read == set(rules.split())
    assert {name for name, *_ in SAYS} == read


# What stands where a file is missing

DEFAULTS: list[tuple[str, Any]] = [
    ("server.me", ME),
    ("sendmail.defaultdomain", ME),
    ("sendmail.plusdomain", ME),
    ("routing.locals", (ME,)),
    ("routing.localiphost", ME),
    ("routing.rcpthosts", ()),
    ("routing.system_files", True),
    ("routing.defaultdelivery", "./Maildir/"),
    ("smtp.databytes", 0),
    ("smtp.timeoutsmtpd", 1200),
    ("relay.timeoutconnect", 60),
    ("relay.timeoutremote", 1200),
    ("queue.queuelifetime", 604800),
    ("queue.bouncefrom", "MAILER-DAEMON"),
    ("queue.doublebounceto", f"postmaster@{ME}"),
    ("queue.concurrencylocal", 20),
    ("queue.concurrencyremote", 200),
    # Empty means server.me, which is qmail's default.
    ("sendmail.defaulthost", ""),
    ("routing.envnoathost", ""),
    ("smtp.greeting", ""),
    ("relay.helohost", ""),
    ("queue.bouncehost", ""),
]


@pytest.mark.parametrize(("setting", "default"), DEFAULTS)
def test_what_stands_without_a_file(tmp_path: Path, setting: str, default: Any) -> None:
    assert value(settings_of(tmp_path, {}), setting) == default


def test_without_me_the_system_s_name_stands_in(tmp_path: Path) -> None:
    settings = load(str(tmp_path), {}, str(control_directory(tmp_path, {})))

    assert settings.routing.locals == (system_hostname(),)
    assert [text for text in warnings(settings) if text.startswith("me: names no host")]


def test_missing_rcpthosts_is_no_open_relay_and_says_so(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, {})

    assert settings.routing.rcpthosts == ()
    assert settings.control is not None
    assert [text for text in settings.control.warnings if "rcpthosts: is missing" in text]


# Who overrules whom

LAYERS = [
    # restante.toml, environment, control file, what counts
    (None, None, "3000", 3000),
    ("1000", None, "3000", 1000),
    (None, "2000", "3000", 2000),
    ("1000", "2000", "3000", 2000),
    ("1000", None, None, 1000),
    (None, "2000", None, 2000),
    ("52428800", None, "3000", 52428800),  # Restante's default, but said
]


@pytest.mark.parametrize(("toml", "variable", "file", "counts"), LAYERS)
def test_restante_toml_and_environment_count_for_more(
    tmp_path: Path, toml: str | None, variable: str | None, file: str | None, counts: int
) -> None:
    control = control_directory(tmp_path, {"databytes": file} if file else {})
    text = f'control = "{control}"\n' + (f"[smtp]\ndatabytes = {toml}\n" if toml else "")
    (tmp_path / "restante.toml").write_text(text)
    environ = {"RESTANTE_SMTP__DATABYTES": variable} if variable else {}

    assert load(str(tmp_path), environ).smtp.databytes == counts


def test_a_name_that_restante_toml_says_is_what_defaults_follow(tmp_path: Path) -> None:
    control_directory(tmp_path, {"me": "old.example"})
    (tmp_path / "restante.toml").write_text('control = "control"\n[server]\nme = "new.example"\n')

    settings = load(str(tmp_path), {})

    assert settings.routing.locals == ("new.example",)
    assert settings.queue.doublebounceto == "postmaster@new.example"


def test_files_that_are_overruled_are_not_opened(tmp_path: Path) -> None:
    """sqlserver may be somebody else's to read."""
    control = control_directory(tmp_path, {"me": ME})
    (control / "sqlserver").mkdir()
    (tmp_path / "restante.toml").write_text(
        'control = "control"\n[database]\nurl = "sqlite:///x.db"\n'
    )

    assert load(str(tmp_path), {}).database.url == "sqlite:///x.db"


def test_system_files_can_be_switched_off(tmp_path: Path) -> None:
    control_directory(tmp_path, {"me": ME})
    (tmp_path / "restante.toml").write_text(
        'control = "control"\n[routing]\nsystem_files = false\n'
    )

    assert load(str(tmp_path), {}).routing.system_files is False


# Which directory


def test_command_line_environment_and_file_name_the_directory(tmp_path: Path) -> None:
    for name in ("by-file", "by-variable", "by-hand"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "me").write_text(f"{name}.example\n")
    (tmp_path / "restante.toml").write_text('control = "by-file"\n')
    variable = {"RESTANTE_CONTROL": str(tmp_path / "by-variable")}

    assert load(str(tmp_path), {}).hostname == "by-file.example"
    assert load(str(tmp_path), variable).hostname == "by-variable.example"
    by_hand = load(str(tmp_path), variable, str(tmp_path / "by-hand"))
    assert by_hand.hostname == "by-hand.example"
    assert load_again(by_hand, variable).hostname == "by-hand.example"


def test_without_a_name_there_is_no_control_directory(tmp_path: Path) -> None:
    (tmp_path / "restante.toml").write_text('control = ""\n')

    assert load(str(tmp_path), {"RESTANTE_CONTROL": ""}) == Settings(str(tmp_path))


def test_a_directory_that_is_named_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "restante.toml").write_text('control = "nowhere"\n')

    with pytest.raises(ConfigurationError) as refused:
        load(str(tmp_path), {})
    assert refused.value.problems == [f"{tmp_path}/nowhere: there is no such control directory"]


def test_control_is_the_name_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "restante.toml").write_text("control = 1\n")

    with pytest.raises(ConfigurationError) as refused:
        load(str(tmp_path), {})
    assert refused.value.problems == ["restante.toml: control: 1 is no directory"]


# What qmail passes over in silence

PASSED_OVER = [
    (
        "virtualdomains",
        "a.example\n",
        "virtualdomains: line 1: 'a.example' has no colon, and never matches",
    ),
    (
        "virtualdomains",
        "# x\na b:c\n",
        "virtualdomains: line 2: 'a b' never matches: the domain is malformed",
    ),
    (
        "virtualdomains",
        "a.example:x\nA.example:y\n",
        "virtualdomains: line 2: 'A.example' is there twice; the last one counts",
    ),
    (
        "smtproutes",
        "ann@a.example:b.example\n",
        "smtproutes: 'ann@a.example' never matches: routes are for domains",
    ),
    (
        "locals",
        "a.example\n.b.example\n",
        "locals: '.b.example' never matches: domains are named one by one here",
    ),
    (
        "locals",
        " a.example\n",
        "locals: line 1: ' a.example' never matches: the domain is malformed",
    ),
    (
        "badmailfrom",
        "a.example\n",
        "badmailfrom: line 1: 'a.example' never matches: write ADDRESS or @DOMAIN",
    ),
    (
        "databytes",
        "ten\n",
        "databytes: line 1: 'ten' does not begin with a digit, and does not count",
    ),
    (
        "databytes",
        "-1\n",
        "databytes: line 1: '-1' does not begin with a digit, and does not count",
    ),
    ("databytes", "10 MB\n", "databytes: line 1: what follows 10 does not count"),
    ("timeoutsmtpd", "0\n", "timeoutsmtpd: line 1: 0 seconds are taken for 1"),
    ("timeoutremote", "99999999\n", "timeoutremote: line 1: 99999999 seconds are taken for 86400"),
    ("helohost", "a.example\nb.example\n", "helohost: only the first line counts"),
    ("helohost", "\n", "helohost: the first line is empty"),
    (
        "doublebounceto",
        "a@b.example\n",
        "doublebounceto: line 1: 'a@b.example' is taken for the whole address",
    ),
    (
        "sqlserver",
        "port 3306\nlogin q\ndb mail\n",
        "sqlserver: the port does not count: localhost is the socket, and 127.0.0.1 is TCP",
    ),
    (
        "sqlserver",
        "login q\ndb mail\nsocket /x\n",
        "sqlserver: line 3: begins with none of server, login, password, db, port",
    ),
    (
        "sqlserver",
        "login q\nlogin r\ndb mail\n",
        "sqlserver: line 2: login is there twice; the last one counts",
    ),
]


@pytest.mark.parametrize(("name", "content", "warning"), PASSED_OVER)
def test_what_does_not_count_is_a_warning(
    tmp_path: Path, name: str, content: str, warning: str
) -> None:
    assert warnings(settings_of(tmp_path, {name: content})) == [warning]


def test_a_password_in_a_line_of_the_wrong_form_is_not_repeated(tmp_path: Path) -> None:
    text = "login q\npassword=hunter2\nhunter2\ndb mail\n"
    told = warnings(settings_of(tmp_path, {"sqlserver": text}))

    assert [warning.partition(": begins with none of ")[0] for warning in told] == [
        "sqlserver: line 2",
        "sqlserver: line 3",
    ]
    assert "hunter2" not in repr(told)


def test_numbers_without_digits_leave_the_default(tmp_path: Path) -> None:
    assert settings_of(tmp_path, {"timeoutsmtpd": "soon\n"}).smtp.timeoutsmtpd == 1200


def test_a_file_full_of_rubbish_is_not_told_line_by_line(tmp_path: Path) -> None:
    said = warnings(settings_of(tmp_path, {"locals": "a b\n" + "c d\n" * 1000}))

    assert len(said) == MAX_COMPLAINTS + 1
    assert said[-1] == "locals: there is more of this kind"


# What cannot be used

WRONG: list[tuple[str, str | bytes, str]] = [
    ("me", "mx example\n", "me: line 1: 'mx example': the domain is malformed"),
    ("smtproutes", "# x\na.example:b c\n", "smtproutes: line 2: 'b c' is no next hop; "),
    ("smtproutes", ":[192.0.2.1:25\n", "smtproutes: line 1: '[192.0.2.1:25' is no next hop; "),
    ("locals", b"a.example\nb\xff.example\n", "locals: line 2: is not UTF-8"),
    ("locals", b"a.example\r\n", "locals: line 1: holds a control character"),
    ("locals", b"a.\0example\n", "locals: line 1: holds a control character"),
    ("locals", "\ufeffa.example\n", r"locals: line 1: holds '\ufeff', which cannot be seen"),
    ("virtualdomains", "a.example\xa0:b\n", r"virtualdomains: line 1: holds '\xa0', which cannot"),
    ("concurrencylocal", "0\n", "concurrencylocal: 0 is too small; 1 is the least"),
    ("concurrencyremote", "100000\n", "concurrencyremote: 100000 is too large; 10000 is the most"),
    (
        "doublebounceto",
        "a b\n",
        'doublebounceto: "a b@mx.example.com": the local part is malformed',
    ),
    ("sqlserver", "login q\n", "sqlserver: names no db"),
    ("sqlserver", "db q\n", "sqlserver: names no login"),
    (
        "sqlserver",
        "login q\ndb m\nport 99999\n",
        "sqlserver: the port is no number from 1 to 65535",
    ),
    ("rcpthosts", b"x" * (MAX_FILE + 1), f"rcpthosts: is larger than {MAX_FILE} octets"),
]


@pytest.mark.parametrize(("name", "content", "problem"), WRONG)
def test_what_cannot_be_used_is_a_problem(
    tmp_path: Path, name: str, content: str | bytes, problem: str
) -> None:
    (found,) = problems(tmp_path, {name: content})
    assert found.startswith(problem)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "restante.toml").write_text("[smtp]\nmax_errors = 0\n")
    found = problems(tmp_path, {"me": "m e", "helohost": "h h", "smtproutes": "a.b:c d\ne.f:g h\n"})

    files = [text.partition(":")[0] for text in found]
    assert files == ["restante.toml", "me", "smtproutes", "smtproutes", "helohost"]


def test_files_that_are_no_files(tmp_path: Path) -> None:
    control = control_directory(tmp_path, {"me": ME})
    (control / "locals").mkdir()
    os.mkfifo(control / "rcpthosts")

    with pytest.raises(ConfigurationError) as refused:
        load(str(tmp_path), {}, str(control))
    assert sorted(refused.value.problems) == [
        f"{control}/locals: is no regular file",
        f"{control}/rcpthosts: is no regular file",
    ]


# sqlserver

SOCKET = {"MYSQL_UNIX_PORT": "/run/x y.sock"}
SERVERS = [
    ("login q\ndb mail\n", "mysql://q@localhost/mail?unix_socket=%2Frun%2Fx+y.sock"),
    (
        "server localhost\nlogin q\npassword p\ndb mail\n",
        "mysql://q:p@localhost/mail?unix_socket=%2Frun%2Fx+y.sock",
    ),
    (
        "server localhost\nport 3306\nlogin q\ndb mail\n",
        "mysql://q@localhost/mail?unix_socket=%2Frun%2Fx+y.sock",
    ),
    ("port 3307\nlogin q\ndb mail\n", "mysql://q@localhost/mail?unix_socket=%2Frun%2Fx+y.sock"),
    ("server 127.0.0.1\nport 0\nlogin q\ndb mail\n", "mysql://q@127.0.0.1/mail"),
    ("server 127.0.0.1\nlogin q\ndb mail\n", "mysql://q@127.0.0.1/mail"),
    ("server ::1\nlogin q\ndb mail\n", "mysql://q@[::1]/mail"),
    (
        "# c\n\nserver\tdb.example \nlogin  q\npassword a:b@c/d%e f#g\ndb m-1\n",
        "mysql://q:a%3Ab%40c%2Fd%25e%20f%23g@db.example/m-1",
    ),
]


@pytest.mark.parametrize(("content", "url"), SERVERS)
def test_where_sqlserver_says_the_database_is(tmp_path: Path, content: str, url: str) -> None:
    assert settings_of(tmp_path, {"sqlserver": content}, **SOCKET).database.url == url


def test_an_exposed_sqlserver_is_refused(tmp_path: Path) -> None:
    content = "login q\npassword hunter2\ndb m\n"
    control = control_directory(tmp_path, {"me": ME, "sqlserver": content})
    file = control / "sqlserver"
    file.chmod(0o644)

    with pytest.raises(ConfigurationError) as refused:
        load(str(tmp_path), {}, str(control))
    (found,) = refused.value.problems
    assert found == (
        f"{file} holds a password and everybody can read it; run: chmod o-rwx {file} "
        "(or set database.allow_exposed_password for as long as programs of qmail's need the file)"
    )
    allowed = {"RESTANTE_DATABASE__ALLOW_EXPOSED_PASSWORD": "true"}
    assert "hunter2" in load(str(tmp_path), allowed, str(control)).database.url


def test_no_password_is_ever_told(tmp_path: Path) -> None:
    found = problems(tmp_path, {"sqlserver": "login q\npassword hunter2\nport hunter2\n"})

    assert found
    assert "hunter2" not in "".join(found)


def test_nothing_else_depends_on_the_directory(tmp_path: Path) -> None:
    """A directory that says nothing changes no setting but those of its defaults."""
    with_control = settings_of(tmp_path, {})
    plain = Settings(str(tmp_path))
    changed = {
        f"{section}.{name}"
        for section in ("server", "database", "mail", "routing", "receiver", "smtp", "queue")
        for name in getattr(plain, section).__slots__
        if value(with_control, f"{section}.{name}") != value(plain, f"{section}.{name}")
    }

    assert changed <= {setting for setting, _ in DEFAULTS}
    assert replace(with_control, control=None).submission == plain.submission

"""Moving from qmail: commands on a control directory, and restante.toml written from one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from restante.cli.app import run
from restante.cli.check.control import examine_control
from restante.cli.check.findings import Findings
from restante.config.leftovers import leftovers
from restante.config.load import load
from restante.config.tree import HostPort, Pop3
from tests.support.control import control_directory
from tests.support.instance import Instance, until
from tests.support.mariadb import PASSWORD, USER, MariaDB
from tests.support.serving import taken_port

EVERYTHING = {
    "me": "mx.example.com\n",
    "defaulthost": "host.example.com\n",
    "defaultdomain": "example.com\n",
    "plusdomain": "plus.example\n",
    "envnoathost": "babasse.com\n",
    "locals": "iain.cx\nlocalhost\n",
    "rcpthosts": "iain.cx\n.example.com\n",
    "morercpthosts": "more.example\n",
    "virtualdomains": "a.example:ann\njoe@b.example:joe\n:all\n",
    "smtproutes": "c.example:relay.example:26\n:[192.0.2.1]\n",
    "smtpgreeting": 'mx.example.com "no" \\spam\n',
    "helohost": "helo.example.com\n",
    "localiphost": "ip.example.com\n",
    "databytes": "20000000\n",
    "badmailfrom": "ann@bad.example\n@worse.example\n",
    "bouncefrom": "bounces\n",
    "bouncehost": "bounces.example.com\n",
    "doublebounceto": "hostmaster\n",
    "doublebouncehost": "example.com\n",
    "queuelifetime": "86400\n",
    "concurrencylocal": "11\n",
    "concurrencyremote": "22\n",
    "timeoutconnect": "33\n",
    "timeoutremote": "44\n",
    "timeoutsmtpd": "55\n",
    "defaultdelivery": "./Mailbox\n./Maildir/\n",
}


def init(tmp_path: Path, control: Path) -> tuple[str, Path]:
    """What ``init --from-qmail`` says, and the directory that it makes."""
    made = tmp_path / "made"
    done = Instance(made).here("init", "--from-qmail", str(control), str(made))
    return done.stdout, made


@pytest.mark.parametrize("files", [EVERYTHING, {"me": "mx.example.com\n"}, {}])
def test_restante_toml_says_the_same(tmp_path: Path, files: dict[str, str]) -> None:
    control = control_directory(tmp_path, files)
    _, made = init(tmp_path, control)

    written = load(str(made), {})
    taken = load(str(made / "nowhere"), {}, str(control))
    assert written.control is None
    # What init sets for every new instance has no counterpart in a control directory.
    for section in ("mail", "tls", "submission", "pop3"):
        taken = replace(taken, **{section: getattr(written, section)})
    server = replace(taken.server, me=taken.hostname)
    assert written == replace(taken, directory=str(made), control=None, server=server)


def test_options_of_init_count_for_more(tmp_path: Path) -> None:
    control = control_directory(tmp_path, {"me": "old.example\n", "sqlserver": "rubbish\n"})
    made = tmp_path / "made"
    options = ["--host", "new.example", "--database", "sqlite:///other.db"]
    Instance(made).here("init", "--from-qmail", str(control), *options, str(made))

    settings = load(str(made), {})
    assert settings.server.me == "new.example"
    assert settings.routing.locals == ("new.example",)
    assert (made / "other.db").exists()


def test_a_password_that_qmails_programs_go_on_reading_may_stay_exposed(tmp_path: Path) -> None:
    files = {"me": "mx.example.com\n", "sqlserver": "login q\npassword hunter2\ndb mail\n"}
    control = control_directory(tmp_path, files)
    (control / "sqlserver").chmod(0o644)
    made = tmp_path / "made"
    arguments = ("init", "--from-qmail", str(control), str(made))
    refused = Instance(made).here(*arguments, check=False)
    assert "set database.allow_exposed_password for as long as" in refused.stderr
    environ = {
        "RESTANTE_DATABASE__ALLOW_EXPOSED_PASSWORD": "true",
        "RESTANTE_SERVER__ME": "elsewhere.example",
    }
    Instance(made, environ).here(*arguments)

    settings = load(str(made), {})
    assert "hunter2" in settings.database.url
    assert (settings.server.me, settings.database.allow_exposed_password) == (
        "mx.example.com",
        False,
    )


def test_what_is_left_behind_is_told(tmp_path: Path) -> None:
    files = {"me": "mx.example.com\n", "rcpthosts": "a.example\n", "virtualdomains": "no colon\n"}
    control = control_directory(
        tmp_path, {**files, "percenthack": "a\n", "morercpthosts.cdb": "x", "mine": "", "me~": ""}
    )
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "assign").write_text("=joe:joe:1:1:/home/joe:::\n.\n")
    said, _ = init(tmp_path, control)

    left = said.partition("Left behind:\n")[2].partition("Next:")[0]
    files_named = [line.split()[0].rstrip(":") for line in left.splitlines()]
    assert files_named == [
        f"{control}/virtualdomains",
        f"{control}/mine",
        f"{control}/morercpthosts.cdb",
        f"{control}/percenthack",
        f"{tmp_path}/users/assign",
    ]


def test_rules_of_tcpserver_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = control_directory(tmp_path, {"me": "mx.example.com\n"})
    rules = tmp_path / "tcp.smtp"
    monkeypatch.setattr("restante.config.leftovers.RELAY_RULES", str(rules))
    monkeypatch.setattr("restante.config.leftovers.QMAIL", str(tmp_path))
    assert list(leftovers(str(control))) == []

    rules.write_text('127.:allow,RELAYCLIENT=""\n')
    (told,) = leftovers(str(control))
    assert "receiver.relay_networks" in told


@pytest.fixture
def qmail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's qmail, as it was installed."""
    monkeypatch.setattr("restante.config.leftovers.RELAY_RULES", str(tmp_path / "none"))
    monkeypatch.setattr("restante.config.leftovers.QMAIL", str(tmp_path))
    control_directory(tmp_path, {"me": "mx.example.com\n"})
    for number in range(3):
        (tmp_path / "queue" / "mess" / str(number)).mkdir(parents=True)
    for name in ("bin", "users"):
        (tmp_path / name).mkdir()
    return tmp_path


def left_of(qmail: Path) -> list[str]:
    """What is told, in short: file and reason without the directory."""
    return [line.replace(f"{qmail}/", "") for line in leftovers(str(qmail / "control"))]


def test_messages_that_qmail_has_taken_are_told_of(qmail: Path) -> None:
    assert left_of(qmail) == []
    for place in ("0/23", "2/25"):
        (qmail / "queue" / "mess" / place).touch()
    (told,) = left_of(qmail)
    assert told.startswith("messages wait in queue, 2 of them: ")


def test_control_files_may_lie_elsewhere(qmail: Path) -> None:
    """As in Debian, where /var/qmail/control is a link to /etc/qmail."""
    (qmail / "etc").mkdir()
    (qmail / "control").rename(qmail / "etc" / "qmail")
    (qmail / "queue" / "mess" / "0" / "23").touch()
    (told,) = leftovers(str(qmail / "etc" / "qmail"))
    assert told.startswith(f"messages wait in {qmail}/queue, 1 of them: ")


def test_qmails_own_way_into_its_queue_is_told_of(qmail: Path) -> None:
    program = qmail / "bin" / "qmail-queue"
    program.write_bytes(b"\x7fELF\x02")
    (told,) = left_of(qmail)
    assert told.startswith("bin/qmail-queue is qmail's: ")
    program.write_bytes(b"#!/usr/bin/python3\n")
    assert left_of(qmail) == []


def test_newaliases_that_is_no_longer_fastforwards_is_told_of(
    qmail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aliases, newaliases = qmail / "aliases.cdb", qmail / "bin" / "newaliases"
    monkeypatch.setattr("restante.config.leftovers.ALIASES", str(aliases))
    monkeypatch.setattr("restante.config.leftovers.NEWALIASES", str(newaliases))
    (qmail / "bin" / "sendmail").symlink_to("restante-sendmail")
    newaliases.symlink_to("sendmail")
    assert left_of(qmail) == []
    aliases.touch()
    (told,) = left_of(qmail)
    assert told.startswith("bin/newaliases is restante-sendmail, which builds nothing: ")
    newaliases.unlink()
    newaliases.touch()
    assert left_of(qmail) == []


@pytest.mark.parametrize(
    ("script", "default"),
    [
        ("exec env - PATH=x \\\nqmail-start ./Mailbox splogger qmail\n", "./Mailbox"),
        ("qmail-start '|preline procmail' splogger qmail\n", "|preline procmail"),
        ('qmail-start "|dot-forward .forward\n./Mailbox" splogger\n', "|dot-forward .forward"),
        ("qmail-start ./Maildir/ splogger qmail\n", ""),
        ('qmail-start "`cat /var/qmail/control/defaultdelivery`" splogger\n', ""),
        ("# qmail-start ./Mailbox\ntrue\n", ""),
    ],
)
def test_a_default_delivery_of_the_start_script_is_told_of(
    qmail: Path, script: str, default: str
) -> None:
    (qmail / "rc").write_text(script)
    told = left_of(qmail)
    assert len(told) == bool(default)
    assert all(line.startswith(f"rc has qmail do '{default}") for line in told)
    (qmail / "control" / "defaultdelivery").write_text("./Mailbox\n")
    assert left_of(qmail) == []


def test_users_that_were_compiled_are_told_of(qmail: Path) -> None:
    (qmail / "users" / "cdb").write_bytes(bytes(2048))
    assert left_of(qmail) == []
    (qmail / "users" / "cdb").write_bytes(bytes(2100))
    (told,) = left_of(qmail)
    assert told.startswith("users/cdb is not read: ")
    (qmail / "users" / "assign").write_text(".\n")
    assert left_of(qmail) == []


def test_check_tells_it_too(tmp_path: Path) -> None:
    control = control_directory(tmp_path, {"me": "mx.example.com\n", "percenthack": "a\n"})
    done = Instance(tmp_path / "x", {"RESTANTE_CONTROL": str(control)}).run("check", check=False)

    assert f"advice: {control}/percenthack is not read" in done.stdout
    assert f"advice: {control}/rcpthosts: is missing" in done.stdout


@pytest.mark.parametrize(
    ("listen", "plaintext", "told"),
    [
        ("0.0.0.0:110", "", 1),
        ("[::]:110", "", 1),
        ("localhost:110", "", 0),
        ("0.0.0.0:110", "always", 0),
        ("0.0.0.0:110", "loopback", 0),
        ("0.0.0.0:110", "never", 0),
    ],
)
def test_check_tells_that_clients_of_qmail_pop3d_are_not_let_in(
    tmp_path: Path, listen: str, plaintext: str, told: int
) -> None:
    """Until somebody has decided about them."""
    control = control_directory(tmp_path, {"me": "mx.example.com\n", "rcpthosts": ""})
    decided = {"RESTANTE_AUTH__PLAINTEXT": plaintext} if plaintext else {}
    settings = replace(
        load(str(tmp_path), decided, str(control)), pop3=Pop3((HostPort.parse(listen),))
    )
    findings = Findings()
    examine_control(settings, findings)
    assert sum(line.startswith("auth.plaintext: ") for line in findings.advice) == told


def test_check_tells_what_workers_cannot_read(tmp_path: Path) -> None:
    """They are another user if root starts them, and else this one."""
    control = control_directory(tmp_path, {"me": "mx.example.com\n", "locals": "", "rcpthosts": ""})
    (control / "rcpthosts").chmod(0o600)
    (control / "me").chmod(0o600)
    done = Instance(tmp_path / "x").run("--control", str(control), "check", check=False)

    told = [line for line in done.stdout.splitlines() if "changes count at SIGHUP only" in line]
    hidden = [f"{control}/rcpthosts:"] if os.geteuid() == 0 else []
    assert [line.split()[1] for line in told] == hidden


def test_check_tells_all_problems_with_file_and_line(tmp_path: Path) -> None:
    control = control_directory(tmp_path, {"me": "m x\n", "smtproutes": "# c\n:a b\n"})
    done = Instance(tmp_path / "x").run("--control", str(control), "check", check=False)

    assert done.returncode == 1
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem:")]
    assert [line.split()[1] for line in problems] == [f"{control}/me:", f"{control}/smtproutes:"]
    assert ": line 2: 'a b' is no next hop" in problems[1]


def test_without_a_directory_the_instance_is_the_host_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    control = control_directory(tmp_path, {"me": "mx.example.com\n"})
    monkeypatch.setattr("restante.cli.invocation.DEFAULT_INSTANCE", str(tmp_path / "nowhere"))
    run(["--control", str(control), "check"])
    assert "the database /var/lib/restante/restante.db: " in capsys.readouterr().out

    (tmp_path / "nowhere").mkdir()
    run(["--control", str(control), "check"])
    assert f"the database {tmp_path}/nowhere/restante.db: " in capsys.readouterr().out


def test_check_before_the_first_server_has_made_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program has the port, and /etc/restante leads to where the instance is to be."""
    control = control_directory(tmp_path, {"me": "mx.example.com\n"})
    link = tmp_path / "etc-restante"
    link.symlink_to(tmp_path / "x")
    monkeypatch.setattr("restante.cli.check.programs.DEFAULT_INSTANCE", str(link))
    with taken_port() as taken:
        monkeypatch.setenv("RESTANTE_SMTP__LISTEN", f'["127.0.0.1:{taken}"]')
        assert run(["--dir", str(tmp_path / "x"), "--control", str(control), "check"]) == 1
    told = capsys.readouterr().out
    assert f"cannot listen on 127.0.0.1:{taken}" in told
    assert f"(process {os.getpid()}), not a server of this instance" in told


def test_serve_makes_the_directory_of_a_bare_instance(tmp_path: Path) -> None:
    control = control_directory(tmp_path, {"me": "mx.example.com\n"})
    ports = {f"RESTANTE_{name}__LISTEN": '["127.0.0.1:0"]' for name in ("SMTP", "POP3")}
    bare = Instance(tmp_path / "var" / "bare", {"RESTANTE_CONTROL": str(control), **ports})
    log = tmp_path / "log"
    bare.environ["RESTANTE_LOG__TARGET"] = str(log)
    try:
        bare.spawn()
        until(lambda: log.exists() and "event=server_ready" in log.read_text(), "it serves")
        assert (bare.directory / "queue").is_dir()
        assert bare.stop() == 0
    finally:
        bare.kill()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("joe@iain.cx", "2.2   CONTROL/locals: line 2 has iain.cx"),
        ("joe@iain.cx", "1     CONTROL/rcpthosts: line 1 has .cx"),
        ("joe@more.example", "1     CONTROL/morercpthosts: line 1 has more.example"),
        ("joe@x.example", "1     neither rcpthosts nor CONTROL/rcpthosts has x.example"),
        ("joe@v.example", "2.4   CONTROL/virtualdomains: line 3 has 'v.example': user ann-joe"),
        ("joe@w.example", "2.4   CONTROL/virtualdomains: line 2 exempts 'w.example'"),
        ("joe@a.b.example", "2.4   CONTROL/virtualdomains: line 4 has '': user all-joe"),
        ("joe", "2.1   no domain: CONTROL/envnoathost makes it joe@babasse.com"),
    ],
)
def test_explain_names_file_and_line(tmp_path: Path, address: str, told: str) -> None:
    files = {
        "me": "mx.example.com\n",
        "locals": "# here\niain.cx\n",
        "envnoathost": "babasse.com\n",
        "rcpthosts": ".cx\n",
        "morercpthosts": "More.example\n",
        "virtualdomains": "# there\nw.example:\nV.Example:ann\n:all\n",
    }
    control = control_directory(tmp_path, files)
    Instance(tmp_path / "i").here("init", str(tmp_path / "i"))
    explained = Instance(tmp_path / "i").here("--control", str(control), "explain", address)

    assert told in explained.stdout.replace(str(control), "CONTROL").splitlines()


def test_explain_names_me_where_locals_are_missing(tmp_path: Path) -> None:
    control = control_directory(tmp_path, {"me": "mx.example.com\n"})
    Instance(tmp_path / "i").here("init", str(tmp_path / "i"))
    address = "joe@mx.example.com"
    explained = Instance(tmp_path / "i").here("--control", str(control), "explain", address)

    assert f"2.2   {control}/me, for want of locals, has mx.example.com\n" in explained.stdout


def test_explain_names_the_setting_where_restante_toml_says_it(tmp_path: Path) -> None:
    control = control_directory(tmp_path, {"me": "mx.example.com\n", "locals": "a.example\n"})
    Instance(tmp_path / "i").here("init", str(tmp_path / "i"))
    environ = {"RESTANTE_CONTROL": str(control), "RESTANTE_ROUTING__LOCALS": '["iain.cx"]'}
    explained = Instance(tmp_path / "i", environ).here("explain", "joe@iain.cx")

    assert "2.2   setting routing.locals has iain.cx\n" in explained.stdout


def test_init_refuses_a_directory_that_is_an_instance(tmp_path: Path) -> None:
    control = control_directory(tmp_path, {"me": "mx.example.com\n"})
    _, made = init(tmp_path, control)
    again = Instance(made).here("init", "--from-qmail", str(control), str(made), check=False)

    assert again.returncode == 1
    assert "is an instance already" in again.stderr


def test_init_without_a_directory_asks_for_one(tmp_path: Path) -> None:
    done = Instance(tmp_path).here("init", check=False)

    assert done.returncode == 2
    assert "DIR" in done.stderr


@pytest.mark.mariadb
@pytest.mark.parametrize("by_socket", [True, False])
def test_sqlserver_alone_finds_the_database(
    tmp_path: Path, mariadb_server: MariaDB, by_socket: bool
) -> None:
    """The tables are there, and init changes nothing in them."""
    database = mariadb_server.new_database()
    first = tmp_path / "first"
    Instance(first).here("init", str(first), "--database", mariadb_server.url(database))
    where = "server localhost" if by_socket else f"server 127.0.0.1\nport {mariadb_server.port}"
    account = f"login {USER}\npassword {PASSWORD}\ndb {database}\n"
    files = {"me": "mx.example.com\n", "sqlserver": f"{where}\n{account}"}
    control = control_directory(tmp_path, files)
    environ = {"MYSQL_UNIX_PORT": str(mariadb_server.socket)}

    bare = Instance(tmp_path / "bare", {"RESTANTE_CONTROL": str(control), **environ})
    bare.here("domain", "add", "example.com")
    assert "example.com" in bare.here("domain", "list").stdout
    assert "rcpthosts has example.com" in bare.here("explain", "ann@example.com").stdout

    made = tmp_path / "made"
    taken = Instance(made, environ)
    taken.here("init", "--from-qmail", str(control), str(made))
    assert os.stat(made / "restante.toml").st_mode & 0o077 == 0
    assert "example.com" in taken.here("domain", "list").stdout

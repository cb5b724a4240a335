"""What restante.toml and the environment say arrives in the settings tree, or is refused."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.config.catalog import catalog
from restante.config.load import FILE_NAME, MAX_FILE, load, load_again
from restante.config.tree import HostPort, Relay, Server, Settings, system_hostname
from restante.errors import ConfigurationError


def write(directory: Path, text: str) -> str:
    (directory / "restante.toml").write_text(text)
    return str(directory)


def problems(directory: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        load(directory, environ or {})
    return refused.value.problems


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, ""), {}) == Settings(str(tmp_path))


def test_values_of_every_type(tmp_path: Path) -> None:
    settings = load(
        write(
            tmp_path,
            """
            [smtp]
            databytes = 1000
            listen = ["0.0.0.0:25", "[::]:25", "localhost:0"]
            timeoutsmtpd = 12
            greeting = "hello"
            [receiver]
            verify_recipients = false
            [routing]
            locals = ["iain.cx"]
            envnoathosts = { "iain.cx" = "babasse.com" }
            [log]
            format = "json"
            """,
        ),
        {},
    )

    assert settings.smtp.databytes == 1000
    assert settings.smtp.listen == (
        HostPort("0.0.0.0", 25),
        HostPort("::", 25),
        HostPort("localhost", 0),
    )
    assert settings.smtp.timeoutsmtpd == 12
    assert settings.smtp.greeting == "hello"
    assert settings.receiver.verify_recipients is False
    assert settings.routing.locals == ("iain.cx",)
    assert settings.routing.envnoathosts == {"iain.cx": "babasse.com"}
    assert settings.log.format == "json"


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    directory = write(tmp_path, "[smtp]\ndatabytes = 1000\nmax_errors = 7\n")

    settings = load(
        directory,
        {
            "RESTANTE_SMTP__DATABYTES": "2000",
            "RESTANTE_SMTP__LISTEN": '["127.0.0.1:0"]',
            "RESTANTE_SMTP__TIMEOUTSMTPD": "1.5",
            "RESTANTE_SMTP__GREETING": "12",
            "RESTANTE_RECEIVER__VERIFY_RECIPIENTS": "False",
            "RESTANTE_ROUTING__VIRTUALDOMAINS": '{"": "all"}',
            "RESTANTE_LOG__LEVEL": "debug",
            "RESTANTE_DIR": "/elsewhere",
            "RESTANTEX": "not ours",
        },
    )

    assert settings.directory == str(tmp_path)
    assert settings.smtp.databytes == 2000
    assert settings.smtp.max_errors == 7
    assert settings.smtp.listen == (HostPort("127.0.0.1", 0),)
    assert settings.smtp.timeoutsmtpd == 1.5
    assert settings.smtp.greeting == "12"
    assert settings.receiver.verify_recipients is False
    assert settings.routing.virtualdomains == {"": "all"}
    assert settings.log.level == "debug"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("RESTANTE_SMTP__DATABYTES", "ten", '"ten" is not a whole number'),
        ("RESTANTE_SMTP__DATABYTES", "-1", "-1 is too small; 0 is the least"),
        (
            "RESTANTE_SMTP__DATABYTES",
            "9" * 400,
            f"{'9' * 57}... is too large; 9007199254740992 is the most",
        ),
        ("RESTANTE_LOG__SQL", "yes", '"yes" is neither true nor false'),
        (
            "RESTANTE_SMTP__LISTEN",
            "127.0.0.1:25",
            '"127.0.0.1:25" is not JSON; write it as ["one", "two"]',
        ),
        (
            "RESTANTE_SMTP__DATABITES",
            "1",
            "no such setting; did you mean RESTANTE_SMTP__DATABYTES?",
        ),
        (
            "RESTANTE_SMTP_DATABYTES",
            "1",
            "no such setting; did you mean RESTANTE_SMTP__DATABYTES?",
        ),
        ("RESTANTE_NOTHING__AT_ALL", "1", "no such setting"),
        (
            "RESTANTE_DATABASE__QUERY_TIMEOUT",
            "8.5",
            "with connect_timeout it makes 11.5 seconds; 9 are the most",
        ),
    ],
)
def test_wrong_variables(tmp_path: Path, name: str, value: str, problem: str) -> None:
    assert problems(write(tmp_path, ""), {name: value}) == [f"{name}: {problem}"]


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("9" * 5000, "a number has too many digits"),
        (
            "0x" + "f" * 5000,
            "[smtp] databytes: the value is too large; 9007199254740992 is the most",
        ),
        (
            "-" + "9" * 400,
            f"[smtp] databytes: -{'9' * 56}... is too small; 0 is the least",
        ),
    ],
)
def test_numbers_that_no_float_can_hold(tmp_path: Path, number: str, problem: str) -> None:
    directory = write(tmp_path, f"[smtp]\ndatabytes = {number}\n")
    assert problems(directory) == [f"restante.toml: {problem}"]


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    assert problems(str(tmp_path)) == [
        f"no restante.toml in {tmp_path}; make one with: restante init {tmp_path}"
    ]


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "restante.toml").mkdir()

    assert problems(str(tmp_path)) == [f"{tmp_path}/restante.toml cannot be read: Is a directory"]


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    directory = write(tmp_path, "#" * (MAX_FILE + 1))

    assert problems(directory) == [f"restante.toml: larger than {MAX_FILE} octets"]


def test_nesting_without_end_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, "a = " + "[" * 100_000))

    assert problem.startswith("restante.toml: ")


def test_relative_paths_start_at_the_instance(tmp_path: Path) -> None:
    settings = load(write(tmp_path, '[mail]\nroot = "../mail"\n'), {})

    assert settings.path(settings.mail.root) == str(tmp_path.parent / "mail")
    assert settings.path("/var/mail") == "/var/mail"


def test_names_default_to_one_another(tmp_path: Path) -> None:
    settings = load(write(tmp_path, '[server]\nme = "mx.example.com"\n'), {})

    assert settings.hostname == settings.envnoathost == "mx.example.com"
    assert Settings(str(tmp_path)).hostname


def test_names_of_the_host_are_spoken_in_a_labels(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), server=Server(me="Mail.BÜCHER.example"))
    assert settings.hostname == settings.helohost == "Mail.xn--bcher-kva.example"
    outside = replace(settings, relay=Relay(helohost="müller.example"))
    assert outside.helohost == "xn--mller-kva.example"


@pytest.mark.parametrize(
    ("url", "mode", "exposed"),
    [
        ("mysql://restante:hunter2@db/mail", 0o644, True),
        ("mysql://restante:hunter2@db/mail", 0o640, False),
        ("mysql://restante@db/mail", 0o644, False),
        ("sqlite:///restante.db", 0o644, False),
    ],
)
def test_a_password_that_everybody_can_read_is_refused(
    tmp_path: Path, url: str, mode: int, exposed: bool
) -> None:
    directory = write(tmp_path, f'[database]\nurl = "{url}"\n')
    file = tmp_path / "restante.toml"
    file.chmod(mode)

    if not exposed:
        assert load(directory, {}).database.url == url
        return
    (found,) = problems(directory)
    assert found == (
        f"{file} holds a password and everybody can read it; run: chmod o-rwx {file} "
        "(or set database.allow_exposed_password)"
    )


def test_an_exposed_password_is_allowed_by_a_setting(tmp_path: Path) -> None:
    url = "mysql://restante:hunter2@db/mail"
    text = f'[database]\nurl = "{url}"\nallow_exposed_password = true\n'
    directory = write(tmp_path, text)
    (tmp_path / "restante.toml").chmod(0o644)

    assert load(directory, {}).database.url == url


def test_a_password_from_the_environment_is_not_in_the_file(tmp_path: Path) -> None:
    environ = {"RESTANTE_DATABASE__URL": "mysql://restante:hunter2@db/mail"}
    directory = write(tmp_path, "")
    (tmp_path / "restante.toml").chmod(0o644)

    assert load(directory, environ).database.url == environ["RESTANTE_DATABASE__URL"]


def test_no_trace_of_the_settings_shows_a_password(tmp_path: Path) -> None:
    text = '[relay]\ncredentials = { "smart.example:587" = "me:hunter2" }\n'
    environ = {"RESTANTE_DATABASE__URL": "mysql://restante:hunter2@db/mail"}
    directory = write(tmp_path, text)
    (tmp_path / "restante.toml").chmod(0o600)

    assert "hunter2" not in repr(load(directory, environ))


def test_credentials_that_everybody_can_read_are_refused(tmp_path: Path) -> None:
    text = '[relay]\ncredentials = { "smart.example:587" = "me:hunter2" }\n'
    directory = write(tmp_path, text)
    (tmp_path / "restante.toml").chmod(0o644)

    (found,) = problems(directory)
    assert "holds a password and everybody can read it" in found
    assert "hunter2" not in found


VARIABLES = [
    setting.environment_name
    for section in catalog().values()
    for setting in section.settings.values()
]


@given(st.sampled_from(VARIABLES), st.text() | st.from_regex(r"[\[{\"0-9.e:,}\]-]*"))
def test_any_value_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: str
) -> None:
    """Nothing but ConfigurationError leaves the loader, and it names the variable.

    What does not fit another setting may stand under that one's name.
    """
    directory = write(tmp_path_factory.mktemp("any"), "")
    with contextlib.suppress(ConfigurationError):
        settings = load(directory, {name: value})
        assert isinstance(settings, Settings)
        return
    setting = name.partition("__")[2].lower()
    assert all(
        problem.startswith(f"{name}: ") or setting in problem
        for problem in problems(directory, {name: value})
    )


def test_a_name_that_the_resolver_left_bare_is_asked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a boot it may not answer yet; later it may not answer for a while."""
    answers = iter(["mx", "mx.example.com", "mx"])
    monkeypatch.setattr(socket, "gethostname", lambda: "mx")
    monkeypatch.setattr(socket, "getfqdn", lambda _name: next(answers))
    system_hostname.cache_clear()
    (tmp_path / FILE_NAME).touch()
    settings, names = load(str(tmp_path), {}), []
    for _ in range(3):
        names.append(settings.hostname)
        settings = load_again(settings, {})
    system_hostname.cache_clear()
    assert names == ["mx", "mx.example.com", "mx.example.com"]

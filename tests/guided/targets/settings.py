"""What operators write: restante.toml, the environment, control files, certificates, lines."""

from __future__ import annotations

import contextlib
import os
from base64 import b64decode

import typer

from restante.cli.queues.selecting import span
from restante.config.control import SOURCES
from restante.config.control_files import Files
from restante.config.load import FILE_NAME, load
from restante.config.tree import Settings
from restante.directory import MAX_ID, BadRow
from restante.directory.engine import parse_url
from restante.directory.rows import account_of
from restante.drop.site import SiteUnreadable, read_site
from restante.errors import ConfigurationError, OperatorError
from restante.mounts import mount_of, read_mounts
from restante.queue.selection import AddressPattern
from restante.relay.routes import Routes
from restante.routing.instructions import (
    MAX_INSTRUCTION,
    BadInstruction,
    instruction_line,
    parse_instruction,
    parse_instructions,
)
from restante.routing.site import Site
from restante.tls import CertificateRefused
from restante.tls.certificate import _certificates
from restante.tls.x509 import read_certificate
from tests.guided.scratch import emptied, scratch
from tests.guided.target import Choices, Target, text_of

NAMES = sorted({name for source in SOURCES for name in source.files})
PASSWORD = "k3pt-s3cr3t"


def restante_toml(data: bytes) -> None:
    """restante.toml: settings of which all that is needed can be made, or all problems at once."""
    directory = scratch("toml")
    file = directory / FILE_NAME
    file.write_bytes(data)
    file.chmod(0o600)
    try:
        _usable(load(str(directory), {}))
    except ConfigurationError as refused:
        assert refused.problems
        assert all(map(_is_a_line, refused.problems))


def environment(data: bytes) -> None:
    """The environment: as restante.toml; what a variable may hold is a setting or a problem."""
    directory = scratch("environment")
    (directory / FILE_NAME).write_bytes(b"")
    lines = text_of(data.replace(b"\0", b"")).split("\n")
    environ = dict(line.split("=", 1) for line in lines if "=" in line)
    try:
        _usable(load(str(directory), environ))
    except ConfigurationError as refused:
        assert all(map(_is_a_line, refused.problems))


def control_files(data: bytes) -> None:
    """Control files: settings, or problems that name the file; lines are where they say."""
    choices = Choices(data)
    directory = emptied("control")
    (directory / "me").write_bytes(b"mx.example.com\n")
    written = {"me"}
    for part in choices.rest.split(b"\0"):
        name = NAMES[part[0] % len(NAMES)] if part else "locals"
        written.add(name)
        (directory / name).write_bytes(part[1:])
        (directory / name).chmod(0o600)
    try:
        _usable(load(str(scratch("instance")), {}, str(directory)))
    except ConfigurationError as refused:
        named = {each.removeprefix(f"{directory}/").partition(":")[0] for each in refused.problems}
        assert named <= written, refused.problems
    for name in written:
        octets = (directory / name).read_bytes().split(b"\n")
        for line in Files(str(directory), {}).lines(name) or []:
            assert octets[line.number - 1].rstrip(b" \t") == line.text.encode()
            assert line.text.replace("\t", " ").isprintable()
            assert not line.text.startswith("#")


def _usable(settings: Settings) -> None:
    """What is made of the settings can be made."""
    Site(settings.routing, settings.hostname)
    Routes(settings.routing.smtproutes)
    parse_url(settings.database.url, settings.directory)


def _is_a_line(problem: str) -> bool:
    return "\n" not in problem and len(problem) < 2000


def database_url(data: bytes) -> None:
    """database.url: a place, or a complaint without the password."""
    text = text_of(data)
    for url in (text, f"mysql://user:{PASSWORD}@{text}"):
        try:
            parse_url(url, "/srv/mail")
        except OperatorError as error:
            assert url is text or PASSWORD not in str(error)


def instruction(data: bytes) -> None:
    """Instruction lines: what is understood is the same when it is written and read again."""
    lines = text_of(data).split("\n")
    for line in lines:
        with contextlib.suppress(BadInstruction):
            parse_instruction(line)
    try:
        actions = parse_instructions(lines)
    except BadInstruction as error:
        assert len(str(error)) < 2 * MAX_INSTRUCTION + 500
        return
    written = [instruction_line(action) for action in actions]
    assert all("\n" not in line for line in written)
    assert not written or parse_instructions(written) == actions


def table_row(data: bytes) -> None:
    """A row of ``mailbox``: an account, or a BadRow that says which and why."""
    parts = [*data.split(b"\n"), b"", b"", b"", b""]
    for row in (tuple(parts[:4]), tuple(map(text_of, parts[:4]))):
        try:
            account = account_of(row)
        except BadRow:
            continue
        assert 0 <= account.uid <= MAX_ID
        assert 0 <= account.gid <= MAX_ID
        assert account.home.startswith("/")


def site_file(data: bytes) -> None:
    """What is published for programs: a site, or SiteUnreadable."""
    path = scratch("site") / "site"
    path.write_bytes(data)
    with contextlib.suppress(SiteUnreadable):
        assert read_site(str(path)).databytes is not None


def mount_table(data: bytes) -> None:
    """The kernel's table of mounts, in which users have a say: every line that is one counts."""
    path = scratch("mounts") / "mounts"
    # No blank, line end or backslash gets there as it is (seq_path(), mangle()).
    escaped = b"".join(b"\\%03o" % o if o in b" \t\n\\" else bytes([o]) for o in data) or b"x"
    path.write_bytes(b"host:/x /%b fuse.x rw 0 0\n/dev/sda1 / ext4 rw 0 0\n" % escaped)
    first, second = read_mounts(str(path))
    assert second.place == "/"
    assert os.fsencode(first.place) == b"/" + (data or b"x")
    assert first.is_far
    assert mount_of(first.place, [second, first]) is first


def spans_and_patterns(data: bytes) -> None:
    """What names messages on a command line: a span, an address or a domain, or a usage error."""
    text = text_of(data)
    with contextlib.suppress(typer.BadParameter):
        assert span("--older", text) >= 0
    with contextlib.suppress(ValueError):
        AddressPattern.parse(text)


def certificate(data: bytes) -> None:
    """A certificate is read, or is none: a ValueError, of DER and of PEM."""
    try:
        read = read_certificate(data)
    except ValueError:
        pass
    else:
        assert read.may_be_issued_by(read) in (True, False)
        assert all(name.isascii() for name in read.names)
    with contextlib.suppress(CertificateRefused):
        assert _certificates("x.pem", data)


DER = b64decode(
    "MIIBnzCCAUWgAwIBAgIUBjyt3SWkJe26/aYbLgPJ7aiVDpowCgYIKoZIzj0EAwIwGTEXMBUGA1UEAwwObXguZXhhbX"
    "BsZS5jb20wHhcNMjYxMTI2MTkxMjQzWhcNMjcwMjI1MTkxMjQzWjAZMRcwFQYDVQQDDA5teC5leGFtcGxlLmNvbTBZ"
    "MBMGByqGSM49AgEGCCqGSM49AwEHA0IABLiuAGHJSybtAUwLY+jm+X5XNleIK0XBTgtzAd0n3ben/bq5AOMZTbM4oj"
    "vLuG78wwVSlT4CB5iaSDvYbcSrotejazBpMAwGA1UdEwEB/wQCMAAwGQYDVR0RBBIwEIIObXguZXhhbXBsZS5jb20w"
    "HQYDVR0OBBYEFA9vVde8giJpBr/pYlfCjxz7pzi3MB8GA1UdIwQYMBaAFA9vVde8giJpBr/pYlfCjxz7pzi3MAoGCC"
    "qGSM49BAMCA0gAMEUCIH5Ps0z9aPqBLsaYLG8H+U61SV8v2ukWj8EVYadq/Z/BAiEAuowI4Ro1spVC0KQZWos0kjze"
    "mVDcTuVsO1XQP8ceWrw="
)
"""A certificate of a test."""
TOML = (
    b'[server]\nme = "mx.example.com"\n[smtp]\nlisten = ["127.0.0.1:25"]\ndatabytes = 10\n',
    b'[routing]\nlocals = ["a.b"]\nenvnoathosts = {"a.b" = "c.d"}\nsmtproutes = {"" = "x:2"}\n',
    b'[relay]\ntls_policy = {".a" = "verify"}\ncredentials = {x = "a:b"}\n[auth]\nmechanisms = []',
    b"[queue]\nqueuelifetime = 0x10\ndoublebounceto = ''\n[smtp]\ntimeoutsmtpd = 1.5\n",
    b'control = "c"\n[database]\nurl = "mysql://u:p@h/db?ssl_mode=REQUIRED"\n[log]\nlevel = "x"\n',
)
ENVIRONMENT = (
    b'RESTANTE_SMTP__DATABYTES=100\nRESTANTE_ROUTING__LOCALS=["a.b"]',
    b'RESTANTE_ROUTING__SMTPROUTES={"a.b": "c:25"}\nRESTANTE_SMTP__LISTEN=["[::1]:25"]',
    b"RESTANTE_SMTP_DATABYTES=1\nRESTANTE_X=1\nRESTANTE_QUEUE__ROOT=q\nRESTANTE_LOG__LEVEL=debug",
)
CONTROL = (
    bytes([0, *b"a.example\n#x\n .b \n"])
    + b"\0"
    + bytes([NAMES.index("smtproutes"), *b".a:[::1]:25\n"]),
    bytes([0, NAMES.index("sqlserver"), *b"login a\npassword b\ndb c\nport 3\n"]),
    b"\0".join(bytes([number, *b"ann@c.example\n5\n"]) for number in range(len(NAMES))),
)
URLS = (
    b"sqlite:///restante.db", b"mysql://u:p%40@h:3306/db", b"mysql://u@a,b:3307/db?unix_socket=/x",
    b"mysql://u@[::1]/db?ssl_mode=VERIFY_CA&ssl_ca=/ca.pem", b"h/db", b"h:1,[::2]:3/db",
)  # fmt: skip
LINES = (
    b"&ann@example.com\n# x\n./Maildir/\n|cmd a b\n./mbox\n+list\n\n", b'&"a b"@c', b"<a@b>",
    b"a..b@c",
    b"/home/x/Maildir/\xff",
)  # fmt: skip
TOKENS = (
    b"[smtp]", b"[routing]", b"=", b'"', b"'", b"[", b"]", b"{", b"}", b",", b"\n", b".", b"#",
    b"1e999", b"nan", b"inf", b"0x", b"9" * 100, b"1979-05-27T07:32:00", b"true", b"databytes = ",
    b"RESTANTE_", b"__", b"SMTP__DATABYTES=", b"@", b":", b"\xc3\xa9", b"\xff", b"\xef\xbb\xbf",
)  # fmt: skip

TARGETS = (
    Target(restante_toml, TOML, TOKENS, longest=600),
    Target(environment, ENVIRONMENT, TOKENS, longest=200),
    Target(control_files, CONTROL, (*TOKENS, b"\0", b" ", b"\t", b"\r", b"login ", b"port ")),
    Target(
        database_url,
        URLS,
        (b"mysql://", b"sqlite:///", b"@", b":", b"/", b"?", b"&", b"%00", b"[", b"]", b",", b"#"),
    ),
    Target(
        instruction,
        LINES,
        (
            b"&",
            b"|",
            b"./",
            b"/",
            b"#",
            b"+",
            b"<",
            b">",
            b'"',
            b"@",
            b"\n",
            b"\0",
            b"\xc2\xa0",
            b"\x1c",
        ),
    ),
    Target(
        table_row,
        [b"ann\n1000\n1000\n/home/ann", b"a\n0001\n-1\nx"],
        (b"\n", b"/", b"0", b"\0", b"\xff", b"4294967295"),
    ),
    Target(
        site_file,
        [
            (
                b"me a\ndefaulthost b\ndefaultdomain c\nplusdomain d\ndatabytes 0\nmax_header 1\n"
                b"max_text_line 2\nmax_received 3\ncontrol /c\n"
            )
        ],
        (b" ", b"\n", b"me", b"9" * 50, b"\xff"),
    ),
    Target(
        mount_table,
        [b"srv/our mail", b"a\\040b", b"x"],
        (b"\r", b"\x0b", b"\x1c", b"\xc2\x85", b"\xe2\x80\xa8", b"\\", b" "),
    ),
    Target(
        spans_and_patterns,
        [b"1d12h", b"90s", b"ann@example.com", b"@example.com", b"*@x"],
        (b"9" * 30, b"w", b"\xd9\xa3", b"@"),
        longest=400,
    ),
    Target(
        certificate,
        [DER, b"-----BEGIN CERTIFICATE-----\nTUE=\n-----END CERTIFICATE-----\n"],
        (b"\x30\x82", b"\x55\x1d\x11", b"\x30\x80", b"\x17\x0d", b"\x18\x0f"),
        longest=1500,
    ),
)

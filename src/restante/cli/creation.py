"""Makes an instance directory, wholly or not at all, and durably."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from restante.cli.context import administer, stored_text
from restante.cli.homes import initial_mail_user
from restante.config.load import FILE_NAME, load
from restante.config.template import render
from restante.config.tree import Settings
from restante.directory.engine import SQLiteLocation, parse_url
from restante.drop import DropPaths
from restante.errors import OperatorError
from restante.pickup.place import prepare, sync_directory

CONFIGURATION_MODE = 0o600
"""restante.toml may hold the database's password."""
CERTIFICATE = "tls/self-signed.pem"
KEY = "tls/self-signed.key"
_UNFINISHED = f"{FILE_NAME}.new"
_BESIDE_SQLITE = ("-wal", "-shm", "-journal")
"""What SQLite adds to the name of a database, for files of its own (sqlite.org/tempfiles.html)."""


def create_instance(
    directory: str, overrides: Mapping[str, Mapping[str, object]], *, tables: bool = True
) -> Settings:
    """A new instance with its database and its tables; the settings it begins with.

    Without ``tables``, the database is one that has them, and is left alone. Raises
    OperatorError, ConfigurationError or CannotKnow; nothing that was made is left then, except
    tables in a database that was there before. A server may have used the directory without a
    restante.toml: what was there before stays in any case. As restante.toml gets its name last,
    what is killed meanwhile has made no instance, and may be done again.
    """
    directory = os.path.abspath(stored_text(directory))
    if os.path.lexists(os.path.join(directory, FILE_NAME)):
        raise OperatorError(f"{directory} is an instance already: it has a {FILE_NAME}")
    with _undone_on_failure() as undo:
        make_directory(directory, passable_mode(), undo)
        _write_settings(directory, overrides, undo)
        settings = load(directory, os.environ, name=_UNFINISHED)
        make_directory(settings.path(settings.mail.root), passable_mode(), undo)
        make_directory(settings.path(settings.queue.root), 0o700, undo)
        _make_drop(settings, undo)
        _make_certificate(settings, undo)
        if tables:
            _create_schema(settings, undo)
        _finish(directory, undo)
        _give_to_server(settings)
    return settings


def _give_to_server(settings: Settings) -> None:
    """Where root makes the instance, its workers will be somebody else."""
    from restante.service.ownership import hand_over
    from restante.service.user import server_user

    user = server_user(settings)
    if user is not None:
        hand_over(settings, user)


@contextlib.contextmanager
def _undone_on_failure() -> Iterator[list[Callable[[], object]]]:
    """A list of what to do, last first, if the block fails."""
    undo: list[Callable[[], object]] = []
    try:
        yield undo
    except BaseException as error:
        for step in reversed(undo):
            with contextlib.suppress(OSError):
                step()
        if isinstance(error, OSError):
            raise OperatorError(f"{error.filename or FILE_NAME}: {error.strerror}") from error
        raise


def passable_mode() -> int:
    """Where root runs the server, accounts have other uids, and must reach their homes."""
    return 0o711 if os.geteuid() == 0 else 0o700


def make_directory(path: str, mode: int, undo: list[Callable[[], object]]) -> None:
    """With its parents, unless it is there, and whatever the umask; durably. Raises OSError."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_directory(parent, mode, undo)
    os.mkdir(path, mode)
    undo.append(lambda: os.rmdir(path))
    os.chmod(path, mode)
    sync_directory(parent)


def _write_settings(
    directory: str,
    overrides: Mapping[str, Mapping[str, object]],
    undo: list[Callable[[], object]],
) -> None:
    path = os.path.join(directory, _UNFINISHED)
    with contextlib.suppress(FileNotFoundError):  # of one that was killed
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, CONFIGURATION_MODE)
    undo.append(lambda: os.unlink(path))
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(render({**overrides, **_initial_settings()}))
        file.flush()
        os.fsync(descriptor)


def _finish(directory: str, undo: list[Callable[[], object]]) -> None:
    path = os.path.join(directory, FILE_NAME)
    os.rename(os.path.join(directory, _UNFINISHED), path)
    undo.append(lambda: os.unlink(path))
    sync_directory(directory)


def _initial_settings() -> dict[str, Mapping[str, object]]:
    user = initial_mail_user()
    tls: dict[str, Mapping[str, object]] = {"tls": {"certificate": CERTIFICATE, "key": KEY}}
    return {**tls, "mail": {"user": user}} if user else tls


def _make_certificate(settings: Settings, undo: list[Callable[[], object]]) -> None:
    """A pair to try TLS out with, unless there is one, or the environment names another."""
    if (settings.tls.certificate, settings.tls.key) != (CERTIFICATE, KEY):
        return
    from restante.tls.certificate import utc_now
    from restante.tls.selfsigned import UNFINISHED, write_self_signed

    pair = certificate, key = settings.path(CERTIFICATE), settings.path(KEY)
    if not _missing(*pair):
        return
    place = os.path.dirname(certificate)
    make_directory(place, 0o700, undo)
    undo += [partial(os.unlink, path) for path in _missing(*pair)]
    undo += [partial(os.unlink, f"{path}{UNFINISHED}") for path in pair]
    write_self_signed(settings.hostname, certificate, key, utc_now())
    sync_directory(place)


def _make_drop(settings: Settings, undo: list[Callable[[], object]]) -> None:
    """So that mail can be left before the server has run for the first time."""
    paths = DropPaths.of(settings.directory)
    undo += [partial(_remove_drop, paths) for _ in _missing(paths.root)]
    prepare(settings)


def _remove_drop(paths: DropPaths) -> None:
    """Unless a program has left mail in it meanwhile, which is kept then (OSError)."""
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(paths.incoming)
    shutil.rmtree(paths.root)


def _create_schema(settings: Settings, undo: list[Callable[[], object]]) -> None:
    location = parse_url(settings.database.url, settings.directory)
    if isinstance(location, SQLiteLocation):
        for file in _missing(location.path):
            undo += [partial(os.unlink, file + suffix) for suffix in ("", *_BESIDE_SQLITE)]
    administer(settings, lambda admin: admin.create_schema(), create=True)


def _missing(*paths: str) -> list[str]:
    """Those that are not there: whatever is made of them now may be undone, and nothing else."""
    return [path for path in paths if not os.path.lexists(path)]

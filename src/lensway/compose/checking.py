"""`lensway serve --check`: everything that a start would refuse, without serving and without changing anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

from lensway.compose.server import ServerSettings
from lensway.errors import ErrorCode, LenswayError
from lensway.store.bootstrap import DataDirectory


def check_settings(settings: ServerSettings) -> Iterator[str]:
    """A line for each part that is in order.

    Raises:
        LenswayError: INVALID_REQUEST for the first part that is not.
    """
    settings.check_addresses()
    yield f"listeners: API and Console {_at(settings.http_host, settings.http_port)}, gateway " + _at(
        settings.gateway_host, settings.gateway_port
    )
    yield f"addresses: {settings.public_url}, runners dial {settings.gateway_url or 'an address that is not set'}"
    certificates = settings.certificates()
    yield "TLS: off" if certificates is None else f"TLS: {settings.tls_cert} with its key"
    for directory in settings.source_dirs:
        if not directory.is_dir() or not os.access(directory, os.R_OK | os.X_OK):
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"--source-dir {directory} is not a directory that this user can read",
                hint="Correct the path or its permissions.",
            )
    yield from _check_data(settings)


def _check_data(settings: ServerSettings) -> Iterator[str]:
    DataDirectory.previous_keys(settings.previous_master_keys)
    path = settings.data_dir
    if path.exists():
        DataDirectory.check(path)
        probe = DataDirectory.unlocked(path)
        if settings.master_key is not None or probe.database.exists():
            probe.master_key(settings.master_key, may_create=False)
        yield f"data directory: {path}"
        return
    if settings.master_key is not None:
        DataDirectory.unlocked(path).master_key(settings.master_key, may_create=False)
    parent = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"the data directory {path} does not exist, and this user cannot create it",
            hint=f"Create it for this user, or choose another --data-dir; {parent} is not writable.",
        )
    yield f"data directory: {path} will be made"


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

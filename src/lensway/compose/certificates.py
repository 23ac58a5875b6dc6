"""The server's certificate: renewed files are used without a restart, and a file that is half written changes nothing.

The context of both listeners is one object: what it loads anew serves every handshake from then on, and disturbs no connection.
"""

from __future__ import annotations

import asyncio
import pathlib
import ssl

import structlog

from lensway import limits
from lensway.errors import ErrorCode, LenswayError

_log = structlog.get_logger("lensway.server")
_Mark = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """A certificate chain and its key in two files."""

    def __init__(self, certificate: pathlib.Path, key: pathlib.Path) -> None:
        self._files = certificate, key
        self._mark = self._marks()
        self.context = self._loaded()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at the files every few seconds."""
        self._watching = asyncio.create_task(self._watch(), name="certificates")

    async def close(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def reload(self) -> None:
        """Use the files as they are now; a pair that cannot be used is logged, and the one in use stays."""
        mark = self._marks()
        try:
            self._loaded()
            self.context.load_cert_chain(*self._files)
        except (LenswayError, OSError, ssl.SSLError) as error:
            _log.error("the renewed certificate cannot be used; the old one stays", reason=str(error))
        else:
            _log.warning("certificate loaded", file=str(self._files[0]))
        self._mark = mark

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(limits.CERTIFICATE_LOOK_SECONDS)
            if self._marks() != self._mark:
                self.reload()

    def _marks(self) -> _Mark:
        return tuple(_mark_of(file) for file in self._files)

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            # Without a passphrase nothing asks for one on the terminal.
            context.load_cert_chain(*self._files, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            certificate, key = self._files
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"--tls-cert {certificate} and --tls-key {key} cannot be used: {_reason(error, certificate, key)}",
                hint="Both are files in PEM format; the first holds the server's certificate and its chain, the second its key.",
            ) from None
        return context


def _reason(error: OSError | ssl.SSLError, certificate: pathlib.Path, key: pathlib.Path) -> str:
    for file in (certificate, key):
        if not file.is_file():
            return f"{file} is not a file"
        try:
            file.open("rb").close()
        except OSError:
            return f"{file} cannot be read by this user"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate"
    return "one of them is not in PEM format, or the key has a passphrase"


def _mark_of(path: pathlib.Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size

"""Pages and exports secure their connections by the very same settings: every mode with every kind of root, on both paths."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import shutil
import tempfile

import asyncpg
import pytest

from lensway.bridges.library import ExecutionLibrary
from lensway.errors import LenswayError
from lensway.query.result import RowFormat
from lensway.testing.postgres import PostgresCluster, write_certificate
from tests.bridges.test_bulk import Sink, ask, let_pass, within

LOCALHOST = bytes.fromhex("3112301006035504030c09") + b"localhost"
HASHED = hashlib.sha1(LOCALHOST).digest()[3::-1].hex() + ".0"
"""The name under which OpenSSL looks for the certificate of CN=localhost in a directory."""


async def outcomes(library: ExecutionLibrary, config: dict) -> tuple[str, str]:
    """What a page and an export come to: `ok`, or stage and class of their failure."""
    found = []
    for more in ({"format": RowFormat.JSON, "is_export": False}, {"format": RowFormat.ARROW, "is_export": True}):
        try:
            await ask(library, config, "huge", Sink(), **more)
            found.append("ok")
        except LenswayError as error:
            details = error.failure.details
            found.append(f"{error.code.value} {details.get('stage', '')} {details.get('class', '')}")
    return found[0], found[1]


def test_s6_every_mode_and_root_means_the_same_on_both_paths(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path_factory.mktemp("tls")
    let_pass(directory)
    with PostgresCluster(directory / "cluster", use_tls=True) as cluster:
        asyncio.run(cluster.create_role_and_database("tls_reader", "tls-password", "tls"))
        own = pathlib.Path(shutil.copy(cluster.certificate_path, directory / "own.pem"))
        (directory / "other").mkdir()
        write_certificate(directory / "other")
        other = directory / "other" / "server.crt"
        bundle = directory / "bundle"
        bundle.mkdir()
        shutil.copy(own, bundle / HASHED)
        (bundle / "00000000.0").write_text("no certificate")
        (bundle / "README").write_text("no certificate either")
        # As on a read-only root: nothing can be written anywhere.
        monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
        monkeypatch.setenv("TMPDIR", "/nonexistent")
        good, lost, no_file = "ok", "SOURCE_UNREACHABLE tls certificate", "invalid_request  "
        roots: dict[str, tuple[dict, dict, str]] = {
            "inline": ({"sslrootcert": own.read_text()}, {}, good),
            "file": ({"sslrootcert": str(own)}, {}, good),
            "inline, two of them": ({"sslrootcert": own.read_text() + other.read_text()}, {}, good),
            "wrong, inline": ({"sslrootcert": other.read_text()}, {}, lost),
            "wrong, file": ({"sslrootcert": str(other)}, {}, lost),
            "the system's file": ({}, {"SSL_CERT_FILE": str(own), "SSL_CERT_DIR": "/nonexistent"}, good),
            "the system's directory": ({}, {"SSL_CERT_FILE": "/nonexistent", "SSL_CERT_DIR": str(bundle)}, good),
            "two directories": ({}, {"SSL_CERT_FILE": "/nonexistent", "SSL_CERT_DIR": f"/nonexistent:{bundle}"}, good),
            "nothing in the system": ({}, {"SSL_CERT_FILE": "/nonexistent", "SSL_CERT_DIR": "/nonexistent"}, lost),
            "no such file": ({"sslrootcert": str(directory / "gone.pem")}, {}, no_file),
            "an empty file": ({"sslrootcert": "/dev/null"}, {}, no_file),
        }

        async def prepare() -> None:
            owner = await asyncpg.connect(cluster.superuser_dsn("tls"))
            await owner.execute("CREATE VIEW huge AS SELECT 1 AS id, 'x'::text AS body; GRANT SELECT ON huge TO PUBLIC")
            await owner.close()

        asyncio.run(prepare())
        base = {"port": cluster.port, "user": "tls_reader", "password": "tls-password", "database": "tls"}
        for name, (settings, variables, expected) in roots.items():
            for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
                monkeypatch.setenv(variable, variables.get(variable, "/nonexistent"))

            # No connection of one case is there for the next.
            async def work(library: ExecutionLibrary, name=name, settings=settings, expected=expected) -> None:
                for sslmode, host in (
                    ("verify-full", "localhost"),
                    ("verify-ca", "127.0.0.1"),
                    ("require", "localhost"),
                ):
                    config = {**base, "host": host, "sslmode": sslmode, **settings}
                    wanted = good if sslmode == "require" else expected
                    assert await outcomes(library, config) == (wanted, wanted), (name, sslmode, host)

            asyncio.run(within(work))

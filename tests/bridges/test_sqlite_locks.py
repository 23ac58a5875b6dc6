"""A look at a file that SQLite reads takes no lock away: nobody writes while a statement reads."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import subprocess
import sys

import pytest

from lensway.bridges.sqlite import wal

WRITE = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN EXCLUSIVE')"


def can_write(path: pathlib.Path) -> bool:
    """Whether another process can have the file alone now."""
    return subprocess.run([sys.executable, "-c", WRITE, str(path)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_look_at_the_mode_of_a_file_leaves_the_locks_of_its_readers(tmp_path: pathlib.Path, mode: str) -> None:
    path = tmp_path / "file.db"
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute(f"PRAGMA journal_mode = {mode}")
        made.execute(
            "CREATE TABLE t AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 1000) SELECT x FROM n"
        )
        made.commit()
    failure = sqlite3.OperationalError("unable to open database file")
    failure.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        rows = reader.execute("SELECT x FROM t")
        assert rows.fetchone() == (1,)
        for _ in range(2):
            assert wal.needs_writing(path, failure) is (mode == "wal")
        # In WAL mode readers and a writer do not wait for each other.
        assert can_write(path) is (mode == "wal")
        assert len(rows.fetchall()) == 999
    assert can_write(path)

"""`make demo-data`: the demo's tables as one SQL file for a PostgreSQL in a container, which reads it at its first start."""

from __future__ import annotations

import gzip
import pathlib
import sys

from demo import data

_READER = "flights_reader"


def main() -> int:
    """Write the file into the folder given; `deploy/demo-data` by default."""
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "deploy/demo-data")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nycflights13.sql.gz"
    # The time in the header would make each file another one.
    with path.open("wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
        for text in data.statements(_READER):
            packed.write(text)
    sys.stdout.write(f"{path} ({path.stat().st_size:,} bytes)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

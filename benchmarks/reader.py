"""A caller of one export, in a process of its own: reads as fast as it comes, until the end or until it is told to go.

python -m benchmarks.reader PORT KEY LENS
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
from collections.abc import Iterator


def main(port: str, key: str, lens: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(port))
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept": "application/x-ndjson"}
    connection.request("POST", f"/v1/query/{lens}/export", "{}", headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    size = 0
    while chunk := answer.read1(1 << 20):
        if not size:
            print("reading", flush=True)
        size += len(chunk)
    print(size, flush=True)


@contextlib.contextmanager
def reading(port: int, key: str, lens: str) -> Iterator[subprocess.Popen[str]]:
    """A caller that has got its first rows; gone when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.reader", str(port), key, lens], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n", "the export gave no rows"
        yield process
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What jobs give, as digests: run here, or by a process of its own, which is how two places that execute are compared."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.errors import LenswayError
from lensway.query.result import ResultLimits, RowFormat, encode_end


class DigestJob(msgspec.Struct, frozen=True, array_like=True):
    """One job on the source of this bridge."""

    bridge: str
    payload: bytes
    format: str
    is_export: bool


class _Jobs(msgspec.Struct, array_like=True):
    configs: Mapping[str, Mapping[str, Any]]
    jobs: Sequence[DigestJob]


class _Sink:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)


async def result_of(library: ExecutionLibrary, config: Mapping[str, Any], job: DigestJob) -> tuple[bytes, bytes]:
    """The rows and the end mark of this job; for one that fails, its code and details."""
    sink = _Sink()
    execution = Execution(
        deadline=time.monotonic() + 60.0,
        format=RowFormat(job.format),
        limits=ResultLimits(rows_max=10**6, bytes_max=10**8, row_bytes_max=10**7),
        tag="digest/1",
        is_export=job.is_export,
    )
    kind = "export" if job.is_export else "rows"
    try:
        end = await library.perform(
            job.bridge, job.bridge, config, kind=kind, payload=job.payload, execution=execution, sink=sink
        )
    except LenswayError as error:
        return error.code.value.encode(), msgspec.json.encode(error.failure.details)
    return b"".join(sink.chunks), encode_end(end)


class OtherPlace:
    """A process of its own that does the same jobs meanwhile."""

    def __init__(self, configs: Mapping[str, Mapping[str, Any]], jobs: Sequence[DigestJob]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lensway.testing.digests"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(msgspec.msgpack.encode(_Jobs(configs, jobs)))

    def digests(self) -> list[bytes]:
        """The digest of every job, in order; waits for them."""
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            found = msgspec.msgpack.decode(stdout.read(), type=list[bytes])
        self._process.wait()
        return found


def digest(rows: bytes, end: bytes) -> bytes:
    """One value for a result."""
    return hashlib.sha256(rows + b"\0" + end).digest()


async def _all(asked: _Jobs) -> list[bytes]:
    library = ExecutionLibrary(AddressPolicy())
    found = [digest(*await result_of(library, asked.configs[job.bridge], job)) for job in asked.jobs]
    await library.close()
    return found


def main() -> None:
    """Jobs on standard input, digests on standard output."""
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Jobs)
    sys.stdout.buffer.write(msgspec.msgpack.encode(asyncio.run(_all(asked))))


if __name__ == "__main__":
    main()

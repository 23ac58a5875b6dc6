"""Arrow without a copy of one's own: bytes of an IPC stream, offered through the Arrow PyCapsule interface.

nanoarrow reads the stream: 3 MB where pyarrow is 170. Each buffer is filled once, from the bytes as they came, and then shared
with whoever takes the capsule: pandas, Polars, DuckDB, pyarrow.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lensway.errors import LenswayError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

T = TypeVar("T")


class ArrowSource:
    """What speaks the Arrow PyCapsule interface: hand it to any library that does, or convert it here."""

    failure: LenswayError | None = None
    """Why the rows are incomplete, once that is known."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows as an Arrow C stream. Raises ImportError without ``lensway[client-arrow]``."""
        return _capsule(self._arrow_parts(), requested_schema)

    def to_pyarrow(self) -> pyarrow.Table:
        """A pyarrow Table. Raises ImportError without pyarrow."""
        import pyarrow  # noqa: PLC0415 - optional

        return self._taken(pyarrow.table)

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas DataFrame. Raises ImportError without ``lensway[pandas]``."""
        import pyarrow  # noqa: PLC0415 - optional

        return self._taken(lambda rows: pyarrow.table(rows).to_pandas())

    def to_polars(self) -> polars.DataFrame:
        """A Polars DataFrame. Raises ImportError without ``lensway[polars]``."""
        import polars  # noqa: PLC0415 - optional

        return self._taken(polars.DataFrame)

    def _arrow_parts(self) -> Iterator[bytes]:
        raise NotImplementedError

    def _taken(self, take: Callable[[Any], T]) -> T:
        try:
            return take(self)
        except Exception:  # libraries wrap what happened while they read in errors of their own
            if self.failure is not None:
                raise self.failure from None
            raise


class ArrowRows(ArrowSource):
    """Rows as Arrow in memory. Can be read any number of times."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded stream."""
        return sum(map(len, self._parts))

    def tobytes(self) -> bytes:
        """The encoded stream: Arrow IPC."""
        return b"".join(self._parts)

    def _arrow_parts(self) -> Iterator[bytes]:
        return iter(self._parts)


class _PartsReader(io.RawIOBase):
    """A file over bytes that come in parts."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._parts, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _capsule(parts: Iterator[bytes], requested_schema: object) -> object:
    try:
        from nanoarrow import ipc  # noqa: PLC0415 - optional
    except ImportError:
        raise ImportError("reading Arrow needs nanoarrow: pip install 'lensway[client-arrow]'") from None
    return ipc.InputStream.from_readable(_PartsReader(parts)).__arrow_c_stream__(requested_schema)

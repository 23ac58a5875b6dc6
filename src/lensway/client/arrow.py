"""Arrow without another copy: bytes of an IPC stream, offered through the Arrow PyCapsule interface.

nanoarrow reads the stream: 3 MB where pyarrow is 170. Each buffer is filled once, from the bytes as they came, and then shared
with the library that takes the capsule: pandas, Polars, DuckDB, pyarrow.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Sequence
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
        return _capsule(self._arrow_reader(), requested_schema)

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

    def _arrow_reader(self) -> PartsReader:
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

    def __repr__(self) -> str:
        return f"ArrowRows(nbytes={self.nbytes})"

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded stream."""
        return sum(map(len, self._parts))

    def tobytes(self) -> bytes:
        """The encoded stream: Arrow IPC."""
        return b"".join(self._parts)

    def _arrow_reader(self) -> PartsReader:
        return PartsReader(self._parts)


class PartsReader(io.RawIOBase):
    """A file over bytes that come in parts. What is read before `start` can be read again."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self._rest = memoryview(b"")
        self._head = bytearray()
        self._is_started = False
        self._is_beyond_head = False

    def start(self) -> None:
        """From now on bytes are gone once they are read."""
        self._is_started = True

    def again(self) -> PartsReader:
        """The same from its beginning. Raises RuntimeError when more than the head was read."""
        if self._is_beyond_head:
            raise RuntimeError("the stream was read already; ask for it again")
        return PartsReader(itertools.chain((bytes(self._head), bytes(self._rest)), self._parts))

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; the bytes filled, less than it holds only at the end."""
        # Filled as far as there are bytes: who decodes a stream takes a short read for its end.
        target = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(target) and self._has_rest():
            size = min(len(target) - filled, len(self._rest))
            target[filled : filled + size] = self._rest[:size]
            self._rest = self._rest[size:]
            filled += size
        if self._is_started:
            self._is_beyond_head = True
        else:
            self._head += target[:filled]
        return filled

    def _has_rest(self) -> bool:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return False
            self._rest = memoryview(part)
        return True


def _capsule(reader: PartsReader, requested_schema: object) -> object:
    try:
        from nanoarrow import ipc  # noqa: PLC0415 - optional
    except ImportError:
        raise ImportError("reading Arrow needs nanoarrow: pip install 'lensway[client-arrow]'") from None
    # The schema is read here and now; some libraries ask for it with one capsule and for the rows with another.
    capsule = ipc.InputStream.from_readable(reader).__arrow_c_stream__(requested_schema)
    reader.start()
    return capsule

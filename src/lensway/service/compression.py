"""Compression of answers, for callers that ask for it: as they go, each piece usable by the caller as soon as it arrives."""

from __future__ import annotations

import asyncio
import sys
import zlib
from typing import Final, Protocol

from lensway import limits

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS: Final = ("zstd", "gzip")
"""Best first: zstd at this level takes less than half the time of gzip at its fastest, and gives less."""
_GZIP_LEVEL: Final = 1
_ZSTD_LEVEL: Final = 1
_GZIP_WINDOW: Final = 31
"""32 KiB, with gzip's header and checksum."""


class Coder(Protocol):
    """Compresses one answer."""

    def piece(self, data: bytes) -> bytes:
        """These bytes, such that the caller can read all of them now."""

    def last(self) -> bytes:
        """The end; without it no decoder takes the answer for complete."""


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    def piece(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def last(self) -> bytes:
        return self._stream.flush(zlib.Z_FINISH)


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstd.ZstdCompressor(level=_ZSTD_LEVEL)

    def piece(self, data: bytes) -> bytes:
        return self._stream.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK)

    def last(self) -> bytes:
        return self._stream.flush(zstd.ZstdCompressor.FLUSH_FRAME)


def coder_of(coding: str) -> Coder:
    """A new one for one of `CODINGS`."""
    return _Zstd() if coding == "zstd" else _Gzip()


async def compressed_piece(coder: Coder, data: bytes) -> bytes:
    """One piece; a large one in a thread, because the loop serves others meanwhile."""
    if len(data) < limits.COMPRESS_INLINE_BYTES_MAX:
        return coder.piece(data)
    return await asyncio.to_thread(coder.piece, data)


async def compressed_whole(coding: str, data: bytes) -> bytes:
    """A whole answer at once."""
    coder = coder_of(coding)
    if len(data) < limits.COMPRESS_INLINE_BYTES_MAX:
        return _whole(coder, data)
    return await asyncio.to_thread(_whole, coder, data)


def _whole(coder: Coder, data: bytes) -> bytes:
    return coder.piece(data) + coder.last()

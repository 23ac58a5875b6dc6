"""Compressed pieces can be read as they arrive, and an answer without its end is none."""

from __future__ import annotations

import sys
import zlib

import pytest

from lensway.service.compression import CODINGS, coder_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def decoder(coding: str):
    return zstd.ZstdDecompressor() if coding == "zstd" else zlib.decompressobj(31)


@pytest.mark.parametrize("coding", CODINGS)
def test_every_piece_is_readable_when_it_arrives_and_the_end_is_marked(coding: str) -> None:
    coder, reader = coder_of(coding), decoder(coding)
    for piece in (b"a", b"bc" * 10_000, b"d"):
        assert reader.decompress(coder.piece(piece)) == piece
        assert not reader.eof
    assert reader.decompress(coder.last()) == b""
    assert reader.eof

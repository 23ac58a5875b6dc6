"""Addresses as options and variables give them."""

from __future__ import annotations

import pytest

from lensway.hosts import host_and_port


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:1", ("localhost", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[::]:80", ("::", 80)),
        (" db:5432\n", ("db", 5432)),
        *(
            (text, None)
            for text in (
                "",
                ":80",
                "db",
                "db:",
                "db:0",
                "db:65536",
                "db:-1",
                "db:٣",
                "::1:80",
                "[::1]",
                "[::1:80",
                "db:080808",
            )
        ),
    ],
)
def test_a_host_and_a_port_or_nothing(text: str, parts: tuple[str, int] | None) -> None:
    assert host_and_port(text) == parts

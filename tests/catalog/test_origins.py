"""Origins as publishable keys list them: spelt as browsers send them, or refused with the reason."""

from __future__ import annotations

import pytest

from lensway.catalog.origins import read_origins
from lensway.errors import ErrorCode, LenswayError
from lensway.limits import KEY_ORIGINS_MAX


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.COM:443", "https://app.example.com"),
        ("https://app.example.com:8443", "https://app.example.com:8443"),
        ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
        ("https://intranet", "https://intranet"),
        ("https://192.0.2.7", "https://192.0.2.7"),
        ("https://[2001:DB8:0:0::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://app.localhost", "http://app.localhost"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:5173", "http://[::1]:5173"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(given: str, kept: str) -> None:
    assert read_origins([given], "origins") == (kept,)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "*",
        "null",
        "https://*.example.com",
        "app.example.com",
        "https://",
        "https://app.example.com/",
        "https://app.example.com/page",
        "https://app.example.com?x",
        "https://app.example.com#x",
        "https://user@app.example.com",
        "https://app.example.com:",
        "https://app.example.com:0",
        "https://app.example.com:080",
        "https://app.example.com:65536",
        "https://app..example",
        "https://-app.example",
        "https://app.example com",
        "https://app.example\r\nx: y",
        "https://app.example\n",
        "https://[::1",
        "https://::1",
        "https://[v1.x]",
        "https://127.1",
        "https://1.2.3.999",
        "https://münchen.example",
        "http://app.example.com",
        "http://10.0.0.1",
        "ftp://app.example.com",
        "file://",
        "javascript://x",
        "https://" + "a" * 400,
        7,
        None,
    ],
)
def test_anything_else_is_refused_by_its_place(given: object) -> None:
    with pytest.raises(LenswayError) as refused:
        read_origins(["https://good.example", given], "origins")
    assert refused.value.code is ErrorCode.INVALID_REQUEST
    assert refused.value.failure.details["path"] == "origins.1"


def test_a_list_is_bounded_and_says_each_origin_once() -> None:
    assert read_origins(["https://a.example", "https://A.example:443"], "origins") == ("https://a.example",)
    for value in ("https://a.example", {"a": 1}, [f"https://a{n}.example" for n in range(KEY_ORIGINS_MAX + 1)]):
        with pytest.raises(LenswayError):
            read_origins(value, "origins")

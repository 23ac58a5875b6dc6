"""Which proxy leads where: as curl takes the variables."""

from __future__ import annotations

import pytest

from lensway.errors import LenswayError
from lensway.ways.proxies import parse_proxy, proxy_to

P = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environment", "secure", "clear"),
    [
        ({}, None, None),
        ({"https_proxy": P}, P, None),
        ({"HTTPS_PROXY": P}, P, None),
        ({"http_proxy": P}, None, P),
        ({"HTTP_PROXY": P}, None, None),
        ({"all_proxy": P}, P, P),
        ({"ALL_PROXY": P}, P, P),
        ({"https_proxy": P, "HTTPS_PROXY": "http://other:1"}, P, None),
        ({"https_proxy": "", "HTTPS_PROXY": P}, P, None),
        ({"https_proxy": P, "ALL_PROXY": "socks5://other"}, P, "socks5://other:1080"),
        ({"https_proxy": "proxy.example:3128"}, P, None),
        ({"https_proxy": "proxy.example"}, "http://proxy.example:1080", None),
        ({"https_proxy": "https://proxy.example"}, "https://proxy.example:443", None),
        ({"https_proxy": "socks5h://[::1]:9050/"}, "socks5h://[::1]:9050", None),
        ({"HTTPS_PROXY": P, "no_proxy": "*"}, None, None),
        ({"HTTPS_PROXY": P, "NO_PROXY": "gateway.example"}, None, None),
    ],
)
def test_the_variables_of_curl_decide(environment: dict[str, str], secure: str | None, clear: str | None) -> None:
    found = [proxy_to("gateway.example", 443, is_tls=is_tls, environment=environment) for is_tls in (True, False)]
    assert [None if each is None else each.shown for each in found] == [secure, clear]


@pytest.mark.parametrize(
    ("exceptions", "host", "port", "is_direct"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "EXAMPLE.com.", 443, True),
        ("example.com", "a.example.com", 443, True),
        (".example.com", "example.com", 443, True),
        ("*.example.com", "a.example.com", 443, True),
        ("example.com", "badexample.com", 443, False),
        ("example.com:8443", "example.com", 8443, True),
        ("example.com:8443", "example.com", 443, False),
        ("a, b example.com", "example.com", 443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:444", "10.1.2.3", 443, False),
        ("fd00::/8", "fd00::7", 443, True),
        ("[fd00::7]", "fd00::7", 443, True),
        ("[fd00::7]:443", "fd00::7", 443, True),
        ("[fd00::7]:444", "fd00::7", 443, False),
        ("10.0.0.0/8", "gateway.example", 443, False),
        ("", "gateway.example", 443, False),
        (",,", "gateway.example", 443, False),
    ],
)
def test_exceptions_are_names_ports_and_networks(exceptions: str, host: str, port: int, is_direct: bool) -> None:
    for variable in ("no_proxy", "NO_PROXY"):
        found = proxy_to(host, port, is_tls=True, environment={"HTTPS_PROXY": P, variable: exceptions})
        assert (found is None) == is_direct, variable


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "::1", "LOCALHOST.", "::ffff:127.0.0.1"])
def test_loopback_passes_no_proxy(host: str) -> None:
    for is_tls in (True, False):
        assert proxy_to(host, 80, is_tls=is_tls, environment={"http_proxy": P, "ALL_PROXY": P}) is None


def test_logins_are_decoded_encoded_and_never_shown() -> None:
    both = parse_proxy("http://us%40er:p%3Ass%2F@proxy:1", "HTTPS_PROXY")
    assert (both.user, both.password, both.url(host="fd00::1")) == (
        "us@er",
        "p:ss/",
        "http://us%40er:p%3Ass%2F@[fd00::1]:1",
    )
    user = parse_proxy("user@proxy:1", "HTTPS_PROXY")
    assert (user.user, user.password, user.url()) == ("user", "", "http://user:@proxy:1")
    assert "ss" not in repr(both) + both.shown


@pytest.mark.parametrize(
    "value",
    [
        "ftp://secret@x",
        "http://",
        "http://user:secret@",
        "http://[secret",
        "http://secret:x",
        "http://secret:99999",
        "secr et:1",
    ],
)
def test_a_useless_value_is_named_by_its_variable_and_never_shown(value: str) -> None:
    with pytest.raises(LenswayError) as caught:
        proxy_to("gateway.example", 443, is_tls=True, environment={"ALL_PROXY": value})
    text = f"{caught.value} {caught.value.failure.hint}"
    assert "ALL_PROXY" in text
    assert "secret" not in text
    assert "secr et" not in text

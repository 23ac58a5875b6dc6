"""Who asks, behind proxies: nobody can write an address that is believed."""

from __future__ import annotations

import ipaddress

import pytest

from lensway import limits
from lensway.auth.address import ProxyWatch, address_of, block_of

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1", "10.0.0.3, 10.0.0.2"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", ["evil\n, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_the_first_hop_that_is_no_proxy_of_ours_is_who_asks(peer: str, forwarded: list[str], expected: str) -> None:
    assert address_of(peer, forwarded, PROXIES) == expected


def test_without_proxies_of_our_own_nothing_is_believed() -> None:
    assert address_of("127.0.0.1", ["198.51.100.1"], ()) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:0:7::1", "2001:db8:0:7::"),
        ("2001:db8:0:7:ffff:ffff:ffff:ffff", "2001:db8:0:7::"),
        ("2001:db8:0:8::1", "2001:db8:0:8::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("rubbish", "rubbish"),
    ],
)
def test_what_one_owner_of_addresses_has_is_limited_together(address: str, block: str) -> None:
    assert block_of(address) == block


def test_a_proxy_that_is_not_trusted_is_told_once_and_few_are_told_in_all() -> None:
    watch = ProxyWatch(PROXIES)
    told = [watch.is_hidden("192.0.2.1") for _ in range(1_000)]
    assert (told.index(True) + 1, sum(told)) == (limits.PROXY_WARNING_REQUESTS, 1)
    assert not any(watch.is_hidden(f"192.0.2.{number % 2}") for number in range(1_000)), (
        "callers who write it themselves"
    )
    assert not any(watch.is_hidden("10.0.0.1") for _ in range(1_000)), "a trusted one"
    assert watch.is_watching
    for last in range(10, 20):
        for _ in range(1_000 if watch.is_watching else 0):
            watch.is_hidden(f"192.0.2.{last}")
    assert not watch.is_watching

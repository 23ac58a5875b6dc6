"""Where sources may point: no spelling of an address gets around the policy, and no pattern for names admits an address."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from lensway.bridges.contract import AddressPolicy, Execution, TableDescription, TableSummary
from lensway.bridges.kit.addresses import check_host, is_loopback, resolve
from lensway.bridges.library import _perform
from lensway.errors import ErrorCode, LenswayError
from lensway.query.result import ResultLimits, RowFormat
from lensway.runner.policy import read_policy

OPEN, STRICT = AddressPolicy(), AddressPolicy(deny_private=True)

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "0.0.0.0",
    "::",
    "::ffff:0.0.0.0",
    "224.0.0.1",
    "ff02::1",
    # Other spellings, and other ways to the same.
    "[fd00:ec2::254]",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.254.169.254.",
    "0",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::169.254.169.254",
    "64:ff9b:1:a9fe:a9:fe00::",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1",
    "2001:0:102:304:0:0:5601:5601",
    "2001:db8::5efe:169.254.169.254",
    "::ffff:168.63.129.16",
    "64:ff9b::168.63.129.16",
]
PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "100.127.255.254",
    "0.1.2.3",
    "192.0.0.8",
    "198.18.0.1",
    "192.0.2.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "fd12:3456::1",
    "fc00::1",
    "fec0::1",
    "::10.0.0.1",
    "::8.8.8.8",
    "64:ff9b::10.0.0.1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::1",
    "::ffff:10.0.0.1",
    "::ffff:0:10.0.0.1",
    "2002:0a00:0001::1",
    "2001::1",
    "2001:db8::1",
    "100::1",
    "127.1",
    "0x7f000001",
    "0X7F.1",
    "2130706433",
    "017700000001",
    "127.0.0.1.",
    "localhost",
    "LocalHost.",
    "db.localhost",
    "localhost6",
    "ip6-loopback",
]


@pytest.mark.parametrize("host", METADATA)
def test_metadata_and_link_local_addresses_are_refused_always(host: str) -> None:
    for policy in (OPEN, STRICT):
        with pytest.raises(LenswayError) as caught:
            check_host(host, policy)
        assert caught.value.failure.details["class"] == "forbidden_address"


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused_on_demand_in_every_spelling(host: str) -> None:
    check_host(host, OPEN)
    with pytest.raises(LenswayError) as caught:
        asyncio.run(resolve(host, 5432, STRICT))
    assert caught.value.failure.details["class"] == "forbidden_address"


@pytest.mark.parametrize(
    "host",
    ["8.8.8.8", "2606:4700:4700::1111", "db.example.com", "10.example.com", "134744072", "100.63.0.1", "0x.example"],
)
def test_public_addresses_and_names_pass(host: str) -> None:
    check_host(host, STRICT)


@pytest.mark.parametrize(
    ("host", "allowed", "is_admitted"),
    [
        ("10.evil.example", ("10.*",), False),
        ("10.1.evil.example", ("10.[0-9]*",), False),
        ("10.1.2.3", ("10.*",), False),
        ("10.1.2.3", ("*",), False),
        ("10.1.2.3", ("10.0.0.0/8",), True),
        ("11.1.2.3", ("10.0.0.0/8",), False),
        ("167838211", ("10.0.0.0/8",), True),
        ("0x0a010203", ("*x*", "0x*"), False),
        ("127.1", ("1*", "*.1"), False),
        ("::ffff:10.1.2.3", ("10.0.0.0/8",), True),
        ("64:ff9b::10.1.2.3", ("10.0.0.0/8",), False),
        ("fd12::1", ("fd00::/8",), True),
        ("fd12::1", ("fd*",), False),
        ("10.1.2.3", ("10.1.2.3",), True),
        ("db.internal", ("*.internal",), True),
        ("DB.Internal.", ("*.INTERNAL",), True),
        ("db.internal.evil.example", ("*.internal",), False),
        ("db.internal", ("10.0.0.0/8",), False),
        ("db.internal", (), False),
    ],
)
def test_patterns_admit_names_and_networks_admit_addresses(
    host: str, allowed: tuple[str, ...], is_admitted: bool
) -> None:
    policy = AddressPolicy(allowed_hosts=allowed)
    if is_admitted:
        check_host(host, policy)
        return
    with pytest.raises(LenswayError):
        check_host(host, policy)


@pytest.mark.parametrize("entry", ["10.*", "192.168.1.?", "10.0.0.0/33", "fd00:*", "10.[0-9].*", "1*"])
def test_a_policy_with_a_pattern_for_addresses_is_refused_and_says_how_to_write_it(
    tmp_path: pathlib.Path, entry: str
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(f'hosts = ["db.internal", "{entry}"]\n')
    with pytest.raises(LenswayError) as caught:
        read_policy(file)
    assert entry in str(caught.value)
    assert "CIDR" in caught.value.failure.hint
    file.write_text('hosts = ["db1.internal", "*", "10.0.0.0/8", "10.1.2.3", "fd00::/8", "10.*.example"]\n')
    assert len(read_policy(file).hosts) == 6


def test_only_loopback_is_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "::1", "localhost", "::ffff:127.0.0.1", "127.1"]))
    assert not any(map(is_loopback, ["10.0.0.1", "db.example", "::127.0.0.1", "64:ff9b::127.0.0.1"]))


# --- introspection under the policy ---------------------------------------------------------------------------------------------


class Described:
    """A database with two tables."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def tables(self, *, deadline: float) -> list[TableSummary]:
        return [TableSummary(name=name, kind="table") for name in ("public.orders", "public.salaries")]

    async def table(self, name: str, *, deadline: float) -> TableDescription:
        self.asked.append(name)
        return TableDescription(name=f"public.{name.removeprefix('public.')}", kind="table", columns=[])


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


def inspect(kind: str, payload: bytes, source: Described) -> bytes:
    execution = Execution(
        deadline=1e12,
        format=RowFormat.DOCUMENT,
        limits=ResultLimits(rows_max=1, bytes_max=1000, row_bytes_max=1000),
        tag="x",
        allows_table=lambda name: name == "public.orders",
    )
    sink = Sink()
    asyncio.run(_perform(source, kind, payload, execution, sink))
    return sink.data


def test_introspection_shows_no_table_that_the_policy_forbids() -> None:
    source = Described()
    listed = inspect("tables", b"", source)
    assert b"public.orders" in listed
    assert b"salaries" not in listed
    for name in (b"orders", b"public.orders"):
        assert b"public.orders" in inspect("table", name, source)
    source.asked.clear()
    for name in (b"salaries", b"public.salaries", b"other.orders", b"nothing"):
        with pytest.raises(LenswayError) as caught:
            inspect("table", name, source)
        assert caught.value.code is ErrorCode.REFUSED_BY_RUNNER
    assert source.asked == [], "the database is not asked, so a refusal does not tell whether the table exists"

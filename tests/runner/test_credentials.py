"""Local settings over managed ones: what whoever manages the source can, and cannot, do to them."""

from __future__ import annotations

import pytest

from lensway.bridges.postgres.settings import read_settings
from lensway.runner.credentials import LocalCredentials, merged

MANAGED = {"url": "postgresql://app:managed@db.example/shop", "sslmode": "disable", "sslrootcert": "/x"}


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ({}, ("db.example", 5432, "app", "managed", "disable")),
        ({"host": "10.0.0.7", "port": "6432"}, ("10.0.0.7", 6432, "app", "managed", "disable")),
        ({"password": "local"}, ("db.example", 5432, "app", "local", "disable")),
        ({"url": "postgresql://own:local@db.internal/shop"}, ("db.internal", 5432, "own", "local", "require")),
        (
            {"url": "postgresql://own:local@db.internal/shop?sslmode=verify-full"},
            ("db.internal", 5432, "own", "local", "verify-full"),
        ),
        ({"url": "postgresql://own@db.internal/shop", "password": "p"}, ("db.internal", 5432, "own", "p", "require")),
    ],
)
def test_local_settings_win_key_by_key_and_a_local_url_brings_its_own_security(local: dict, expected: tuple) -> None:
    found = read_settings(merged(MANAGED, local, address_keys=LocalCredentials({}).address_keys_of("postgres")))
    assert (found.host, found.port, found.user, found.password, found.sslmode) == expected


@pytest.mark.parametrize("name", ["shop", "shop-eu", "SHOP"])
def test_the_longest_assigned_name_has_a_variable(name: str) -> None:
    local = LocalCredentials({"LENSWAY_SOURCE_SHOP_URL": "a", "LENSWAY_SOURCE_SHOP_EU_URL": "b"})
    names = ["shop", "shop-eu"]
    wanted = {"shop": {"url": "a"}, "shop-eu": {"url": "b"}, "SHOP": {"url": "a"}}
    assert local.settings_of(name, names) == wanted[name]
    assert local.ambiguous(["shop", "SHOP", "other"]) == {"shop", "SHOP"}


def test_files_hold_secrets_and_one_that_cannot_be_read_is_refused_by_name(tmp_path) -> None:
    (tmp_path / "password").write_text("from a file\n")
    local = LocalCredentials(
        {
            "LENSWAY_SOURCE_SHOP_PASSWORD_FILE": str(tmp_path / "password"),
            "LENSWAY_SOURCE_SIDE_PASSWORD_FILE": str(tmp_path / "missing"),
        }
    )
    assert local.settings_of("shop", ["shop", "side"]) == {"password": "from a file"}
    assert local.settings_of("side", ["shop", "side"]) == {
        "invalid": f"LENSWAY_SOURCE_SIDE_PASSWORD_FILE names {tmp_path / 'missing'}, which does not exist"
    }
    assert "from a file" not in repr(local)

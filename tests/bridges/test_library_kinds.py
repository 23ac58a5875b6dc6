"""Kinds of databases: declared once, found by name, and a defect of a bridge is not a missing driver."""

from __future__ import annotations

import pathlib
import sys

import pytest

from lensway import kinds
from lensway.bridges import library
from lensway.compose.process import scrub_environment
from lensway.kinds import BUILT_IN, Kind


def _module(directory: pathlib.Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (directory / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(directory)
    return name


def test_a_missing_driver_reads_as_not_installed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = _module(tmp_path, "bridge_without_driver", "import driver_that_is_missing.inner\n", monkeypatch)
    kind = Kind(name="other", adapter=f"{name}:Bridge", drivers=("driver_that_is_missing",))
    assert library.bridge_of(kind) is None
    assert library.installed(BUILT_IN.joined([kind])).keys() == library.installed().keys()


def test_a_bridge_that_fails_to_import_is_logged_as_a_defect_and_the_others_serve(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = _module(tmp_path, "bridge_with_defect", "import a_library_that_is_not_its_driver\n", monkeypatch)
    kind = Kind(name="other", adapter=f"{name}:Bridge", drivers=("driver_that_is_missing",))
    with pytest.raises(ImportError):
        library.bridge_of(kind)
    assert library.installed(BUILT_IN.joined([kind])).keys() == library.installed().keys()
    captured = capsys.readouterr()
    assert "bridge does not load" in captured.out + captured.err
    assert f"{name}:Bridge" in captured.out + captured.err


def test_another_package_may_serve_a_name_of_the_contract_but_never_replace_a_bridge() -> None:
    served = Kind(name="mysql", adapter="elsewhere:Bridge")
    assert BUILT_IN.joined([served]).get("mysql") is served
    with pytest.raises(ValueError, match="postgres"):
        BUILT_IN.joined([Kind(name="postgres", adapter="elsewhere:Bridge")])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"url": "postgresql://u@h/d"}, "postgres"),
        ({"url": "POSTGRES://u@h/d"}, "postgres"),
        ({"url": "sqlite:///tmp/a.db"}, "sqlite"),
        ({"path": "/tmp/a.db"}, "sqlite"),
        ({"host": "h", "user": "u"}, "postgres"),
        ({"url": "oracle://h"}, None),
        ({"url": "nothing"}, None),
    ],
)
def test_settings_say_their_kind(settings: dict[str, object], name: str | None) -> None:
    found = BUILT_IN.of_settings(settings)
    assert (found and found.name) == name


def test_variables_that_a_driver_reads_are_scrubbed_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "canary")
    monkeypatch.setenv("SSLKEYLOGFILE", "/tmp/keys")
    monkeypatch.setenv("MY_PGPASSWORD", "stays")
    scrub_environment(BUILT_IN)
    import os

    assert "PGPASSWORD" not in os.environ
    assert "SSLKEYLOGFILE" not in os.environ
    assert os.environ["MY_PGPASSWORD"] == "stays"


def test_a_declaration_imports_no_driver() -> None:
    import subprocess

    program = (
        "import sys, lensway.kinds; print([n for n in ('asyncpg', 'sqlite3', 'duckdb', 'sqlglot') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_served_kind_names_a_dialect_that_exists() -> None:
    for kind in BUILT_IN.served:
        assert kind.dialects
        assert set(kind.dialects) <= set(kinds.DIALECTS)

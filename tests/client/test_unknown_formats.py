"""Formats that do not exist are typed errors of the client, and the command line leads from large limits to `--all`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import lensway
from lensway.client import exceptions
from lensway.client.core_operations import encoded_request, export_request


@pytest.mark.parametrize("build", [export_request, encoded_request])
@pytest.mark.parametrize("format", ["xlsx", "CSV", "", None, 7])
def test_an_unknown_format_is_an_invalid_request(build, format) -> None:
    with pytest.raises(exceptions.InvalidRequestError) as refused:
        build("orders", format=format)
    assert "ndjson, csv, arrow, parquet" in (refused.value.failure.hint or "")
    assert repr(format) in str(refused.value)
    assert "orders" in str(refused.value)


def test_the_clients_raise_it_without_asking_a_server() -> None:
    with (
        lensway.connect("http://127.0.0.1:9", key="sk_" + "x" * 40) as client,
        pytest.raises(exceptions.InvalidRequestError, match="xlsx"),
    ):
        client.export("orders", format="xlsx")  # type: ignore[arg-type]


def run(*arguments: str, program: tuple[str, ...] = ("-m", "lensway")) -> subprocess.CompletedProcess[str]:
    environment = {"LENSWAY_URL": "http://127.0.0.1:9", "LENSWAY_API_KEY": "sk_" + "x" * 40, "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, *program, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_package_is_a_program() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, lensway.__version__)
    assert run("--no-such-option").returncode == 2


@pytest.mark.parametrize("more", [[], ["--all"], ["--format", "csv"]])
def test_a_limit_beyond_a_page_names_all(more: list[str]) -> None:
    done = run("query", "orders", "--limit", "20000", *more)
    assert done.returncode != 0
    assert "--all" in done.stderr
    assert "10,000" in done.stderr

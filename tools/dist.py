"""`make dist`: wheel, sdist, a list of components (CycloneDX) and their sums; the same commit gives the same bytes."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tomllib
from typing import Any, Final

from packaging.utils import canonicalize_name

from tools import locks

_SUMS: Final = "SHA256SUMS"


def main() -> int:
    """Build into the folder given, `dist` by default, and name what was built."""
    parser = argparse.ArgumentParser(prog="make dist", description=__doc__)
    parser.add_argument("folder", nargs="?", default="dist", type=pathlib.Path)
    folder: pathlib.Path = parser.parse_args().folder
    # The packers take times and modes of files from these two, and nothing else from the machine.
    environment = os.environ | {"SOURCE_DATE_EPOCH": _epoch()}
    os.umask(0o022)
    folder.mkdir(parents=True, exist_ok=True)
    _run("build", "--no-isolation", "--outdir", str(folder), ".", environment=environment)
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    name = f"{project['name']}-{project['version']}"
    built = [folder / f"{name}-py3-none-any.whl", folder / f"{name}.tar.gz", folder / f"{name}.cdx.json"]
    built[2].write_text(json.dumps(_components(environment), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in built)
    (folder / _SUMS).write_text(sums, encoding="utf-8")
    for path in (*built, folder / _SUMS):
        print(f"{path} ({path.stat().st_size:,} bytes)")
    return 0


def _epoch() -> str:
    """When the commit was made; outside a repository a fixed time, the earliest that a zip file can hold."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return given
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "315532800"


def _components(environment: dict[str, str]) -> dict[str, Any]:
    """What an installation with every extra consists of: versions, licences, sums and who needs whom."""
    said = _run(
        *("cyclonedx_py", "environment", sys.executable, "--pyproject", "pyproject.toml", "--mc-type", "application"),
        # Its own validation takes ten seconds of a core; a test validates what is written here in the end.
        *("--output-reproducible", "--sv", "1.6", "--no-validate"),
        environment=environment,
    )
    bill: dict[str, Any] = json.loads(said)
    # This environment has the developers' tools too; the lock of the extras says what users get.
    shipped = locks.hashes(locks.EXTRAS)
    bill["components"] = [each for each in bill["components"] if _key(each) in shipped]
    for each in bill["components"]:
        each["hashes"] = [{"alg": "SHA-256", "content": content} for content in shipped[_key(each)]]
    kept = {each["bom-ref"] for each in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    bill["dependencies"] = [
        each | {"dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in bill["dependencies"]
        if each["ref"] in kept
    ]
    return bill


def _key(component: dict[str, Any]) -> tuple[str, str]:
    return canonicalize_name(component["name"]), component["version"]


def _run(*module: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "ignore", "-m", *module]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

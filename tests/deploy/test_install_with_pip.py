"""The page "Install with pip", followed literally, but for two of its three environments, which uv makes faster than pip."""

from __future__ import annotations

import json
import pathlib

import pytest

from lensway.testing.deployment import free_ports
from tools import following, wheel

pytestmark = pytest.mark.acceptance
PAGE = "docs/how-to/install-with-pip.md"


@pytest.mark.timeout(400)
def test_every_command_of_the_page_works(tmp_path: pathlib.Path) -> None:
    http, gateway = free_ports(2)
    built = wheel.build(tmp_path / "dist")
    reader = following.Reader(
        tmp_path,
        {
            "./lensway-0.1.0": f"{built.parent}/lensway-0.1.0",
            "127.0.0.1:8080": f"127.0.0.1:{http}",
            "lensway serve": f"lensway serve --http 127.0.0.1:{http} --gateway 127.0.0.1:{gateway}",
        },
    )
    for name in ("lensway-env", "client-env"):
        reader.changes[f"venv {name}"] = f"venv --without-pip {name}"
        reader.changes[f"{name}/bin/pip install"] = f"{wheel.UV} pip install --quiet --python {name}/bin/python"
    blocks = following.blocks(PAGE, "sh")
    assert built.name == "lensway-0.1.0-py3-none-any.whl"
    assert blocks.pop(0).text.strip() == "make dist"  # which is what built the wheel
    try:
        for block in blocks:
            if "lensway serve" in block.text:
                server = reader.keep_running(block.text, "admin key")
                reader.changes["ak_…"] = server.output.text().split("admin key ")[1].split()[0]
            elif "runner start" in block.text:
                reader.keep_running(block.text, "connected, awaiting jobs")
            else:
                said = reader.type(block.text)
                if "runners list" in block.text:
                    assert [(each["name"], each["status"]) for each in json.loads(said)] == [("alpha", "healthy")]
        done = reader.type("runner-env/bin/python -c 'import opentelemetry.sdk; print(\"traces\")'")
        assert done == "traces\n"
    finally:
        reader.close()

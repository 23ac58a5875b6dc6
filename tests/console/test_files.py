"""The Console serves each of its files under its own path, and nothing else."""

from __future__ import annotations

import asyncio
import pathlib

import httpx2
import pytest
from starlette.applications import Starlette

import lensway.console
from lensway.console.files import file_routes

STATIC = pathlib.Path(lensway.console.__file__).parent / "static"
NAMES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())


def answers(directory: pathlib.Path, *asked: tuple[str, dict[str, str]]) -> list[httpx2.Response]:
    async def ask() -> list[httpx2.Response]:
        app = Starlette(routes=file_routes(directory, {"X-Kept": "yes"}))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://x") as client:
            return [await client.get(path, headers=headers) for path, headers in asked]

    return asyncio.run(ask())


def test_a_file_in_a_folder_is_served_like_one_beside_it() -> None:
    assert any("/" in name for name in NAMES)
    for name in NAMES:
        (first,) = answers(STATIC, (f"/static/{name}", {}))
        assert (first.status_code, first.content) == (200, (STATIC / name).read_bytes()), name
        assert first.headers["X-Kept"] == "yes"
        (again,) = answers(STATIC, (f"/static/{name}", {"If-None-Match": first.headers["ETag"]}))
        assert (again.status_code, again.content) == (304, b""), name


@pytest.mark.parametrize(
    "path",
    [
        "/static/../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/in/..%2f..%2fsecret.txt",
        "/static/in",
        "/static/in/",
        "/static/",
    ],
)
def test_no_path_leads_out_of_the_folder_or_lists_one(tmp_path: pathlib.Path, path: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "static" / "in").mkdir(parents=True)
    (tmp_path / "static" / "in" / "a.js").write_text("a")
    inside, outside = answers(tmp_path / "static", ("/static/in/a.js", {}), (path, {}))
    assert (inside.status_code, inside.text) == (200, "a")
    assert outside.status_code == 404
    assert "secret" not in outside.text

"""The Console's files, read once: a stranger who asks for one thousands of times costs no disk, thread or buffer."""

from __future__ import annotations

import hashlib
import mimetypes
import pathlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def file_routes(directory: pathlib.Path, headers: Mapping[str, str]) -> list[Route]:
    """A route for each file of a directory and its folders. No other path leads to a file."""
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return [_route(path, path.relative_to(directory).as_posix(), headers) for path in paths]


def _route(path: pathlib.Path, name: str, headers: Mapping[str, str]) -> Route:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0]
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    shown = {**headers, "Cache-Control": "no-cache", "ETag": tag}

    async def show(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=shown)
        return Response(content, headers=shown, media_type=media_type)

    return Route(f"/static/{name}", show)

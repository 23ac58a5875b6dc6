"""nginx in front of a server, as people put it there; only for tests."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

from lensway.testing.deployment import free_ports, wait_until
from lensway.testing.http_caller import can_connect

_CONFIG: Final = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/f;
    uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    {before}
    server {{
        {server}
    }}
}}
"""
_PASS: Final = """
        listen 127.0.0.1:{{port}};
        location / {{{{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_read_timeout 3600s;
        }}}}
"""
"""What `docs/reference/http.md` recommends."""


@contextlib.contextmanager
def nginx_before(upstream: int, directory: pathlib.Path) -> Iterator[int]:
    """The port of an nginx that passes everything on to ``upstream``, for the length of the block."""
    with nginx_with(_PASS.format(upstream=upstream), directory) as port:
        yield port


@contextlib.contextmanager
def nginx_with(server: str, directory: pathlib.Path, *, before: str = "") -> Iterator[int]:
    """The port of an nginx with this text in its server block, where ``{port}`` stands for its port."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    assert program is not None, "nginx is not installed: make test-deps"
    (port,) = free_ports(1)
    config = directory / f"nginx-{port}.conf"
    config.write_text(_CONFIG.format(directory=directory, server=server.format(port=port), before=before))
    process = subprocess.Popen([program, "-c", str(config), "-p", str(directory)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: can_connect(port), seconds=10, what="nginx")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)

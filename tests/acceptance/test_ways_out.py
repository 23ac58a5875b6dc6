"""Runner, command line and client on their way out: real proxies times each form in which people name them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator, Mapping

import pytest

import lensway
from lensway.compose.websocket import WebSocketTransport
from lensway.runner.dial import Dialer
from lensway.runner.settings import read_settings
from lensway.testing.certificates import Authority
from lensway.testing.deployment import Deployment, RunnerIdentity, free_ports
from lensway.testing.nginx import nginx_with
from lensway.testing.proxies import ADDRESS, HOST, behind_tls, microsocks, tinyproxy

pytestmark = pytest.mark.acceptance
LOGIN = "user", "pr0xy-passw0rd"
VARIABLES = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "HTTP_PROXY")
PASS = """
    listen {address}:{{port}} ssl; listen {address}:{clear}; ssl_certificate {certificate}; ssl_certificate_key {key};
    proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    location /connect {{{{ proxy_pass http://127.0.0.1:{gateway}; }}}}
    location / {{{{ proxy_pass http://127.0.0.1:{http}; }}}}
"""
MAP = "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }"


class Site:
    """A server behind TLS at a name that is not this machine's own, and the proxies on the way to it."""

    def __init__(
        self, deployment: Deployment, port: int, authority: Authority, proxies: Mapping[str, int], clear: int
    ) -> None:
        self.clear = clear
        self.deployment = deployment
        self.port = port
        self.authority = authority
        self.proxies = proxies
        self.runner: RunnerIdentity = deployment.create_runner("alpha")
        self.nowhere = free_ports(1)[0]

    def fill(self, text: str) -> str:
        return text.format(
            **self.proxies,
            nowhere=self.nowhere,
            ca=self.authority.file,
            user=LOGIN[0],
            password=LOGIN[1],
            host=HOST,
            own=self.port,
        )

    @property
    def settings(self) -> dict[str, str]:
        return {
            "LENSWAY_RUNNER_ID": self.runner.id,
            "LENSWAY_RUNNER_TOKEN": self.runner.token,
            "LENSWAY_GATEWAY_URL": f"wss://{HOST}:{self.port}/connect",
            "LENSWAY_CA_FILE": str(self.authority.file),
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("out")
    authority = Authority(directory)
    certificate, key = authority.issue(HOST)
    with contextlib.ExitStack() as stack:
        deployment = stack.enter_context(Deployment(directory))
        (clear,) = free_ports(1)
        text = PASS.format(
            address=ADDRESS,
            clear=clear,
            certificate=certificate,
            key=key,
            gateway=deployment.gateway_port,
            http=deployment.http_port,
        )
        port = stack.enter_context(nginx_with(text, directory, before=MAP))
        open_port = stack.enter_context(tinyproxy(directory))
        proxies = {
            "open": open_port,
            "closed": stack.enter_context(tinyproxy(directory, f"BasicAuth {LOGIN[0]} {LOGIN[1]}")),
            "socks": stack.enter_context(microsocks()),
            "secure": stack.enter_context(
                behind_tls(directory, open_port, *authority.issue("localhost", label="proxy"))
            ),
            "login": stack.enter_context(microsocks("-u", LOGIN[0], "-P", LOGIN[1])),
        }
        yield Site(deployment, port, authority, proxies, clear)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


FORMS = [
    {"https_proxy": "http://127.0.0.1:{open}"},
    {"HTTPS_PROXY": "http://127.0.0.1:{open}/"},
    {"HTTPS_PROXY": "127.0.0.1:{open}"},
    {"HTTPS_PROXY": "localhost:{open}"},
    {"ALL_PROXY": "http://127.0.0.1:{open}"},
    {"all_proxy": "http://127.0.0.1:{open}", "ALL_PROXY": "http://127.0.0.1:{nowhere}"},
    {"https_proxy": "", "HTTPS_PROXY": "http://127.0.0.1:{open}"},
    {"https_proxy": "http://127.0.0.1:{open}", "HTTPS_PROXY": "http://127.0.0.1:{nowhere}"},
    {"https_proxy": "http://127.0.0.1:{open}", "ALL_PROXY": "http://127.0.0.1:{nowhere}"},
    {"HTTPS_PROXY": "http://{user}:{password}@127.0.0.1:{closed}"},
    {"HTTPS_PROXY": "{user}:{password}@127.0.0.1:{closed}"},
    {"HTTPS_PROXY": "http://{user}@127.0.0.1:{open}"},
    {"HTTPS_PROXY": "socks5://127.0.0.1:{socks}"},
    {"HTTPS_PROXY": "socks5h://127.0.0.1:{socks}"},
    {"ALL_PROXY": "socks5h://localhost:{socks}"},
    {"ALL_PROXY": "socks5://{user}:{password}@127.0.0.1:{login}"},
    {"HTTPS_PROXY": "https://localhost:{secure}", "SSL_CERT_FILE": "{ca}"},
    # Not through the proxy that is not there:
    {"HTTPS_PROXY": "http://127.0.0.1:{nowhere}", "NO_PROXY": "{host}"},
    {"HTTPS_PROXY": "http://127.0.0.1:{nowhere}", "no_proxy": "other.example,{host}:{own}"},
    {"HTTPS_PROXY": "http://127.0.0.1:{nowhere}", "NO_PROXY": "*"},
    {"http_proxy": "http://127.0.0.1:{nowhere}"},
    {"HTTP_PROXY": "http://127.0.0.1:{nowhere}"},
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(f"{name}={value}" for name, value in form.items()))
def test_each_form_of_each_proxy_leads_to_the_server(
    site: Site, form: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {name: site.fill(value) for name, value in form.items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    async def run() -> list[object]:
        dialer = Dialer(read_settings(site.settings), WebSocketTransport, environment=os.environ)
        transport = await dialer()
        await transport.close()
        url, key, ca_file = f"https://{HOST}:{site.port}", site.deployment.admin_key, str(site.authority.file)
        async with lensway.connect_async(url, key, ca_file=ca_file) as client:
            return await client.lenses()

    assert asyncio.run(run()) == []
    url = f"https://{HOST}:{site.port}"
    with lensway.connect(url, site.deployment.admin_key, ca_file=str(site.authority.file)) as client:
        assert client.lenses() == []


@pytest.mark.parametrize(
    ("form", "is_proxied"),
    [
        ({"http_proxy": "http://127.0.0.1:{open}"}, True),
        ({"http_proxy": "http://{user}:{password}@127.0.0.1:{closed}"}, True),
        ({"ALL_PROXY": "socks5h://127.0.0.1:{socks}"}, True),
        ({"HTTP_PROXY": "http://127.0.0.1:{nowhere}"}, False),
        ({"https_proxy": "http://127.0.0.1:{nowhere}"}, False),
    ],
    ids=lambda form: " ".join(form) if isinstance(form, dict) else "",
)
def test_clear_text_takes_the_proxy_of_clear_text(
    site: Site, form: Mapping[str, str], is_proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``HTTP_PROXY`` in capitals is a header that any caller of a CGI script could send."""
    for name, value in form.items():
        monkeypatch.setenv(name, site.fill(value))
    settings = site.settings | {"LENSWAY_GATEWAY_URL": f"ws://{HOST}:{site.clear}/connect"}
    del settings["LENSWAY_CA_FILE"]

    async def run() -> bool:
        dialer = Dialer(read_settings(settings, insecure=True), WebSocketTransport, environment=os.environ)
        transport = await dialer()
        await transport.close()
        return dialer.way().proxy is not None

    assert asyncio.run(run()) is is_proxied
    with lensway.connect(f"http://{HOST}:{site.clear}", site.deployment.admin_key, insecure=True) as client:
        assert client.lenses() == []


def test_runner_and_command_line_go_through_the_proxy_as_processes(site: Site) -> None:
    proxy = {"https_proxy": site.fill("http://{user}:{password}@127.0.0.1:{closed}")}
    ca = {"LENSWAY_CA_FILE": str(site.authority.file)}
    identity = site.deployment.create_runner("beta")
    process = site.deployment.start_runner(
        identity, gateway_url=f"wss://{HOST}:{site.port}/connect", environment={**proxy, **ca}
    )
    listed = site.deployment.cli(
        "runners", "list", "--json", environment={"LENSWAY_URL": f"https://{HOST}:{site.port}", **proxy, **ca}
    )
    assert listed.returncode == 0, listed.stderr
    assert '"beta"' in listed.stdout
    away = {"https_proxy": site.fill("http://{user}:{password}@127.0.0.1:{nowhere}")}
    refused = site.deployment.cli(
        "runners", "list", environment={"LENSWAY_URL": f"https://{HOST}:{site.port}", **away, **ca}
    )
    assert refused.returncode == 1
    assert f"No program listens at the proxy http://127.0.0.1:{site.nowhere}" in refused.stderr
    assert "https_proxy" in refused.stderr
    assert LOGIN[1] not in refused.stderr + listed.stdout + process.output.text()


def test_what_is_sent_to_this_machine_passes_no_proxy(tmp_path: pathlib.Path, site: Site) -> None:
    heard = tmp_path / "heard"
    (port,) = free_ports(1)
    listener = subprocess.Popen(
        ["python3", "-c", LISTEN, str(port), str(heard)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        assert listener.stdout.readline() == b"ready\n"
        every = dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY"), f"http://127.0.0.1:{port}")
        site.deployment.start_runner(site.deployment.create_runner("gamma"), environment=every)
        assert site.deployment.cli("runners", "list", environment=every).returncode == 0
    finally:
        listener.terminate()
        listener.wait(10)
        listener.stdout.close()
    assert not heard.exists()


LISTEN = """
import pathlib, socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        pathlib.Path(sys.argv[2]).write_bytes(connection.recv(1000) or b"?")
"""

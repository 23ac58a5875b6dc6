"""Both listeners behind one name, one port and a path prefix: the examples of the how-to, with the real proxies.

Also what the server does with certificates itself: renewed files are used without a restart.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator

import httpx2
import pytest
from playwright.sync_api import expect

import lensway
from lensway.testing.certificates import Authority
from lensway.testing.deployment import Deployment, free_ports, wait_until
from lensway.testing.http_caller import can_connect
from tests.acceptance.browser import is_live, running_browser, watched

pytestmark = pytest.mark.acceptance
GUIDE = pathlib.Path("docs/how-to/reverse-proxy.md").read_text(encoding="utf-8")
NGINX_MAIN = """
daemon off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/f;
    uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    {example}
}}
"""


class Site:
    """A deployment, an authority and the public port of a proxy in front of both listeners."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.certificate, self.key = self.authority.issue("localhost")
        (self.port,) = free_ports(1)
        self.deployment = Deployment(
            directory,
            serve_options=[
                "--public-url", self.url, "--gateway-url", f"wss://localhost:{self.port}/lensway/connect",
                "--trusted-proxies", "127.0.0.1", "--source-dir", str(directory),
            ],
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/lensway"

    def example(self, kind: str) -> str:
        """The example of the how-to, on this site's ports and files."""
        found = re.search(rf"```{kind}\n(.*?)```", GUIDE, re.DOTALL)
        assert found is not None, kind
        whole = self.directory / "tls.pem"
        whole.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        text = found[1]
        for old, new in (
            ("127.0.0.1:8080", f"127.0.0.1:{self.deployment.http_port}"),
            ("127.0.0.1:8081", f"127.0.0.1:{self.deployment.gateway_port}"),
            ("listen 443", f"listen 127.0.0.1:{self.port}"),
            ("bind :443", f"bind 127.0.0.1:{self.port}"),
            ("lensway.example.org {", f"https://localhost:{self.port} {{\n\tbind 127.0.0.1"),
            ("lensway.example.org", "localhost"),
            ("/etc/lensway/tls.crt", str(self.certificate)),
            ("/etc/lensway/tls.key", str(self.key)),
            ("/etc/lensway/tls.pem", str(whole)),
        ):
            text = text.replace(old, new)
        return text

    def connect(self) -> lensway.Client:
        return lensway.connect(self.url, self.deployment.admin_key, ca_file=str(self.authority.file))

    def serve_lens(self) -> None:
        file = self.directory / "shop.db"
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
            database.executemany("INSERT INTO orders VALUES (?)", [(number,) for number in range(500)])
            database.commit()
        client = self.deployment.client()
        policy = self.directory / "policy.toml"
        policy.write_text(f'source_dirs = ["{self.directory}"]\n')
        made = client.post("/v1/sources", json={"name": "shop", "bridge": "sqlite", "config": {"path": str(file)}})
        assert made.status_code == 201, made.text
        lens = {"source": "shop", "table": "orders", "fields": {"id": {"type": "integer", "primaryKey": True}}}
        assert client.put("/v1/lenses/orders", json=lens).status_code in (200, 201)
        runner = self.deployment.create_runner("alpha")
        self.deployment.start_runner(
            runner,
            gateway_url=f"wss://localhost:{self.port}/lensway/connect",
            environment={"LENSWAY_CA_FILE": str(self.authority.file), "LENSWAY_RUNNER_POLICY": str(policy)},
        )
        self.deployment.assign("alpha", "shop")


@contextlib.contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    program = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin:/usr/local/sbin")
    assert program is not None, f"{command[0]} is not installed: make test-deps"
    process = subprocess.Popen(
        [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin:/usr/sbin", **environment},
    )  # fmt: skip
    try:
        wait_until(lambda: can_connect(port), seconds=10, what=command[0])
        yield process
    finally:
        process.send_signal(signal.SIGINT if command[0] == "caddy" else signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nginx(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    config = site.directory / "nginx.conf"
    config.write_text(NGINX_MAIN.format(directory=site.directory, example=site.example("nginx")))
    with running(["nginx", "-c", str(config), "-p", str(site.directory)], site.port) as process:
        yield process


@contextlib.contextmanager
def caddy(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    config = site.directory / "Caddyfile"
    config.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + site.example("caddy"))
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]
    with running(command, site.port, HOME=str(site.directory)) as process:
        yield process


@contextlib.contextmanager
def haproxy(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    config = site.directory / "haproxy.cfg"
    config.write_text(site.example("haproxy"))
    checked = subprocess.run(
        [shutil.which("haproxy", path="/usr/sbin:/usr/bin") or "haproxy", "-c", "-f", str(config)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with running(["haproxy", "-f", str(config)], site.port) as process:
        yield process


@pytest.mark.parametrize("proxy", [nginx, caddy, haproxy])
def test_each_example_serves_api_console_and_gateway_below_one_prefix(
    tmp_path: pathlib.Path, proxy: Callable[[Site], contextlib.AbstractContextManager[object]]
) -> None:
    site = Site(tmp_path)
    trust = ssl.create_default_context(cafile=str(site.authority.file))
    with site.deployment, proxy(site):
        site.serve_lens()
        with site.connect() as client:
            assert [row["id"] for row in client.query("orders", limit=3)] == [0, 1, 2]
            assert len(list(client.rows("orders"))) == 500
        with httpx2.Client(base_url=site.url, verify=trust, trust_env=False) as browser:
            start = browser.get("/console/")
            assert (start.status_code, start.headers["location"]) == (
                303,
                "/lensway/console/login?next=%2Fconsole%2F",
            )
            page = browser.get("/console/login?next=%2Flensway%2Fconsole%2Fe%2Fdefault%2Fsources").text
            addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', page)
            assert addresses
            assert all(each.startswith("/lensway/console/") for each in addresses), addresses
            for each in (one for one in addresses if "/static/" in one):
                found = browser.get(each.removeprefix("/lensway"))
                assert found.status_code == 200, each
                assert '"/console/' not in found.text, each
            form = {"next": "/console/e/default/sources", "key": site.deployment.admin_key}
            signed = browser.post("/console/login", data=form, headers={"Origin": f"https://localhost:{site.port}"})
            assert (signed.status_code, signed.headers["location"]) == (303, "/lensway/console/e/default/sources")
            assert "shop" in browser.get("/console/e/default/sources").text
            # The caller's address is passed on and believed.
            signed_in = site.deployment.client().get("/v1/audit").json()
            assert "127.0.0.1" in str(signed_in)


def test_nginx_is_reloaded_under_load_and_no_query_fails(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path)
    with site.deployment, nginx(site) as process:
        site.serve_lens()
        asked: list[int] = []
        over = threading.Event()

        def ask() -> None:
            with site.connect() as client:
                while not over.is_set():
                    asked.append(len(list(client.query("orders", limit=5))))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                before = len(asked)
                process.send_signal(signal.SIGHUP)
                wait_until(lambda before=before: len(asked) >= before + 40, seconds=30, what="forty more answers")
                assert all(thread.is_alive() for thread in threads)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert set(asked) == {5}


@pytest.mark.browser
def test_the_console_is_live_below_a_prefix(tmp_path: pathlib.Path) -> None:
    site, problems = Site(tmp_path), []
    with site.deployment, nginx(site), running_browser() as browser:
        site.serve_lens()
        page = watched(browser.new_context(ignore_https_errors=True), problems)
        page.goto(f"{site.url}/console/e/default/sources")
        page.get_by_label("Admin key").fill(site.deployment.admin_key)
        page.get_by_role("button", name="Sign in").click()
        is_live(page)
        assert page.url == f"{site.url}/console/e/default/sources"
        page.get_by_role("link", name="Runners").first.click()
        is_live(page)
        assert page.url == f"{site.url}/console/e/default/runners"
        tabs = [tab.get_attribute("href") for tab in page.get_by_role("navigation").get_by_role("link").all()]
        for path in (*tabs, "/lensway/console/e/default/lens/orders"):
            page.goto(site.url.removesuffix("/lensway") + str(path))
            is_live(page)
            found = page.locator("a[href]").evaluate_all("each => each.map(a => a.getAttribute('href'))")
            assert [each for each in found if each.startswith("/") and not each.startswith("/lensway/")] == [], path
        page.get_by_role("button", name="Show rows").click()
        expect(page.get_by_role("region", name="Rows").locator("tbody tr")).not_to_have_count(0)
        page.locator("#answer").get_by_role("link", name=re.compile("^req_")).click()
        is_live(page)
    assert problems == []


def names_at(port: int, authority: Authority) -> str:
    """The serial number of the certificate that a listener shows now."""
    context = ssl.create_default_context(cafile=str(authority.file))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as secured:
            return secured.getpeercert()["serialNumber"]


def test_renewed_certificates_are_used_without_a_restart(tmp_path: pathlib.Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost", label="tls")

    class Secure(Deployment):
        def wait_ready(self) -> None:
            self.server.wait_line("Lensway serves")
            wait_until(lambda: can_connect(self.http_port), seconds=10, what="the listener")

    options = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    with Secure(tmp_path, serve_options=options) as deployment:
        ports = (deployment.http_port, deployment.gateway_port)
        first = [names_at(port, authority) for port in ports]
        assert first[0] == first[1]
        authority.issue("localhost", label="tls")
        deployment.server.signal(signal.SIGHUP)
        wait_until(lambda: names_at(ports[0], authority) != first[0], seconds=5, what="the renewed certificate")
        second = names_at(ports[1], authority)
        assert second == names_at(ports[0], authority) != first[0]
        # Without a signal, too; and a file that is half written changes nothing.
        whole = certificate.read_bytes()
        certificate.write_bytes(whole[:100])
        deployment.server.signal(signal.SIGHUP)
        deployment.server.wait_line("the old one stays")
        assert names_at(ports[0], authority) == second
        authority.issue("localhost", label="tls")
        wait_until(lambda: names_at(ports[1], authority) != second, seconds=10, what="the files to be looked at")
        assert deployment.server.is_running


def test_a_hang_up_ends_no_server(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path) as deployment:
        deployment.server.signal(signal.SIGHUP)
        for _ in range(3):
            assert deployment.client().get("/readyz").status_code == 200
        assert deployment.server.is_running

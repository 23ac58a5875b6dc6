"""The server's settings: options as variables, --check, warnings, and addresses that are right elsewhere."""

from __future__ import annotations

import base64
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from lensway.cli import report
from lensway.cli.program import app
from lensway.cli.serving import PREFIX, variables
from lensway.testing.certificates import Authority
from lensway.testing.deployment import Deployment, Process, clean_environment

pytestmark = pytest.mark.acceptance
PROGRAM = (sys.executable, "-m", "lensway.cli.main")


def serve(directory: pathlib.Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, "serve", *options],
        env=clean_environment() | environment, cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_every_option_has_the_variable_of_its_name() -> None:
    arguments = app["serve"].assemble_argument_collection()
    found = {each.parameter.env_var[0]: each.names[0] for each in arguments if each.parameter.env_var}
    hidden = {f"{PREFIX}DATABASE_URL", f"{PREFIX}BUS"}
    assert {name: option for name, option in variables().items() if name not in hidden} == found


def test_a_server_is_set_up_by_variables_alone(tmp_path: pathlib.Path) -> None:
    class ByVariables(Deployment):
        def start_server(self):
            self._environment |= {
                "LENSWAY_SERVE_DATA_DIR": str(self.directory / "data"),
                "LENSWAY_SERVE_HTTP": f"127.0.0.1:{self.http_port}",
                "LENSWAY_SERVE_GATEWAY": f"127.0.0.1:{self.gateway_port}",
                "LENSWAY_SERVE_GATEWAY_URL": "wss://lensway.example.org/connect",
                "LENSWAY_SERVE_TRUSTED_PROXIES": "10.0.0.0/8, 127.0.0.1",
                "LENSWAY_SERVE_SOURCE_DIR": f"{self.directory}:/tmp",
                "LENSWAY_SERVE_DENY_PRIVATE_SOURCES": "true",
                "LENSWAY_SERVE_TLS_CERT": "",
                "LENSWAY_SERVE_PORT_8080_TCP": "tcp://10.0.0.1:8080",
            }
            self.server = Process(
                "server",
                ["serve"],
                {"LENSWAY_ADMIN_KEY": self.admin_key, **self._environment},
                directory=self.directory,
            )
            self.wait_ready()
            return self.server

    with ByVariables(tmp_path) as deployment:
        client = deployment.client()
        made = client.post("/v1/runners", json={"name": "alpha"}).json()
        deployment.secrets["token"] = made["token"]
        assert "LENSWAY_GATEWAY_URL=wss://lensway.example.org/connect\n" in made["env"]
        config = {"url": "postgresql://u:p@10.1.2.3/db"}
        refused = client.post("/v1/sources", json={"name": "s", "bridge": "postgres", "config": config})
        assert refused.status_code == 403, refused.text
        # An option wins over its variable.
        taken = serve(tmp_path, "--check", "--gateway-url", "wss://other.example/connect", **deployment._environment)
        assert (taken.returncode, "wss://other.example/connect" in taken.stdout) == (0, True), taken.stderr


@pytest.mark.parametrize(
    ("environment", "options", "said"),
    [
        ({"LENSWAY_SERVE_HTPP": "x"}, (), "Did you mean LENSWAY_SERVE_HTTP?"),
        ({"LENSWAY_SERVE_COLOUR": "x"}, (), "unknown variable: LENSWAY_SERVE_COLOUR"),
        ({"lensway_serve_http": "x"}, (), "unknown variable: lensway_serve_http"),
        ({"LENSWAY_SERVE_HTTP": "8080"}, (), "--http must be HOST:PORT"),
        ({"LENSWAY_SERVE_AUDIT_DAYS": "many"}, (), "LENSWAY_SERVE_AUDIT_DAYS"),
        ({"LENSWAY_SERVE_PUBLIC_URL": "lensway.example.org"}, (), "--public-url must be"),
        ({}, ("--gateway-url", "https://lensway.example.org/connect"), "--gateway-url must be"),
        ({}, ("--gateway-url", "wss://lensway.example.org/"), "--gateway-url must end in /connect"),
        ({}, ("--tls-cert", "cert.pem"), "belong together"),
        ({}, ("--tls-cert", "none.pem", "--tls-key", "none.key"), "none.pem is not a file"),
        ({"LENSWAY_MASTER_KEY": "short"}, (), "LENSWAY_MASTER_KEY"),
        ({"LENSWAY_MASTER_KEY_FILE": "/nowhere"}, (), "LENSWAY_MASTER_KEY_FILE names /nowhere"),
        ({"LENSWAY_ADMIN_KEY": "admin"}, (), "LENSWAY_ADMIN_KEY"),
        ({}, ("--source-dir", "/nowhere"), "--source-dir /nowhere"),
        ({}, ("--http", "127.0.0.1:8081"), "same address"),
        ({}, ("--data-dir", "/dev/null/data"), "/dev/null"),
    ],
)
def test_check_names_what_a_start_would_refuse(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: Mapping[str, str],
    options: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended, report.exit_on_failure():
        app(
            ["serve", "--check", *options],
            error_formatter=report.usage_error,
            exit_on_error=False,
            print_error=True,
            result_action="return_value",
        )
    shown = capsys.readouterr().err
    assert ended.value.code == 2, shown
    assert said in shown
    assert not (tmp_path / "lensway-data").exists()


def test_check_tells_certificates_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost", label="one")
    _, other = authority.issue("localhost", label="two")
    good = serve(tmp_path, "--check", "--tls-cert", str(certificate), "--tls-key", str(key))
    assert (good.returncode, "TLS: " in good.stdout) == (0, True), good.stderr
    bad = serve(tmp_path, "--check", "--tls-cert", str(certificate), "--tls-key", str(other))
    assert (bad.returncode, "the key does not belong to the certificate" in bad.stderr) == (2, True)


def test_check_changes_nothing_and_may_look_while_the_server_runs(tmp_path: pathlib.Path) -> None:
    master = base64.b64encode(bytes(range(32))).decode()
    (tmp_path / "master").write_bytes(b'\xef\xbb\xbf"' + master.encode() + b'"\r\n')
    before = serve(tmp_path, "--check", LENSWAY_MASTER_KEY_FILE=str(tmp_path / "master"))
    assert (before.returncode, "lensway-data will be made" in before.stdout) == (0, True), before.stderr
    with Deployment(tmp_path) as deployment:
        options = ["--data-dir", str(tmp_path / "data"), "--http", f"127.0.0.1:{deployment.http_port}"]
        during = serve(tmp_path, "--check", *options)
        assert during.returncode == 0, during.stderr


def test_listening_beyond_this_machine_is_warned_about(tmp_path: pathlib.Path) -> None:
    everywhere = ("--check", "--http", "0.0.0.0:8080", "--gateway", "[::]:8081")
    found = serve(tmp_path, *everywhere).stdout
    assert "without TLS" in found
    assert "cannot name this gateway" in found
    assert "--public-url says 127.0.0.1" in found
    named = ("--public-url", "https://lensway.example.org", "--gateway-url", "wss://lensway.example.org/connect")
    behind = serve(tmp_path, *everywhere, *named, "--trusted-proxies", "10.0.0.0/8").stdout
    assert "warning" not in behind
    assert "warning" not in serve(tmp_path, "--check").stdout
    loopback = serve(tmp_path, *everywhere, "--gateway-url", "ws://localhost:8081/connect").stdout
    assert "--gateway-url says localhost" in loopback


def test_no_environment_block_names_an_address_that_is_wrong_elsewhere(tmp_path: pathlib.Path) -> None:
    class Everywhere(Deployment):
        def start_server(self):
            options = [
                "serve", "--data-dir", str(self.directory / "data"), "--http", f"127.0.0.1:{self.http_port}",
                "--gateway", f"0.0.0.0:{self.gateway_port}",
            ]  # fmt: skip
            self.server = Process("server", options, {"LENSWAY_ADMIN_KEY": self.admin_key}, directory=self.directory)
            self.wait_ready()
            return self.server

    with Everywhere(tmp_path) as deployment:
        made = deployment.client().post("/v1/runners", json={"name": "alpha"}).json()
        deployment.secrets["token"] = made["token"]
        assert not re.search(r"^LENSWAY_GATEWAY_URL", made["env"], re.MULTILINE)
        assert "--gateway-url" in made["env"]
        assert "127.0.0.1" not in made["env"]
        assert "warning: --gateway listens beyond this machine without TLS" in deployment.server.output.text()


def test_the_commands_take_their_key_from_a_file(tmp_path: pathlib.Path) -> None:
    with Deployment(tmp_path) as deployment:
        key = tmp_path / "key"
        key.write_bytes(b"\xef\xbb\xbf'" + deployment.admin_key.encode() + b"'\r\n")
        found = deployment.cli(
            "runners", "list", "--json", environment={"LENSWAY_API_KEY": "", "LENSWAY_API_KEY_FILE": str(key)}
        )
        assert (found.returncode, found.stdout.strip()) == (0, "[]"), found.stderr

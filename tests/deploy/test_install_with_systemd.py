"""The page "Install with systemd": its commands, and its units run as systemd would run them, without systemd.

There is no service manager where tests run. `systemd-analyze` checks the units; the commands of the units run with their
credentials, files and variables, as an unprivileged user without memory that is both writable and executable.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping

import pytest

from lensway.testing.deployment import Process, free_ports
from tools import following, unprivileged, wheel

pytestmark = pytest.mark.acceptance
PAGE = "docs/how-to/install-with-systemd.md"
UNITS = following.ROOT / "deploy/systemd"
EXPOSURE_MAX = 15
"""Tenths of what `systemd-analyze security` says; it calls up to 2.0 the best class."""
_WITHOUT_EXECUTABLE_MEMORY = (
    "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; os.execvp(sys.argv[1], sys.argv[1:])"
)
"""PR_SET_MDWE, which is what MemoryDenyWriteExecute=yes asks of the kernel."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit file with its specifiers filled in."""

    text: str

    def all(self, key: str) -> list[str]:
        return re.findall(rf"^{key}=(.*)$", self.text, re.MULTILINE)

    def one(self, key: str) -> str:
        (found,) = self.all(key)
        return found


@pytest.mark.parametrize("name", ["lensway-server.service", "lensway-runner@.service"])
def test_systemd_finds_no_fault_with_the_units(tmp_path: pathlib.Path, name: str) -> None:
    text = (UNITS / name).read_text()
    copy = tmp_path / name
    copy.write_text(text.replace("/opt/lensway/bin/lensway", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    judged = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}", str(copy)]
    done = subprocess.run(judged, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]
    copy.write_text(copy.read_text() + "\nRestrictEverything=yes\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert "RestrictEverything" in done.stderr


def start_unit(root: pathlib.Path, name: str, unit: str, *, runtime: pathlib.Path, notify: str) -> Process:
    """Start the command of an installed unit with what the unit gives it."""
    instance = name.partition("@")[2].removesuffix(".service")
    credentials, state = root / "credentials", root / "state"
    for folder in (credentials / name, state, runtime):
        folder.mkdir(parents=True, exist_ok=True)
    filled = (root / "etc/systemd/system" / unit).read_text()
    for specifier, value in (("%i", instance), ("%d", credentials / name), ("%S", state), ("%t", runtime)):
        filled = filled.replace(specifier, str(value))
    found = Unit(filled)
    environment: dict[str, str] = {"NOTIFY_SOCKET": notify}
    for line in found.all("Environment"):
        environment |= dict([line.split("=", 1)])
    for path in found.all("EnvironmentFile"):
        lines = pathlib.Path(path.removeprefix("-")).read_text().splitlines()
        environment |= dict(line.split("=", 1) for line in lines if line)
    for each in found.all("LoadCredential"):
        credential, _, path = each.partition(":")
        shutil.copyfile(path, credentials / name / credential)
    for key, base in (("RuntimeDirectory", runtime), ("StateDirectory", state)):
        for folder in found.all(key):
            (base / folder).mkdir(mode=0o700)
    own(credentials, state, runtime)
    words = []
    for word in found.one("ExecStart").split():
        words += environment.get(word[1:], "").split() if word.startswith("$") else [word]
    prefix = [*unprivileged.prefix(), unprivileged.python(), "-c", _WITHOUT_EXECUTABLE_MEMORY]
    return Process(name, words, environment, directory=root, program=[], prefix=prefix)


def expect_ready(manager: socket.socket, process: Process) -> None:
    """Return when the unit has told the service manager that it runs."""
    try:
        assert manager.recv(100) == b"READY=1"
    except TimeoutError:
        raise AssertionError(f"{process.name} is not ready:\n{process.output.text()[-2000:]}") from None


def own(*folders: pathlib.Path) -> None:
    """Give the folders to the unprivileged user."""
    if unprivileged.prefix():
        for folder in folders:
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, "nobody", "nogroup")


def reader_at(root: pathlib.Path, changes: Mapping[str, str]) -> following.Reader:
    """A root user whose `/opt` and `/etc` lie in ``root``, and whose `systemctl` writes down what it is told."""
    (root / "bin").mkdir()
    told = root / "bin/systemctl"
    told.write_text(f'#!/bin/sh\necho "$@" >> {root}/told\n')
    told.chmod(0o755)
    (root / "etc/systemd/system").mkdir(parents=True)
    shutil.copytree(following.ROOT / "deploy", root / "deploy")
    reader = following.Reader(
        root,
        {
            "/opt/lensway/bin/pip install": f"{wheel.UV} pip install --quiet --compile-bytecode --python /opt/lensway/bin/python",
            "python3 -m venv /opt": f"{unprivileged.python()} -m venv --without-pip /opt",
            "/opt/": f"{root}/opt/",
            "/etc/": f"{root}/etc/",
            **changes,
        },
    )
    reader.type(f"PATH={root}/bin:$PATH")
    return reader


@pytest.fixture
def run() -> Iterator[pathlib.Path]:
    """Like /run, short enough for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="lensway-") as folder:
        pathlib.Path(folder).chmod(0o755)
        yield pathlib.Path(folder)


@pytest.mark.timeout(300)
def test_every_command_of_the_page_works_and_the_units_run(tmp_path: pathlib.Path, run: pathlib.Path) -> None:
    http, gateway = free_ports(2)
    built = wheel.build(tmp_path / "dist")
    changes = {
        "./lensway-0.1.0": f"{built.parent}/lensway-0.1.0",
        "127.0.0.1:8080": f"127.0.0.1:{http}",
        "127.0.0.1:8081": f"127.0.0.1:{gateway}",
        "lensway runners": f"{sys.executable} -m lensway runners",
    }
    for folder in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        folder.chmod(0o755)  # the unprivileged user passes through, as through /
    reader = reader_at(tmp_path, changes)
    blocks = [block.text for block in following.blocks(PAGE, "sh")]
    started: list[Process] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        (tmp_path / "notify").chmod(0o666)
        try:
            for text in blocks[:3]:
                reader.type(text)
            assert (tmp_path / "told").read_text().splitlines() == [
                "daemon-reload", "enable lensway-server", "restart lensway-server"
            ]  # fmt: skip
            _use_program(tmp_path)
            server = start_unit(
                tmp_path,
                "lensway-server.service",
                "lensway-server.service",
                runtime=run,
                notify=str(tmp_path / "notify"),
            )
            started.append(server)
            expect_ready(manager, started[-1])
            key = (tmp_path / "etc/lensway/admin-key").read_text().strip()
            reader.type(f"LENSWAY_URL=http://127.0.0.1:{http}\nLENSWAY_API_KEY={key}")
            shutil.rmtree(tmp_path / "opt")  # the runner's machine is another one
            script = tmp_path / "alpha.sh"
            for text in blocks[3:]:
                reader.type(text)
                if script.exists():  # which names /etc too
                    script.write_text(script.read_text().replace(" /etc/", f" {tmp_path}/etc/"))
            assert (tmp_path / "told").read_text().splitlines()[3:] == [
                "daemon-reload", "enable lensway-runner@alpha", "restart lensway-runner@alpha"
            ]  # fmt: skip
            assert [(path.stat().st_mode & 0o777) for path in (tmp_path / "etc/lensway").glob("alpha.*")] == [0o600] * 2
            _use_program(tmp_path)
            runner = start_unit(
                tmp_path,
                "lensway-runner@alpha.service",
                "lensway-runner@.service",
                runtime=run,
                notify=str(tmp_path / "notify"),
            )
            started.append(runner)
            expect_ready(manager, started[-1])
            runner.wait_line("connected, awaiting jobs")
            assert "will not answer" not in runner.output.text()
            assert [runner.stop(), server.stop()] == [0, 0]
        finally:
            for process in started:
                if process.is_running:
                    process.kill()
            reader.close()


def _use_program(root: pathlib.Path) -> None:
    """The units name /opt; here it lies elsewhere."""
    for unit in (root / "etc/systemd/system").iterdir():
        unit.write_text(
            unit.read_text().replace("=/opt/", f"={root}/opt/").replace("/etc/lensway", f"{root}/etc/lensway")
        )

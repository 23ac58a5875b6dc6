"""`make images`: build both images with buildah, and run each without a container engine as a cluster would.

Each program runs as process 1 of its own namespaces, on a read-only root, without capabilities, as a user that the image does not
know; then SIGTERM must end it with 0. Without a registry in reach the base comes from debootstrap. The images stay in
`.cache/images`, some gigabytes; delete the folder afterwards.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Final

import httpx2

from lensway.testing.deployment import Process, free_ports

_STORAGE: Final = pathlib.Path(".cache/images").resolve()
_BUILDAH: Final = (
    "buildah",
    "--storage-driver",
    "vfs",
    "--root",
    str(_STORAGE / "storage"),
    "--runroot",
    str(_STORAGE / "run"),
)
_LOCAL_BASE: Final = "localhost/lensway-base"
_UNKNOWN_USER: Final = 471147
_NEEDED: Final = ("buildah", "debootstrap", "unshare", "chroot")
# The shell becomes process 1 of the new namespace, and then the program.
_CONFINED: Final = """
set -e; root=$1; data=$2; user=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"; mount -o remount,ro,bind "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"; mount -t proc proc "$root/proc"
if [ -d "$root/data" ]; then mount --bind "$data" "$root/data"; fi
exec chroot "--userspec=$user:0" "$root" env -i PATH=/opt/lensway/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 "$@"
"""


def main() -> int:
    """0 when both images were built and behaved."""
    parser = argparse.ArgumentParser(prog="make images", description=__doc__)
    parser.add_argument("--base", help="a base image to pull; default: debootstrap of Debian trixie")
    parser.add_argument(
        "--volume", action="append", default=[], help="for buildah, such as a CA of a proxy: FROM:TO:ro"
    )
    options = parser.parse_args()
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        print(
            f"make images needs root and {', '.join(_NEEDED)}; missing: {', '.join(missing) or 'root'}", file=sys.stderr
        )
        return 2
    base = options.base or _local_base()
    for target in ("runner", "server"):
        started = time.monotonic()
        volumes = [word for each in options.volume for word in ("--volume", each)]
        _run("build", "--isolation", "chroot", "--build-arg", f"BASE={base}", *volumes,
             "--file", "deploy/Containerfile", "--target", target, "--tag", f"lensway-{target}", ".")  # fmt: skip
        container = _run("from", f"localhost/lensway-{target}")
        root = pathlib.Path(_run("mount", container))
        megabytes = int(subprocess.run(["du", "-sm", root / "opt"], capture_output=True, check=True).stdout.split()[0])
        print(
            f"{target}: built in {time.monotonic() - started:.0f} s, {megabytes} MB beside Debian and its Python",
            flush=True,
        )
        try:
            print(f"{target}: {_try(target, root)}", flush=True)
        finally:
            _run("rm", container)
    return 0


def _local_base() -> str:
    if subprocess.run(
        [*_BUILDAH, "inspect", "--type", "image", _LOCAL_BASE], capture_output=True, check=False
    ).returncode:
        with tempfile.TemporaryDirectory(prefix="lensway-base-") as folder:
            command = ["debootstrap", "--variant=minbase", "trixie", folder]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            container = _run("from", "scratch")
            _run("add", container, folder, "/")
            _run("commit", "--rm", container, _LOCAL_BASE)
    return _LOCAL_BASE


def _try(target: str, root: pathlib.Path) -> str:
    http, gateway = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="lensway-image-") as folder:
        # As a volume of a cluster whose user ids are unknown before: it belongs to group 0.
        pathlib.Path(folder).chmod(0o770)
        if target == "runner":
            settings = {
                "LENSWAY_RUNNER_ID": "run_00000000000000000000",
                "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
                "LENSWAY_GATEWAY_URL": f"ws://127.0.0.1:{gateway}/connect",
                "LENSWAY_RUNNER_STATE_DIR": "/tmp/lensway-runner",
            }
            process = _confined(root, folder, settings, ["runner", "start"])
            process.wait_line("cannot connect")
        else:
            words = ["--data-dir", "/data/lensway", "--http", f"127.0.0.1:{http}", "--gateway", f"127.0.0.1:{gateway}"]
            process = _confined(root, folder, {}, ["serve", *words])
            process.wait_line("admin key")
            assert httpx2.get(f"http://127.0.0.1:{http}/readyz", trust_env=False).status_code == 200
        child = _child_of(process.pid)
        status = pathlib.Path(f"/proc/{child}/status").read_text()
        found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert found["NSpid"].split()[-1] == "1", "the program is process 1"
        assert found["Uid"].split() == [str(_UNKNOWN_USER)] * 4
        assert int(found["CapEff"], 16) == 0
        os.kill(child, 15)
        code = process.wait()
        assert code == 0, process.output.text()
        return f"ran as process 1 and user {_UNKNOWN_USER} on a read-only root, {found['VmRSS'].strip()}; SIGTERM ended it with 0"


def _confined(root: pathlib.Path, data: str, settings: Mapping[str, str], words: Sequence[str]) -> Process:
    script = [_CONFINED, "sh", str(root), data, str(_UNKNOWN_USER)]
    variables = [f"{name}={value}" for name, value in settings.items()]
    prefix = ["unshare", "--mount", "--pid", "--fork", "--ipc", "--uts", "sh", "-c", *script, *variables]
    return Process(words[0], words, {}, directory=pathlib.Path.cwd(), prefix=prefix, program=["lensway"])


def _child_of(pid: int) -> int:
    return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _run(*words: str) -> str:
    done = subprocess.run([*_BUILDAH, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"`buildah {' '.join(words)}` failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


if __name__ == "__main__":
    sys.exit(main())

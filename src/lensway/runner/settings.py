"""What a runner process is told by its environment. Read once, checked whole, secrets redacted by type."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
import urllib.parse
from collections.abc import Hashable, Mapping

from lensway.auth.secret import Secret, bare
from lensway.errors import ErrorCode, LenswayError
from lensway.hosts import host_and_port, is_this_machine
from lensway.limits import JOBS_PER_SESSION_DEFAULT

_PREFIX = "LENSWAY_"
_MISSPELT_RATIO = 0.8
_SERVICE_LINK = re.compile(
    r"LENSWAY_RUNNER(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""What Kubernetes sets in every container for a service whose name begins with ``lensway-runner``."""
_KNOWN = frozenset(
    {
        "LENSWAY_RUNNER_ID",
        "LENSWAY_RUNNER_TOKEN",
        "LENSWAY_RUNNER_TOKEN_FILE",
        "LENSWAY_GATEWAY_URL",
        "LENSWAY_CA_FILE",
        "LENSWAY_RUNNER_POLICY",
        "LENSWAY_RUNNER_CAPACITY",
        "LENSWAY_RUNNER_STATE_DIR",
        "LENSWAY_RUNNER_HEALTH",
        "LENSWAY_RUNNER_JOB_LOG",
    }
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """Who this runner is and where it dials."""

    runner: str
    token: Secret
    token_file: pathlib.Path | None
    gateway_url: str
    ca_file: pathlib.Path | None
    policy_file: pathlib.Path | None
    capacity: int
    state_dir: pathlib.Path | None
    health: tuple[str, int] | None = None
    """Where the health pages are listened for; None is nowhere."""
    job_log: pathlib.Path | None = None

    def fresh_token(self) -> Secret:
        """The token as it is now: a file is read again, so that a rotated token needs no restart."""
        return self.token if self.token_file is None else _token_of(self.token_file)

    def token_mark(self) -> Hashable | None:
        """Changes when the token's file holds another token; None without such a file."""
        if self.token_file is None:
            return None
        try:
            return hash(self.fresh_token().reveal())
        except LenswayError:
            return 0


def read_settings(environment: Mapping[str, str], *, insecure: bool = False) -> RunnerSettings:
    """The settings that these variables hold.

    Raises:
        LenswayError: INVALID_REQUEST naming the variable that is missing, unknown or wrong, never its value.
    """
    _refuse_unknown(environment)
    runner = _required(environment, "LENSWAY_RUNNER_ID")
    url = _required(environment, "LENSWAY_GATEWAY_URL")
    check_gateway_url(url, insecure=insecure)
    token_file = _path(environment, "LENSWAY_RUNNER_TOKEN_FILE")
    if token_file is not None:
        token = _token_of(token_file)
    else:
        token = _checked_token(_required(environment, "LENSWAY_RUNNER_TOKEN"), "LENSWAY_RUNNER_TOKEN")
    return RunnerSettings(
        runner=runner,
        token=token,
        token_file=token_file,
        gateway_url=url,
        ca_file=_path(environment, "LENSWAY_CA_FILE"),
        policy_file=_policy(environment),
        capacity=_capacity(environment.get("LENSWAY_RUNNER_CAPACITY")),
        state_dir=pathlib.Path(environment["LENSWAY_RUNNER_STATE_DIR"])
        if environment.get("LENSWAY_RUNNER_STATE_DIR")
        else None,
        health=_health(environment.get("LENSWAY_RUNNER_HEALTH")),
        job_log=pathlib.Path(environment["LENSWAY_RUNNER_JOB_LOG"])
        if environment.get("LENSWAY_RUNNER_JOB_LOG")
        else None,
    )


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like a runner's and that nothing reads. Kubernetes' links to services of such names do not count."""
    return sorted(
        name
        for name, value in environment.items()
        if name not in _KNOWN and _is_meant_for_runners(name) and not _is_service_link(name, value)
    )


def _is_meant_for_runners(name: str) -> bool:
    upper = name.upper()
    if upper.startswith(f"{_PREFIX}RUNNER_"):
        return True
    words = upper.split("_")
    is_near = len(words) > 2 and bool(difflib.get_close_matches(words[1], ["RUNNER"], cutoff=_MISSPELT_RATIO))
    return words[0] == "LENSWAY" and is_near


def _is_service_link(name: str, value: str) -> bool:
    # `…_PORT` could be a misspelt setting; a service's holds a URL.
    return _SERVICE_LINK.fullmatch(name) is not None or (name.endswith("_PORT") and "://" in value)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    unknown = unknown_variables(environment)
    if not unknown:
        return
    found = difflib.get_close_matches(unknown[0].upper(), _KNOWN, n=1)
    raise LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"unknown variable{'s' if len(unknown) > 1 else ''}: {', '.join(unknown)}",
        hint=f"Did you mean {found[0]}? The runner refuses unknown variables, because a misspelt restriction has no effect."
        if found
        else f"Unset it. A runner reads {', '.join(sorted(_KNOWN))}.",
    )


def check_gateway_url(url: str, *, insecure: bool) -> urllib.parse.SplitResult:
    """The parts of the gateway's address.

    Raises:
        LenswayError: INVALID_REQUEST for anything but ``ws://`` or ``wss://HOST[:PORT]/connect``, and for ``ws://`` to a host
            that is not loopback unless ``insecure``.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port_is_good = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        raise _invalid("LENSWAY_GATEWAY_URL", "is not a URL") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname or not port_is_good:
        raise _invalid("LENSWAY_GATEWAY_URL", "must be wss://HOST[:PORT]/connect")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise _invalid(
            "LENSWAY_GATEWAY_URL", "must hold no user, token or query: the token goes into LENSWAY_RUNNER_TOKEN"
        )
    if not parts.path.rstrip("/").endswith("/connect"):
        raise _invalid(
            "LENSWAY_GATEWAY_URL", "must end in /connect, after the path prefix of a reverse proxy if there is one"
        )
    if parts.scheme == "ws" and not insecure and not is_this_machine(parts.hostname):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            "LENSWAY_GATEWAY_URL is ws:// to a host that is not this machine: the token would be sent in clear text",
            hint="Use wss://, or start with --insecure if the network path is protected by other means.",
        )
    return parts


def gateway_address(url: str) -> tuple[str, int]:
    """Host and port of an address that `check_gateway_url` has passed."""
    parts = urllib.parse.urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)


def policy_file(environment: Mapping[str, str]) -> pathlib.Path | None:
    """The file of the local policy, for what needs no server. Raises LenswayError INVALID_REQUEST."""
    return _policy(environment)


def _required(environment: Mapping[str, str], name: str) -> str:
    value = bare(environment.get(name, ""))
    if not value:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{name} is {'empty' if name in environment else 'not set'}",
            hint="`lensway runners create NAME` prints the environment block of a new runner.",
        )
    return value


def _policy(environment: Mapping[str, str]) -> pathlib.Path | None:
    if environment.get("LENSWAY_RUNNER_POLICY") == "":
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            "LENSWAY_RUNNER_POLICY is set and empty",
            hint="Name the policy file, or unset the variable for a runner without a local policy.",
        )
    return _path(environment, "LENSWAY_RUNNER_POLICY")


def _path(environment: Mapping[str, str], name: str) -> pathlib.Path | None:
    value = bare(environment.get(name, ""))
    if not value:
        return None
    path = pathlib.Path(value)
    if not path.is_file():
        raise _invalid(name, f"names {value}, which is not a file")
    return path


def _token_of(path: pathlib.Path) -> Secret:
    try:
        text = bare(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise _invalid("LENSWAY_RUNNER_TOKEN_FILE", f"names {path}, which cannot be read") from None
    if not text:
        raise _invalid("LENSWAY_RUNNER_TOKEN_FILE", f"names {path}, which is empty")
    return _checked_token(text, "LENSWAY_RUNNER_TOKEN_FILE")


def _checked_token(text: str, name: str) -> Secret:
    if not text.startswith("rk_") or not text.isascii() or not text.isprintable() or " " in text:
        raise _invalid(name, "does not hold a runner token (rk_…)")
    return Secret(text)


def _capacity(text: str | None) -> int:
    if not text:
        return JOBS_PER_SESSION_DEFAULT
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise _invalid("LENSWAY_RUNNER_CAPACITY", "must be a whole number from 1 to 10000")
    return int(text)


def _health(text: str | None) -> tuple[str, int] | None:
    if not text:
        return None
    found = host_and_port(text)
    if found is None:
        raise _invalid("LENSWAY_RUNNER_HEALTH", "must be HOST:PORT, for example 127.0.0.1:9100 or [::1]:9100")
    return found


def _invalid(name: str, what: str) -> LenswayError:
    hint = f"Correct {name}; `lensway runners create NAME` prints the environment block of a new runner."
    return LenswayError(ErrorCode.INVALID_REQUEST, f"{name} {what}", hint=hint)

"""`lensway serve`: the server in one process."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import pathlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lensway import limits
from lensway.auth.tokens import check_admin_key
from lensway.cli import report
from lensway.cli.given import secret_given
from lensway.cli.serving import PREFIX, comma_separated, external_urls, refuse_unknown, warnings_of
from lensway.errors import ErrorCode, LenswayError
from lensway.hosts import host_and_port

if TYPE_CHECKING:
    from lensway.compose.server import ServerSettings


def _option(name: str, **more: Any) -> Parameter:
    """An option that a variable can give, too."""
    return Parameter(env_var=f"{PREFIX}{name}", show_env_var=False, **more)


def serve(
    *,
    data_dir: Annotated[pathlib.Path, _option("DATA_DIR", help="Metadata, keys and the lock.")] = pathlib.Path(
        "lensway-data"
    ),
    http: Annotated[str, _option("HTTP", help="HOST:PORT of the API and the Console.")] = "127.0.0.1:8080",
    gateway: Annotated[str, _option("GATEWAY", help="HOST:PORT that runners dial.")] = "127.0.0.1:8081",
    public_url: Annotated[
        str | None,
        _option(
            "PUBLIC_URL",
            help="The external URL of the API; its path is the prefix of a reverse proxy.",
        ),
    ] = None,
    gateway_url: Annotated[
        str | None,
        _option("GATEWAY_URL", help="The external URL of the gateway; the runners' environment blocks show it."),
    ] = None,
    tls_cert: Annotated[pathlib.Path | None, _option("TLS_CERT", help="Certificate chain for both listeners.")] = None,
    tls_key: Annotated[pathlib.Path | None, _option("TLS_KEY", help="Private key of the certificate.")] = None,
    trusted_proxies: Annotated[
        list[str] | None,
        _option(
            "TRUSTED_PROXIES",
            env_var_split=comma_separated,
            help="Networks of proxies whose X-Forwarded-For the server trusts.",
            negative=(),
        ),
    ] = None,
    source_dir: Annotated[
        list[pathlib.Path] | None, _option("SOURCE_DIR", help="Directories for file-backed sources.", negative=())
    ] = None,
    deny_private_sources: Annotated[
        bool,
        _option("DENY_PRIVATE_SOURCES", negative=(), help="Refuse inline sources at private and loopback addresses."),
    ] = False,
    unix_sockets: Annotated[
        bool,
        _option(
            "UNIX_SOCKETS", negative=(), help="Let inline sources reach databases over Unix sockets of this machine."
        ),
    ] = False,
    stall_timeout: Annotated[
        float,
        _option(
            "STALL_TIMEOUT", help="Seconds that a caller may stop reading before its request is cancelled: 1 to 60."
        ),
    ] = limits.STALL_TIMEOUT_SECONDS,
    lame_duck_seconds: Annotated[
        float,
        _option("LAME_DUCK_SECONDS", help="After SIGTERM: how long /readyz answers 503 while the server still serves."),
    ] = 0.0,
    drain_seconds: Annotated[
        float, _option("DRAIN_SECONDS", help="After SIGTERM: how long running requests may take to finish.")
    ] = limits.DRAIN_SECONDS,
    metrics: Annotated[
        str | None, _option("METRICS", help="HOST:PORT of /metrics without a key, for a scraper; default: off.")
    ] = None,
    audit_days: Annotated[
        int, _option("AUDIT_DAYS", help="Days for which the audit keeps its rows; 0 keeps them for ever.")
    ] = limits.AUDIT_DAYS_DEFAULT,
    database_url: Annotated[str | None, Parameter(show=False)] = None,
    bus: Annotated[str | None, Parameter(show=False)] = None,
    check: Annotated[
        bool, Parameter(negative=(), help="Check settings, files and the data directory, then exit without serving.")
    ] = False,
    log_level: Annotated[str, _option("LOG_LEVEL", help="debug, info, warning or error.")] = "warning",
) -> int:
    """Run the server: HTTP, gateway, Console and store in one process. Each option has a variable, `LENSWAY_SERVE_…`."""
    # Imported here: a client command must not pay for the server.
    from lensway.compose.kinds import installed_kinds  # noqa: PLC0415
    from lensway.compose.process import forbid_dumps, open_files, scrub_environment, share_arenas  # noqa: PLC0415
    from lensway.compose.server import Server, ServerSettings  # noqa: PLC0415
    from lensway.observe import log  # noqa: PLC0415

    refuse_unknown(os.environ)
    for option, value in (("--database-url", database_url), ("--bus", bus)):
        if value is not None:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"{option} is not available: this version supports a single node on SQLite only",
                hint="Start the server without this option.",
            )
    level = _level(log_level)
    admin_key = secret_given(os.environ, "LENSWAY_ADMIN_KEY")
    http_host, http_port = _address(http, "--http")
    gateway_host, gateway_port = _address(gateway, "--gateway")
    public, gateway_link = external_urls(
        public_url, gateway_url, (http_host, http_port), (gateway_host, gateway_port), is_tls=tls_cert is not None
    )
    settings = ServerSettings(
        data_dir=data_dir,
        http_host=http_host,
        http_port=http_port,
        gateway_host=gateway_host,
        gateway_port=gateway_port,
        public_url=public,
        gateway_url=gateway_link,
        tls_cert=tls_cert,
        tls_key=tls_key,
        trusted_proxies=tuple(_network(text) for text in trusted_proxies or ()),
        source_dirs=tuple(_directory(path) for path in source_dir or ()),
        deny_private_sources=deny_private_sources,
        allows_sockets=unix_sockets,
        admin_key=check_admin_key(admin_key) if admin_key else None,
        master_key=secret_given(os.environ, "LENSWAY_MASTER_KEY"),
        previous_master_keys=secret_given(os.environ, "LENSWAY_MASTER_KEY_PREVIOUS"),
        stall_seconds=_stall(stall_timeout),
        lame_duck_seconds=lame_duck_seconds,
        metrics_address=None if metrics is None else _address(metrics, "--metrics"),
        drain_seconds=drain_seconds,
        audit_days=_audit_days(audit_days),
        is_losing_pushes=os.environ.get("LENSWAY_FAULT_LOSE_PUSHES") == "1",
    )
    kinds = installed_kinds()
    if check:
        return _check(settings)
    log.configure(level=level)
    scrub_environment(kinds)
    open_files()
    forbid_dumps()
    share_arenas()
    server = Server(settings, report.announcer(), kinds, warnings=tuple(warnings_of(settings)))
    try:
        _run(server.run())
    except LenswayError as error:
        if error.code is ErrorCode.CONFLICT:
            raise LenswayError(ErrorCode.INVALID_REQUEST, str(error), hint=error.failure.hint) from None
        raise
    return 0


def _check(settings: ServerSettings) -> int:
    from lensway.compose.checking import check_settings  # noqa: PLC0415

    for line in check_settings(settings):
        report.write_line(f"ok       {line}")
    for warning in warnings_of(settings):
        report.write_line(f"warning  {warning}")
    return 0


def _run(main: Coroutine[None, None, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _address(text: str, option: str) -> tuple[str, int]:
    found = host_and_port(text)
    if found is None:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"{option} must be HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080"
        )
    return found


def _directory(path: pathlib.Path) -> pathlib.Path:
    if not path.is_dir():
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"--source-dir {path} is not a directory that this user can see",
            hint="Create it, or correct the path: the server reads file-backed sources below it.",
        )
    return path


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"--trusted-proxies: {text[:60]!r} is not a network") from None


def _stall(seconds: float) -> float:
    if not 1.0 <= seconds <= limits.STALL_TIMEOUT_SECONDS:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"--stall-timeout must be from 1 to {limits.STALL_TIMEOUT_SECONDS:.0f} seconds"
        )
    return seconds


def _audit_days(days: int) -> int:
    if not 0 <= days <= limits.AUDIT_DAYS_MAX:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"--audit-days must be from 0 to {limits.AUDIT_DAYS_MAX:,}")
    return days


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise LenswayError(ErrorCode.INVALID_REQUEST, "--log-level must be debug, info, warning or error")
    return text.lower()

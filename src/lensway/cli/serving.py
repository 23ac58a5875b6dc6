"""What `lensway serve` makes of its options and variables: addresses, warnings, and variables that nothing reads."""

from __future__ import annotations

import difflib
import inspect
import re
import urllib.parse
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from lensway.errors import ErrorCode, LenswayError
from lensway.hosts import is_this_machine

if TYPE_CHECKING:
    from lensway.compose.server import ServerSettings

PREFIX: Final = "LENSWAY_SERVE_"
_SERVICE_LINK: Final = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""What Kubernetes sets in every container for a service named ``lensway-serve``."""
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_HIDDEN: Final = frozenset({"check"})


def variables() -> dict[str, str]:
    """Every variable of an option, with the option."""
    from lensway.cli.serve import serve  # noqa: PLC0415 - the command names this module

    names = [name for name in inspect.signature(serve).parameters if name not in _HIDDEN]
    return {f"{PREFIX}{name.upper()}": f"--{name.replace('_', '-')}" for name in names}


def refuse_unknown(environment: Mapping[str, str]) -> None:
    """Raises LenswayError INVALID_REQUEST for a variable of this prefix that no option has: it would have no effect."""
    known = variables()
    for name, value in sorted(environment.items()):
        rest = name.upper().removeprefix(PREFIX)
        if not name.upper().startswith(PREFIX) or name in known:
            continue
        if _SERVICE_LINK.fullmatch(rest) or (rest == "PORT" and "://" in value):
            continue
        near = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Unset it; `lensway serve --help` lists the options."
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"unknown variable: {name}", hint=hint)


def forget_empty(environment: MutableMapping[str, str]) -> None:
    """Take away variables without a value: compose files and charts set what they leave out to nothing."""
    for name in [name for name, value in environment.items() if name.startswith(PREFIX) and not value.strip()]:
        del environment[name]


def comma_separated(_hint: Any, value: str, **_more: Any) -> list[str]:
    """The items of a variable: separated by commas or white space."""
    return [each for each in re.split(r"[,\s]+", value) if each]


def external_urls(
    public_url: str | None,
    gateway_url: str | None,
    http: tuple[str, int],
    gateway: tuple[str, int],
    *,
    is_tls: bool,
) -> tuple[str, str]:
    """The addresses of API and gateway as others see them; "" for a gateway whose address only its operator knows.

    Raises:
        LenswayError: INVALID_REQUEST naming the option that holds no such address.
    """
    secure = "s" if is_tls else ""
    public = (public_url or f"http{secure}://{_local(http[0])}:{http[1]}").rstrip("/")
    _check_url(public, "--public-url", ("http", "https"), "https://HOST[:PORT][/PREFIX]")
    if gateway_url is not None:
        _check_url(gateway_url, "--gateway-url", ("ws", "wss"), "wss://HOST[:PORT][/PREFIX]/connect")
        if not urllib.parse.urlsplit(gateway_url).path.rstrip("/").endswith("/connect"):
            raise LenswayError(ErrorCode.INVALID_REQUEST, "--gateway-url must end in /connect")
        return public, gateway_url
    if gateway[0] in _EVERYWHERE:
        return public, ""
    return public, f"ws{secure}://{_local(gateway[0])}:{gateway[1]}/connect"


def warnings_of(settings: ServerSettings) -> Iterator[str]:
    """What is allowed, and rarely meant: one line each, with the remedy."""
    listeners = (("--http", settings.http_host), ("--gateway", settings.gateway_host))
    beyond = [option for option, host in listeners if not is_this_machine(host)]
    if beyond and settings.tls_cert is None and not settings.trusted_proxies:
        yield (
            f"{' and '.join(beyond)} listen{'' if len(beyond) > 1 else 's'} beyond this machine without TLS: keys, tokens and "
            "rows are sent in clear text. Set --tls-cert and --tls-key, or put a reverse proxy in front and name it in "
            "--trusted-proxies."
        )
    urls = ("--public-url", settings.public_url), ("--gateway-url", settings.gateway_url)
    for (option, url), (listener, _) in zip(urls, listeners, strict=True):
        host = urllib.parse.urlsplit(url).hostname or ""
        if listener in beyond and url and is_this_machine(host):
            yield f"{option} says {host}, which is another machine everywhere else: set it to the name that others use."
    if not settings.gateway_url:
        yield (
            "the environment block of a new runner cannot name this gateway, because it listens at every address: set "
            "--gateway-url to the address that runners dial."
        )


def _local(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - named to be replaced
    return f"[{host}]" if ":" in host else host


def _check_url(url: str, option: str, schemes: tuple[str, ...], form: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        is_good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    else:
        is_good = is_good and not (parts.query or parts.fragment or "@" in parts.netloc) and url.isprintable()
    if not is_good or " " in url or not url.isascii():
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"{option} must be {form}")

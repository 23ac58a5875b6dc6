"""Ways to a server that are broken in every way we know, with real peers; and the cause that must be named for each."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import email.utils
import pathlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from lensway.testing.certificates import Authority, server_context
from lensway.testing.deployment import free_ports
from lensway.testing.nginx import nginx_with
from lensway.testing.proxies import ADDRESS, HOST, behind_tls, microsocks, tinyproxy

Act = Callable[[socket.socket], None]
_DAY: Final = datetime.timedelta(days=1)
_PASSWORD: Final = "pr0xy-passw0rd"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """Where to dial, with which variables."""

    port: int
    host: str = "localhost"
    is_tls: bool = False
    path: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret: str = _PASSWORD


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the peers keep their files."""

    directory: pathlib.Path
    authority: Authority

    @property
    def ca(self) -> dict[str, str]:
        """The variable with the authority that signed the peers' certificates."""
        return {"LENSWAY_CA_FILE": str(self.authority.file)}


@contextlib.contextmanager
def peer(act: Act, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """The port of a server that acts so on each connection."""
    open_sockets: set[socket.socket] = set()
    lock = threading.Lock()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
                stack.callback(connection.close)
            act(connection)

    with socket.create_server((host, 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with lock:
                        open_sockets.add(connection)
                    thread = threading.Thread(target=serve, args=(connection,), daemon=True)
                    thread.start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            accepting.join(5)
            with lock:
                for each in open_sockets:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)


def http(status: str, *headers: str, date: datetime.timedelta = datetime.timedelta()) -> Act:
    """Answers each request so, with this clock."""

    def act(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (more := connection.recv(65536)):
                return
            request += more
            if not request[:1].isalpha():
                break
        now = datetime.datetime.now(datetime.UTC) + date
        lines = [f"HTTP/1.1 {status}", f"Date: {email.utils.format_datetime(now, usegmt=True)}", "Connection: close"]
        connection.sendall("\r\n".join([*lines, *headers, "Content-Length: 0", "", ""]).encode())
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)

    return act


def silence(connection: socket.socket) -> None:
    """Reads for ever, and says nothing."""
    while connection.recv(65536):
        pass


def close(_connection: socket.socket) -> None:
    """Goes at once."""


def reset(connection: socket.socket) -> None:
    """Goes rudely, after the first bytes."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def garbage(connection: socket.socket) -> None:
    """Speaks another protocol."""
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    silence(connection)


Fault = Callable[[Place], contextlib.AbstractContextManager[Broken]]
FAULTS: Final[dict[str, tuple[Fault, str]]] = {}
"""By name: the fault, and the code of the cause to be named."""


def _fault(name: str, code: str) -> Callable[[Callable[[Place], Iterator[Broken]]], Fault]:
    def register(make: Callable[[Place], Iterator[Broken]]) -> Fault:
        made = contextlib.contextmanager(make)
        FAULTS[name] = made, code
        return made

    return register


# --- TLS ----------------------------------------------------------------------------------------------------------------------


def _tls(
    name: str,
    code: str,
    *names: str,
    trusted: bool = True,
    date: datetime.timedelta = datetime.timedelta(),
    valid_from: datetime.timedelta = -_DAY,
    valid_until: datetime.timedelta = 30 * _DAY,
) -> None:
    @_fault(name, code)
    def made(place: Place) -> Iterator[Broken]:
        files = place.authority.issue(
            *(names or ("localhost",)), label=code, valid_from=valid_from, valid_until=valid_until
        )
        with peer(http("200 OK", date=date), tls=server_context(*files)) as port:
            yield Broken(port=port, is_tls=True, environment=place.ca if trusted else {})


_tls("a CA that is not the system's", "untrusted", trusted=False)
_tls("a certificate for another name", "wrong_name", "other.example")
_tls("an expired certificate", "expired", valid_from=-9 * _DAY, valid_until=-2 * _DAY)
_tls("a certificate of the future", "not_yet_valid", valid_from=2 * _DAY)
_tls("a clock that is late", "clock_off", valid_from=2 * _DAY, date=3 * _DAY)
_tls("a clock that is early", "clock_off", valid_from=-9 * _DAY, valid_until=-2 * _DAY, date=-4 * _DAY)


@_fault("a CA file of another CA", "untrusted")
def _other_ca(place: Place) -> Iterator[Broken]:
    files = place.authority.issue("localhost", label="ours")
    with peer(http("200 OK"), tls=server_context(*files)) as port:
        other = Authority(place.directory, "other")
        yield Broken(port=port, is_tls=True, environment={"LENSWAY_CA_FILE": str(other.file)})


def _plain(name: str, code: str, act: Act, *, is_tls: bool = False) -> None:
    @_fault(name, code)
    def made(place: Place) -> Iterator[Broken]:
        with peer(act) as port:
            yield Broken(port=port, is_tls=is_tls)


_plain("TLS to a port that answers in clear text", "clear_port", http("400 Bad Request"), is_tls=True)
_plain("TLS to a silent port", "tls_silent", silence, is_tls=True)
_plain("TLS to a port that closes", "closed", close, is_tls=True)
_plain("TLS to a port that resets", "closed", reset, is_tls=True)


@_fault("clear text to a TLS port", "tls_port")
def _tls_port(place: Place) -> Iterator[Broken]:
    with peer(http("200 OK"), tls=server_context(*place.authority.issue("localhost"))) as port:
        yield Broken(port=port)


@_fault("clear text to a TLS port of nginx", "tls_port")
def _tls_port_of_nginx(place: Place) -> Iterator[Broken]:
    certificate, key = place.authority.issue("localhost", label="nginx")
    text = f"listen 127.0.0.1:{{port}} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"
    with nginx_with(text, place.directory) as port:
        yield Broken(port=port)


# --- the network --------------------------------------------------------------------------------------------------------------


@_fault("no program at the port", "refused")
def _refused(place: Place) -> Iterator[Broken]:
    yield Broken(port=free_ports(1)[0])


@_fault("a name that does not exist", "unknown_host")
def _unknown(place: Place) -> Iterator[Broken]:
    yield Broken(host="gateway.invalid", port=443, is_tls=True)


@_fault("a network without a route", "unreachable")
def _unreachable(place: Place) -> Iterator[Broken]:
    yield Broken(host="[fe80::1]", port=443, is_tls=True)  # a link-local address on no link


_plain("a port that closes", "closed", close)
_plain("a port that resets", "closed", reset)


# --- proxies ------------------------------------------------------------------------------------------------------------------


def _proxied(name: str, code: str, act: Act) -> None:
    @_fault(name, code)
    def made(place: Place) -> Iterator[Broken]:
        with peer(act) as port:
            yield Broken(host="gateway.example", port=443, is_tls=True, environment=_https(port))


def _https(port: int, scheme: str = "http", login: str = f"user:{_PASSWORD}@") -> dict[str, str]:
    return {"HTTPS_PROXY": f"{scheme}://{login}127.0.0.1:{port}"}


_proxied("a proxy that forbids", "proxy_forbids", http("403 Forbidden"))
_proxied("a proxy that answers 502", "proxy_away", http("502 Bad Gateway"))
_proxied("a proxy that answers 418", "proxy_status", http("418 I am a teapot"))
_proxied("a silent proxy", "proxy_silent", silence)
_proxied("a proxy that closes", "proxy_closed", close)
_proxied("a proxy that speaks no HTTP", "proxy_no_http", garbage)


def _with_tinyproxy(name: str, code: str, *lines: str, login: str = "", host: str = HOST) -> None:
    @_fault(name, code)
    def made(place: Place) -> Iterator[Broken]:
        with tinyproxy(place.directory, *lines) as port:
            yield Broken(host=host, port=free_ports(1)[0], is_tls=True, environment=_https(port, login=login))


_with_tinyproxy("tinyproxy: a port that it forbids", "proxy_forbids", "ConnectPort 443")
_with_tinyproxy("tinyproxy: no login", "proxy_login", f"BasicAuth user {_PASSWORD}")
_with_tinyproxy("tinyproxy: a wrong login", "proxy_login", "BasicAuth user other", login=f"user:{_PASSWORD}@")
_with_tinyproxy("tinyproxy: no server behind it", "proxy_away")
_with_tinyproxy("tinyproxy: a name it does not know", "proxy_away", host="gateway.invalid")


@_fault("no program at the proxy's port", "proxy_refused")
def _no_proxy(place: Place) -> Iterator[Broken]:
    yield Broken(host=HOST, port=443, is_tls=True, environment=_https(free_ports(1)[0]))


@_fault("a proxy whose name does not exist", "proxy_unknown_host")
def _unknown_proxy(place: Place) -> Iterator[Broken]:
    yield Broken(
        host=HOST, port=443, is_tls=True, environment={"https_proxy": f"http://user:{_PASSWORD}@proxy.invalid:3128"}
    )


@_fault("a proxy without CONNECT (nginx)", "proxy_no_connect")
def _no_connect(place: Place) -> Iterator[Broken]:
    with nginx_with("listen 127.0.0.1:{port}; location / {{ return 200; }}", place.directory) as port:
        yield Broken(host=HOST, port=443, is_tls=True, environment=_https(port))


@_fault("a proxy with TLS whose certificate is not trusted", "proxy_tls")
def _proxy_tls(place: Place) -> Iterator[Broken]:
    files = place.authority.issue("127.0.0.1", label="secure-proxy")
    with tinyproxy(place.directory) as inner, behind_tls(place.directory, inner, *files) as port:
        yield Broken(host=HOST, port=443, is_tls=True, environment=_https(port, "https"))


@_fault("a proxy in clear text that is written as one with TLS", "proxy_tls")
def _clear_proxy(place: Place) -> Iterator[Broken]:
    with peer(http("400 Bad Request")) as port:
        yield Broken(host=HOST, port=443, is_tls=True, environment=_https(port, "https"))


@_fault("a SOCKS proxy with no server behind it", "proxy_refuses")
def _socks(place: Place) -> Iterator[Broken]:
    with microsocks() as port:
        yield Broken(
            host=HOST, port=free_ports(1)[0], is_tls=True, environment={"ALL_PROXY": f"socks5h://127.0.0.1:{port}"}
        )


@_fault("a SOCKS proxy that wants a login", "proxy_refuses")
def _socks_login(place: Place) -> Iterator[Broken]:
    with microsocks("-u", "user", "-P", "other") as port:
        yield Broken(host=HOST, port=443, is_tls=True, environment=_https(port, "socks5h"))


@_fault("a SOCKS proxy that is written as one for HTTP", "proxy_closed")
def _socks_as_http(place: Place) -> Iterator[Broken]:
    with microsocks() as port:
        yield Broken(host=HOST, port=443, is_tls=True, environment=_https(port))


@_fault("through a proxy to a certificate for another name", "wrong_name")
def _through(place: Place) -> Iterator[Broken]:
    files = place.authority.issue("other.example", label="through")
    with tinyproxy(place.directory) as proxy, peer(http("200 OK"), tls=server_context(*files), host=ADDRESS) as port:
        yield Broken(host=HOST, port=port, is_tls=True, environment=place.ca | _https(proxy))


@_fault("through a proxy with TLS to a port in clear text", "clear_port")
def _through_to_clear(place: Place) -> Iterator[Broken]:
    with tinyproxy(place.directory) as proxy, peer(http("400 Bad Request"), host=ADDRESS) as port:
        yield Broken(host=HOST, port=port, is_tls=True, environment=_https(proxy))


# --- what answers instead -----------------------------------------------------------------------------------------------------

_plain("502 of a load balancer", "balancer_away", http("502 Bad Gateway"))
_plain("503 of a load balancer", "balancer_away", http("503 Service Unavailable"))
_plain("504 of a load balancer", "balancer_silent", http("504 Gateway Timeout"))
_plain("401 of a proxy on the way", "foreign_login", http("401 Unauthorized"))
_plain("403 of a firewall", "foreign_forbids", http("403 Forbidden"))
_plain("426 of a proxy on the way", "no_upgrade", http("426 Upgrade Required"))
_plain("505 of a proxy on the way", "no_upgrade", http("505 HTTP Version Not Supported"))
_plain("another site", "wrong_path", http("404 Not Found"))


@_fault("nginx without the server behind it", "balancer_away")
def _nginx_502(place: Place) -> Iterator[Broken]:
    (nowhere,) = free_ports(1)
    text = f"listen 127.0.0.1:{{port}}; location / {{{{ proxy_pass http://127.0.0.1:{nowhere}; }}}}"
    with nginx_with(text, place.directory) as port:
        yield Broken(port=port)

"""The line and the remedy of every cause of a failed dial. Values in braces are filled in by `causes`."""

from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, tuple[str, str]]] = {
    # --- names and the network ---
    "unknown_host": ("The name of the {what}, {host}, does not exist", "Check {setting} and the DNS of this machine."),
    "dns_silent": (
        "The DNS of this machine does not answer for {host}",
        "Check the name servers in /etc/resolv.conf and the way to them.",
    ),
    "refused": (
        "No program listens at {place}, the address of the {what}",
        "Check that the server is running, and that {setting} names the port of its {what}.",
    ),
    "timeout": (
        "{place}, the address of the {what}, does not answer",
        "A firewall that drops packets is the usual reason: allow outgoing TCP to {place}, or set HTTPS_PROXY if the only way "
        "out is a proxy.",
    ),
    "unreachable": (
        "The network has no route to {place}",
        "Check {setting}, and the routes and firewall of this machine.",
    ),
    "forbidden_here": (
        "This machine does not allow connections to {place}",
        "Allow it in the firewall, container or service unit of this machine.",
    ),
    "closed": (
        "{place} closes the connection at once",
        "Check for a load balancer or proxy without a server behind it, and that {setting} names the right port and scheme.",
    ),
    "silent": (
        "{place} accepts the connection and does not answer the request",
        "Check that {setting} names the port of the {what}, and the load balancer or proxy in front of it.",
    ),
    # --- proxies ---
    "proxy_unknown_host": ("The name of the proxy {proxy} does not resolve", "Correct {variable}, or the DNS."),
    "proxy_refused": ("No program listens at the proxy {proxy}", "Correct {variable}, or start the proxy."),
    "proxy_unreachable": ("The network has no route to the proxy {proxy}", "Correct {variable}, or the network."),
    "proxy_silent": (
        "The proxy {proxy} does not answer",
        "Check {variable}, the proxy, and its way to {place}; put {host} into NO_PROXY if there is a direct way.",
    ),
    "proxy_closed": (
        "The proxy {proxy} closes the connection without an answer",
        "Check that {variable} names a proxy of this kind, and the proxy's log.",
    ),
    "proxy_forbids": (
        "The proxy {proxy} forbids the connection to {place} (HTTP {status})",
        "Ask its operator to allow CONNECT to {place}; put {host} into NO_PROXY if there is a direct way.",
    ),
    "proxy_login": (
        "The proxy {proxy} wants a login, or refuses the one given (HTTP {status})",
        "Put the login into {variable}: http://USER:PASSWORD@HOST:PORT, with special characters percent-encoded.",
    ),
    "proxy_away": (
        "The proxy {proxy} cannot reach {place} (HTTP {status})",
        "Check {setting}, and whether the proxy's own network and DNS reach {place}.",
    ),
    "proxy_no_connect": (
        "The proxy {proxy} does not tunnel connections (HTTP {status})",
        "Ask its operator to allow the method CONNECT, or name another proxy in {variable}.",
    ),
    "proxy_status": (
        "The proxy {proxy} answers HTTP {status} instead of opening the connection to {place}",
        "Check the proxy's log, and that {variable} names a proxy.",
    ),
    "proxy_no_http": (
        "{proxy} does not answer as an HTTP proxy",
        "Check the scheme and port in {variable}: SOCKS proxies are written socks5h://HOST:PORT.",
    ),
    "proxy_refuses": (
        "The SOCKS proxy {proxy} does not open the connection to {place}",
        "Check its log, the login in {variable}, and whether it reaches {place}; an HTTP proxy is written http://HOST:PORT.",
    ),
    "proxy_tls": (
        "The TLS handshake with the proxy {proxy} fails",
        "Most proxies take clear text: write http:// in {variable}. One with TLS needs a certificate that this system trusts.",
    ),
    "proxy_library": (
        "The SOCKS proxy {proxy} needs a library that is not installed",
        "pip install 'lensway[socks]', or name an HTTP proxy in {variable}.",
    ),
    "proxy_setting": ("{variable} does not hold the address of a proxy", "Write it as http://HOST:PORT."),
    # --- TLS ---
    "untrusted": (
        "The certificate of {place} is signed by no CA {cas}",
        "{add_ca}. A proxy that opens TLS on the way shows such a certificate too: then it is that proxy's CA.",
    ),
    "wrong_name": (
        "The certificate of {place} is for another name than {host}",
        "Use in {setting} a name that the certificate holds, or issue one for {host}.",
    ),
    "expired": (
        "The certificate of {place} expired{since}; this machine's clock says {now}",
        "Renew the certificate on the server (or in its chain). If this machine's clock is wrong, set it.",
    ),
    "not_yet_valid": (
        "The certificate of {place} is not valid{from}; this machine's clock says {now}",
        "Set this machine's clock. If it is right, issue the certificate again.",
    ),
    "clock_off": (
        "This machine's clock says {now}, the clock of {place} {peer_date}: the certificate looks out of its time",
        "Set the clock of this machine; NTP keeps it right.",
    ),
    "certificate_revoked": ("The certificate of {place} is revoked", "Issue a new one on the server."),
    "certificate_purpose": (
        "The certificate of {place} is not meant for servers",
        "Issue one with the purpose `serverAuth`.",
    ),
    "certificate_weak": (
        "The certificate of {place}, or its CA, uses a key or digest that is too weak here",
        "Issue one with RSA of 2048 bits or an elliptic curve, and SHA-256.",
    ),
    "client_certificate": (
        "{place} wants a client certificate",
        "Lensway authenticates by token or key: let the proxy in front not ask for certificates there.",
    ),
    "clear_port": (
        "{place} speaks clear text, and {setting} says {scheme}",
        "Give the server a certificate (--tls-cert, --tls-key), name the port with TLS, or write {other} if the way is safe.",
    ),
    "tls_port": (
        "{place} speaks TLS, and {setting} says {scheme}",
        "Write {other} in {setting}.",
    ),
    "tls_silent": (
        "{place} does not answer the TLS handshake",
        "Check that the port speaks TLS; with a port in clear text, write {other} in {setting} if the way is safe.",
    ),
    "tls_version": (
        "{place} offers no version of TLS that this machine accepts",
        "Let the server, or the proxy in front of it, offer TLS 1.2 or 1.3.",
    ),
    "tls": ("The TLS handshake with {place} fails", "Check that the port speaks TLS, and the proxy in front of it."),
    # --- answers ---
    "balancer_away": (
        "The load balancer or proxy at {place} answers HTTP {status}: it cannot reach the {what} behind it",
        "Check that the server is running, and the address of its {what} in the configuration of the proxy.",
    ),
    "balancer_silent": (
        "The load balancer or proxy at {place} got no answer from the {what} behind it (HTTP {status})",
        "Check the server, and the time-outs of the proxy.",
    ),
    "no_upgrade": (
        "A proxy on the way to {place} does not pass on WebSocket upgrades (HTTP {status})",
        "Let it speak HTTP/1.1 to the {what} and pass on the headers Upgrade and Connection (nginx: proxy_http_version 1.1).",
    ),
    "foreign_login": (
        "A proxy or load balancer on the way to {place} wants a login of its own (HTTP {status})",
        "Let it pass requests to the {what} without one; this is not an answer of Lensway.",
    ),
    "foreign_forbids": (
        "A proxy or load balancer on the way to {place} forbids the request (HTTP {status})",
        "Check its rules (allowed networks, WAF); this is not an answer of Lensway.",
    ),
    "redirected": (
        "{place} redirects (HTTP {status})",
        "Write the address that it redirects to into {setting}. Redirects are not followed: the token belongs to one place.",
    ),
    "wrong_path": (
        "There is no Lensway {what} at the path of {setting} on {place}",
        "Check the path and the port; behind a proxy, check which path it passes on.",
    ),
    "other_port": (
        "{place} is a port of Lensway, and not the one of its {what}",
        "Name the {what} in {setting}: the server prints both addresses when it starts (API 8080, gateway 8081 by default).",
    ),
    "busy": ("The {what} at {place} is busy or starting (HTTP {status})", "Wait; the next try follows by itself."),
    "handshake": (
        "{place} does not answer as a Lensway {what}",
        "Check {setting}, and proxies on the way.",
    ),
    # --- the token ---
    "unauthenticated": (
        "The gateway at {place} does not know this token",
        "The token is invalid, or no longer valid: rotate it, and set LENSWAY_RUNNER_TOKEN anew.",
    ),
    "revoked": (
        "The gateway at {place} refuses this runner: the runner or its token is revoked",
        "Rotate the runner's token to use it again.",
    ),
    "token_file": ("The token cannot be read", "Check LENSWAY_RUNNER_TOKEN_FILE."),
}

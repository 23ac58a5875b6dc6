"""The settings of a PostgreSQL source: an allow-list, from a URL or from fields. Nothing else reaches the driver."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import ssl
import stat
import urllib.parse
from collections.abc import Mapping
from typing import Final, Protocol

from lensway import limits
from lensway.bridges.kit.failures import invalid_setting
from lensway.bridges.postgres.places import Place, places_of_authority, read_places
from lensway.query.suggestions import nearest

FIELDS: Final = (
    "host",
    "port",
    "database",
    "user",
    "password",
    "sslmode",
    "sslrootcert",
    "connect_timeout",
    "target_session_attrs",
    "statement_tags",
    "pooler",
    "pool_size",
)
_POOLERS: Final = ("auto", "session", "transaction")
_SSL_MODES: Final = ("disable", "prefer", "require", "verify-ca", "verify-full")
_SESSION_ATTRIBUTES: Final = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")
_URL_OPTIONS: Final = ("host", "port", "sslmode", "sslrootcert", "connect_timeout", "target_session_attrs")
_OTHER_OPTIONS: Final = frozenset(
    {"user", "password", "dbname", "options", "service", "passfile", "sslcert", "sslkey", "sslcrl"}
    | {"application_name", "channel_binding", "gssencmode", "client_encoding"}
)
_DIGITS_MAX: Final = 4
_CERTIFICATE_START: Final = "-----BEGIN CERTIFICATE-----"
_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""OpenSSL looks for nothing else in a directory of certificates."""


class _NamedContext(ssl.SSLContext):
    """Connections go to an address that was checked; the certificate is compared with the name that was configured."""

    host = ""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As the base class, with the configured name."""
        return super().wrap_bio(incoming, outgoing, server_side, self.host, session)


class Where(Protocol):
    """What says a place: an endpoint, or the place itself."""

    @property
    def host(self) -> str:
        """Its host."""

    @property
    def port(self) -> int:
        """Its port."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """Where and as whom to connect. ``host``, ``port`` and ``sslmode`` are those of the first of ``places``."""

    host: str
    port: int
    places: tuple[Place, ...]
    database: str
    user: str
    password: str = dataclasses.field(repr=False)
    sslmode: str
    sslrootcert: str | None = dataclasses.field(default=None, repr=False)
    has_statement_tags: bool = False
    """Every statement carries its request and attempt as a comment, pages too: the database's log tells who asked."""
    pooler: str = "auto"
    """What a pooler keeps on one server connection: a ``session``, or a ``transaction``; ``auto`` finds out at each login."""
    connect_timeout_seconds: float = limits.CONNECT_TIMEOUT_SECONDS
    target_session_attrs: str = "any"
    """Which server of several is wanted; ``prefer-standby`` is tried as ``standby``, then as ``any``."""

    def attributes_in_turn(self) -> tuple[str, ...]:
        """What to ask of the servers: of all of them the first, then of all of them the next."""
        return ("standby", "any") if self.target_session_attrs == "prefer-standby" else (self.target_session_attrs,)

    def at(self, where: Where, attributes: str = "any") -> PostgresSettings:
        """The settings for one of the places, and for a server with these attributes."""
        place = next(each for each in self.places if (each.host, each.port) == (where.host, where.port))
        return dataclasses.replace(
            self,
            host=place.host,
            port=place.port,
            sslmode=place.sslmode,
            places=(place,),
            target_session_attrs=attributes,
        )

    pool_size: int = limits.CONNECTIONS_PER_SOURCE_MAX
    """Connections for queries; exports have as many at most, within their own bound."""

    @property
    def export_pool_size(self) -> int:
        """Connections for exports."""
        return min(self.pool_size, limits.EXPORT_CONNECTIONS_PER_SOURCE_MAX)

    def tls(self) -> ssl.SSLContext | None:
        """How the connection is secured; None for ``disable``. Raises LenswayError for a root that holds no certificate."""
        if self.sslmode == "disable":
            return None
        context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.host = self.host
        if self.sslmode in ("verify-ca", "verify-full"):
            context.check_hostname = self.sslmode == "verify-full"
            if self.sslrootcert is None:
                context.load_default_certs()
            else:
                self._own_roots(context)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def roots(self) -> str | None:
        """The certificates that `tls` checks with, as text, for a driver that takes nothing else; None where nothing is checked.

        Raises:
            LenswayError: for a root that holds no certificate.
        """
        if self.sslmode not in ("verify-ca", "verify-full"):
            return None
        if self.sslrootcert is None:
            return _default_roots()
        return self._own_roots(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _own_roots(self, context: ssl.SSLContext) -> str:
        assert self.sslrootcert is not None
        try:
            is_inline = self.sslrootcert.lstrip().startswith(_CERTIFICATE_START)
            text = self.sslrootcert if is_inline else _certificates_of(self.sslrootcert)
            context.load_verify_locations(cadata=text)
        except (ssl.SSLError, OSError, ValueError):
            raise invalid_setting("sslrootcert", "holds no certificates") from None
        return text


def _default_roots() -> str:
    """What OpenSSL trusts by default on this machine: its bundle, and the hashed files of its directories."""
    paths = ssl.get_default_verify_paths()
    directories = os.environ.get(paths.openssl_capath_env, paths.openssl_capath).split(os.pathsep)
    files = [os.environ.get(paths.openssl_cafile_env, paths.openssl_cafile)]
    for directory in map(pathlib.Path, directories):
        with contextlib.suppress(OSError):
            files += sorted(str(each) for each in directory.iterdir() if _HASHED_NAME.fullmatch(each.name))
    texts: list[str] = []
    for file in files:
        # A file that cannot be read, or holds no certificate, is passed over, as OpenSSL does.
        with contextlib.suppress(ssl.SSLError, OSError, ValueError):
            text = _certificates_of(file)
            if any(text.strip() in known for known in texts):
                continue  # the directory often holds the bundle's certificates one by one
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
            texts.append(text)
    return "\n".join(texts)


def _certificates_of(path: str) -> str:
    """The text of a small regular file: a pipe or a device would hold up the process. Raises OSError, ValueError."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        data = file.read(limits.CERTIFICATES_BYTES_MAX + 1)
    if len(data) > limits.CERTIFICATES_BYTES_MAX:
        raise ValueError("too large")
    return data.decode("ascii", "ignore")  # bundles name authorities in comments, in any language


def read_settings(config: Mapping[str, object]) -> PostgresSettings:
    """The settings that this config holds. Raises LenswayError INVALID_REQUEST naming the key that is wrong."""
    fields = dict(config)
    url = fields.pop("url", None)
    values = {} if url is None else _of_url(url)
    for key, value in fields.items():
        if key not in FIELDS:
            near = nearest(str(key), ("url", *FIELDS))
            hint = f"Did you mean {near!r}?" if near else f"Known: url, {', '.join(FIELDS)}."
            raise invalid_setting(str(key)[:63], "unknown setting of a postgres source", hint=hint)
        values[key] = _text(key, value)
    user = values.get("user", "")
    if not user:
        raise invalid_setting("user", "is missing", hint="Use a login that may only SELECT.")
    sslmode = values.get("sslmode") or ""
    if sslmode and sslmode not in _SSL_MODES:
        raise invalid_setting("sslmode", f"must be one of {', '.join(_SSL_MODES)}")
    tags = values.get("statement_tags") or "off"
    if tags not in ("on", "off"):
        raise invalid_setting("statement_tags", "must be on or off")
    attributes = values.get("target_session_attrs") or "any"
    if attributes not in _SESSION_ATTRIBUTES:
        raise invalid_setting("target_session_attrs", f"must be one of {', '.join(_SESSION_ATTRIBUTES)}")
    places = read_places(values.get("host", ""), values.get("port", ""), sslmode)
    return PostgresSettings(
        host=places[0].host,
        port=places[0].port,
        places=places,
        connect_timeout_seconds=_connect_timeout(values.get("connect_timeout")),
        target_session_attrs=attributes,
        database=values.get("database") or user,
        user=user,
        password=values.get("password", ""),
        sslmode=places[0].sslmode,
        sslrootcert=values.get("sslrootcert"),
        has_statement_tags=tags == "on",
        pooler=_pooler(values.get("pooler")),
        pool_size=_pool_size(values.get("pool_size")),
    )


def _pool_size(text: str | None) -> int:
    most = limits.CONNECTIONS_PER_SOURCE_MAX
    if text is None:
        return most
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= most:
        raise invalid_setting("pool_size", f"must be a number from 1 to {most}")
    return int(text)


def _pooler(text: str | None) -> str:
    if (text or "auto") in _POOLERS:
        return text or "auto"
    hint = "Statement pooling does not support transactions, which Lensway needs." if text == "statement" else None
    raise invalid_setting("pooler", f"must be one of {', '.join(_POOLERS)}", hint=hint)


def _of_url(url: object) -> dict[str, str]:
    if not isinstance(url, str):
        raise invalid_setting("url", "must be text")
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        # The library's own text quotes parts of the URL, which may be parts of a password.
        raise invalid_setting(
            "url", "is not a URL; special characters in user and password must be %-encoded"
        ) from None
    if parts.scheme not in ("postgres", "postgresql"):
        raise invalid_setting("url", "must begin with postgresql://")
    values = _options_of(parts.query)
    host, port = places_of_authority(parts.netloc.rpartition("@")[2])
    for key, value in (("host", host), ("port", port)):
        if value and values.setdefault(key, value) != value:
            raise invalid_setting("url", f"gives {key!r} twice", hint="Give it after // or as an option, not both.")
    if parts.username is not None:
        values["user"] = urllib.parse.unquote(parts.username)
    if parts.password is not None:
        values["password"] = urllib.parse.unquote(parts.password)
    if database := urllib.parse.unquote(parts.path.lstrip("/")):
        values["database"] = database
    if parts.fragment:
        raise invalid_setting("url", "has a fragment; a # in user or password must be written %23")
    return values


def _options_of(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    options = urllib.parse.parse_qsl(query, keep_blank_values=True)
    for key, value in options:
        if key == "pgbouncer":
            hint = 'Remove the option. Lensway detects a pooler; to be explicit, set pooler = "transaction" beside the URL.'
            raise invalid_setting("url", "the option 'pgbouncer' is not allowed", hint=hint)
        if key not in _URL_OPTIONS:
            # What stands behind a question mark may be the rest of a password: only names that are known are repeated.
            named = f"the option {key!r}" if key in _OTHER_OPTIONS else "one of its options"
            hint = f"Allowed: {', '.join(_URL_OPTIONS)}. Special characters in user and password must be %-encoded."
            raise invalid_setting("url", f"{named} is not allowed", hint=hint)
        values[key] = value
    return values


def _text(key: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise invalid_setting(key, "must be text")
    if "\0" in str(value):
        raise invalid_setting(key, "must not contain NUL")
    return str(value)


def _connect_timeout(text: str | None) -> float:
    if not text:
        return limits.CONNECT_TIMEOUT_SECONDS
    most = limits.CONNECT_TIMEOUT_SECONDS_MAX
    if not text.isascii() or not text.isdecimal() or len(text) > _DIGITS_MAX or not 1 <= int(text) <= most:
        raise invalid_setting("connect_timeout", f"must be a whole number of seconds from 1 to {most}")
    return float(text)

"""The kinds of databases: one declaration each, and the only place where a kind is named.

A declaration imports no driver. A server needs only the declaration of a kind; a runner needs its bridge too. Packages add kinds
through the entry point group `lensway.bridges`; `compose` reads them into one `Kinds` value and passes it down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

ENTRY_POINTS: Final = "lensway.bridges"
"""Each entry point of this group in another package is a `Kind`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one kind of database is served.

    Attributes:
        name: The word that a source's `bridge` gives.
        adapter: ``package.module:Class`` of the bridge; None for a kind of the contract that this version does not serve.
        dialects: The dialects of SQL that its databases speak, by name, the default first.
        drivers: Import names of the modules that the bridge needs; the absence of one means "not installed".
        accelerators: Import names of modules that the bridge uses where they are installed.
        extra: The extra of the package `lensway` that installs the drivers; None when nothing is missing or another package
            brings the kind.
        system: The value of OpenTelemetry's `db.system.name`.
        is_path: The database is a file on the executing machine, named by the setting `path`.
        suffixes: Endings of the names of such files, by which settings that only have a `path` tell their kind.
        url_schemes: The schemes of URLs that name such a database.
        address_keys: Settings that a local URL on a runner replaces as a whole: address, login and transport security.
        scrubbed: Environment variables that the driver would read behind our back; a trailing ``*`` matches any ending.
        lacks: Capabilities of the dialect that the bridge cannot serve, by operator name.
    """

    name: str
    adapter: str | None = None
    dialects: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    extra: str | None = None
    system: str = ""
    is_path: bool = False
    suffixes: tuple[str, ...] = ()
    url_schemes: tuple[str, ...] = ()
    address_keys: frozenset[str] = frozenset({"url", "path"})
    scrubbed: tuple[str, ...] = ()
    lacks: frozenset[str] = frozenset()

    @property
    def is_served(self) -> bool:
        """False for a kind that the contract names and this version does not serve yet."""
        return self.adapter is not None


class Kinds:
    """An immutable set of declarations, in the order of the documentation."""

    __slots__ = ("_by_name",)

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._by_name: Mapping[str, Kind] = {kind.name: kind for kind in kinds}

    def __iter__(self) -> Iterator[Kind]:
        """Every declaration."""
        return iter(self._by_name.values())

    def __contains__(self, name: object) -> bool:
        """True for the name of a declared kind."""
        return name in self._by_name

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every kind."""
        return tuple(self._by_name)

    @property
    def served(self) -> tuple[Kind, ...]:
        """The kinds that have a bridge."""
        return tuple(kind for kind in self if kind.is_served)

    def get(self, name: str) -> Kind | None:
        """The declaration of this name, or None."""
        return self._by_name.get(name)

    def joined(self, others: Iterable[Kind]) -> Kinds:
        """These kinds and others, which can serve a name that has no bridge here but never replace one that has.

        Raises:
            ValueError: naming a kind that two packages declare.
        """
        joined = dict(self._by_name)
        for other in others:
            present = joined.get(other.name)
            if present is not None and present.is_served:
                raise ValueError(
                    f"the kind {other.name!r} is declared twice; uninstall one of the packages that declare it"
                )
            joined[other.name] = other
        return Kinds(joined.values())

    def of_settings(self, settings: Mapping[str, object]) -> Kind | None:
        """The served kind that these settings mean, by the scheme of their URL or by their `path`; None if unclear.

        A path whose ending tells nothing is of the first kind of files.
        """
        url = settings.get("url")
        if isinstance(url, str):
            scheme = url.partition(":")[0].lower()
            return next((kind for kind in self.served if scheme in kind.url_schemes), None)
        files = [kind for kind in self.served if kind.is_path]
        if "path" in settings:
            path = str(settings["path"]).lower()
            return next((kind for kind in files if path.endswith(kind.suffixes)), files[0] if files else None)
        servers = [kind for kind in self.served if not kind.is_path]
        return servers[0] if len(servers) == 1 else None

    def is_scrubbed(self, variable: str) -> bool:
        """True for an environment variable that some driver would read behind our back."""
        return any(
            variable.startswith(pattern[:-1]) if pattern.endswith("*") else variable == pattern
            for kind in self
            for pattern in kind.scrubbed
        )

    @property
    def address_keys(self) -> frozenset[str]:
        """The address settings of every kind."""
        return frozenset().union(*(kind.address_keys for kind in self))


DIALECTS: Final[Mapping[str, str]] = {
    "postgres": "lensway.dialects.postgres",
    "sqlite": "lensway.dialects.sqlite",
    "duckdb": "lensway.dialects.duckdb",
}
"""The module of each dialect of SQL. It holds `Dialect`, how the dialect is written, and `CAPABILITIES`, what it can do."""

BUILT_IN: Final = Kinds(
    (
        Kind(
            name="postgres",
            adapter="lensway.bridges.postgres.bridge:PostgresBridge",
            dialects=("postgres",),
            drivers=("asyncpg",),
            accelerators=("adbc_driver_manager", "adbc_driver_postgresql", "pyarrow"),
            extra="postgres",
            system="postgresql",
            url_schemes=("postgres", "postgresql"),
            address_keys=frozenset(
                {"url", "host", "port", "database", "user", "password", "sslmode", "sslrootcert"}
                | {"connect_timeout", "target_session_attrs"}
            ),
            scrubbed=("PG*", "SSLKEYLOGFILE"),
        ),
        Kind(name="mysql"),
        Kind(
            name="sqlite",
            adapter="lensway.bridges.sqlite.bridge:SqliteBridge",
            dialects=("sqlite",),
            drivers=("sqlite3",),
            system="sqlite",
            is_path=True,
            url_schemes=("sqlite",),
        ),
        Kind(
            name="duckdb",
            adapter="lensway.bridges.duckdb.bridge:DuckdbBridge",
            dialects=("duckdb",),
            drivers=("duckdb",),
            accelerators=("pyarrow",),
            extra="duckdb",
            system="duckdb",
            is_path=True,
            suffixes=(".duckdb", ".ddb"),
            url_schemes=("duckdb",),
        ),
        Kind(name="files"),
        Kind(name="sqlalchemy"),
        Kind(name="adbc"),
    )
)
"""The kinds of the contract."""

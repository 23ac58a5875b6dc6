"""The local policy: what this runner serves whatever the control plane says. A TOML file that only the network's owner edits.

    sources = ["orders-*"]          # names, with * as wildcard; absent: every assigned source
    hosts = ["*.internal", "10.0.0.0/8"]  # where sources may point: patterns for names, networks for addresses,
                                          # and directories of Unix sockets; absent: any
    tables = ["public.*"]           # tables that plans may read; absent: any
    rows_max = 100000               # per result
    source_dirs = ["/srv/data"]     # where file-backed sources may lie; absent: nowhere

Unknown keys are refused: a misspelt restriction must not become a permission.
"""

from __future__ import annotations

import fnmatch
import pathlib
from typing import Annotated

import msgspec

from lensway.bridges.contract import AddressPolicy
from lensway.bridges.kit.addresses import is_address_pattern
from lensway.errors import ErrorCode, LenswayError


class LocalPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy file's content; every part absent allows everything but file-backed sources."""

    sources: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    tables: tuple[str, ...] | None = None
    rows_max: Annotated[int, msgspec.Meta(ge=1)] | None = None
    source_dirs: tuple[str, ...] = ()

    def allows_source(self, name: str) -> bool:
        """True when the runner may serve a source of this name."""
        return self.sources is None or _matches(name, self.sources)

    def allows_table(self, table: str) -> bool:
        """True when plans may read this table, ``name`` or ``schema.name``."""
        return self.tables is None or _matches(table, self.tables)

    def address_policy(self) -> AddressPolicy:
        """Where sources may point. A runner stands in the network of its databases: private addresses are what it is for."""
        return AddressPolicy(
            deny_private=False,
            is_runner=True,
            source_dirs=self.source_dirs,
            allowed_hosts=self.hosts,
            allows_sockets=True,
        )


def read_policy(path: pathlib.Path | None) -> LocalPolicy:
    """The policy of this file; without one, everything is allowed but file-backed sources.

    Raises:
        LenswayError: INVALID_REQUEST naming the file and the offending part. A policy that cannot be read serves nothing.
    """
    if path is None:
        return LocalPolicy()
    try:
        policy = msgspec.toml.decode(path.read_bytes(), type=LocalPolicy)
    except OSError:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"the policy file {path} cannot be read") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"the policy file {path} is not valid: {error}",
            hint="Known keys: sources, hosts, tables, rows_max, source_dirs.",
        ) from None
    for host in policy.hosts or ():
        if is_address_pattern(host) and not host.startswith("/"):
            # As a pattern for names it would admit names that anybody can register.
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"the policy file {path} is not valid: hosts has {host!r}, which is not a network",
                hint="Write networks as CIDR, for example 10.0.0.0/8.",
            )
    return policy


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

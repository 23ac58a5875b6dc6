"""Who is asking, and what they may do: pure decisions on a snapshot.

Environments are separate worlds: an object of another one is `not_found`, exactly like one that never existed.
"""

from __future__ import annotations

import hmac
from typing import Final

import msgspec

from lensway.auth import tokens
from lensway.catalog.names import not_found
from lensway.catalog.records import Environment, Key, KeyKind, KeyLimits, Lens, QueryGrant, Role, Runner
from lensway.catalog.rules.keys import has_expired
from lensway.catalog.rules.runners import is_token_good
from lensway.catalog.snapshot import Snapshot
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import EnvironmentId, KeyId

DEFAULT_ENVIRONMENT: Final = "default"
_NOBODY: Final = bytes(32)


class Identity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An authenticated key. ``environment`` None: instance-wide."""

    key: KeyId
    kind: KeyKind
    role: Role | None
    environment: EnvironmentId | None
    name: str
    limits: KeyLimits
    origins: tuple[str, ...] = ()

    @property
    def actor(self) -> str:
        """Who it is, for the audit."""
        return f"{self.name} ({self.key})"

    @property
    def is_public(self) -> bool:
        """True for publishable keys, which learn nothing of runners."""
        return self.kind is KeyKind.PUBLISHABLE


def authenticate(snapshot: Snapshot, header: str | None, *, at: str) -> Identity:
    """The key of an ``Authorization`` header at this moment (in the catalog's form).

    Raises:
        LenswayError: UNAUTHENTICATED, the same for every wrong key; only the holder of an expired key learns that it expired.
    """
    scheme, _, text = (header or "").partition(" ")
    text = text.strip()
    if not header:
        raise _unauthenticated("No key was given", "Send `Authorization: Bearer KEY`.")
    if scheme.lower() != "bearer":
        raise _unauthenticated("The Authorization header is not a bearer key", "Send `Authorization: Bearer KEY`.")
    if text.startswith("rk_"):
        raise _unauthenticated("Runner tokens are valid only at the gateway", "Use an ak_, sk_ or pk_ key.")
    hashed = tokens.hash_token(text)
    key = snapshot.key_by_hash(hashed)
    # Compared with a hash that no key has: keys that exist and keys that do not take the same time.
    if not hmac.compare_digest(_NOBODY if key is None else key.hash, hashed) or key is None:
        raise _unauthenticated(
            "This key is not valid", "It may have been deleted; ask an administrator of this server."
        )
    if has_expired(key, at=at):
        raise _unauthenticated(
            f"This key expired at {key.expires_at}",
            "Ask an administrator for a new one: `lensway keys create`.",
            key=key.id,
        )
    return identity_of(key)


def identity_of(key: Key) -> Identity:
    """The identity that a key gives."""
    return Identity(
        key=key.id,
        kind=key.kind,
        role=key.role,
        environment=key.environment,
        name=key.name,
        limits=key.limits,
        origins=key.origins,
    )


def authenticate_runner(snapshot: Snapshot, token: str, at: str) -> Runner:
    """The runner of a token.

    Raises:
        LenswayError: UNAUTHENTICATED for a wrong or superseded token, FORBIDDEN for a revoked runner.
    """
    hashed = tokens.hash_token(token)
    runner = snapshot.runner_by_token(hashed)
    good = [] if runner is None else [each for each in runner.tokens if is_token_good(each, at=at)]
    matches = [hmac.compare_digest(each.hash, hashed) for each in good] or [hmac.compare_digest(_NOBODY, hashed)]
    if runner is None or not any(matches):
        raise _unauthenticated("This runner token is not valid", "Rotate it: `lensway runners rotate RUNNER`.")
    if runner.is_revoked:
        raise LenswayError(ErrorCode.FORBIDDEN, "This runner is revoked", hint="Rotate its token to reactivate it.")
    return runner


def choose_environment(snapshot: Snapshot, identity: Identity, wanted: str | None) -> Environment:
    """The environment of a request: the key's own; an instance-wide key chooses. Raises LenswayError NOT_FOUND."""
    if identity.environment is None:
        name = wanted or DEFAULT_ENVIRONMENT
        found = snapshot.environment(name)
        if found is None:
            raise not_found("environment", name)
        return found
    own = snapshot.environment(identity.environment)
    if own is None or (wanted is not None and wanted not in (own.name, own.id)):
        raise not_found("environment", wanted or "")
    return own


def require_read(identity: Identity) -> None:
    """Any admin key. Raises LenswayError FORBIDDEN."""
    if identity.kind is not KeyKind.ADMIN:
        raise _forbidden("only admin keys (ak_) may use the control plane")


def require_operate(identity: Identity) -> None:
    """An operator or admin. Raises LenswayError FORBIDDEN."""
    require_read(identity)
    if identity.role not in (Role.OPERATOR, Role.ADMIN):
        raise _forbidden("this needs the role operator or admin")


def require_admin(identity: Identity) -> None:
    """An admin. Raises LenswayError FORBIDDEN."""
    require_read(identity)
    if identity.role is not Role.ADMIN:
        raise _forbidden("this needs the role admin")


def require_instance_wide(identity: Identity) -> None:
    """An instance-wide admin. Raises LenswayError FORBIDDEN."""
    require_admin(identity)
    if identity.environment is not None:
        raise _forbidden("this needs an instance-wide admin key")


def may_query(identity: Identity, lens: Lens) -> bool:
    """Service keys and operators read every lens of their environment; publishable keys what is granted to the public."""
    if identity.kind is KeyKind.SERVICE:
        return True
    if identity.kind is KeyKind.ADMIN:
        return identity.role in (Role.OPERATOR, Role.ADMIN)
    return lens.query_grant is QueryGrant.PUBLIC


class LensAccess(msgspec.Struct, frozen=True, gc=False):
    """What a caller may see of one lens. ``shows_runners``: may it learn who executes its queries, and how."""

    lens: Lens
    shows_runners: bool


_GRANTED_ONLY: Final = (
    'A publishable key finds only lenses that are granted to the public: `grants.query = "public"` in the declaration of the '
    "lens. `GET /v1/lenses` lists them."
)
"""The same whether or not the lens exists, so that it gives nothing away."""


def access(snapshot: Snapshot, identity: Identity, environment: Environment, name: str) -> LensAccess:
    """What this key may do with the lens: the one place that decides on reads.

    Raises:
        LenswayError: NOT_FOUND; a publishable key gets the same for a lens without a grant, and suggestions of granted ones
            only. FORBIDDEN for a viewer.
    """
    lens = snapshot.lens(environment.id, name)
    if lens is not None and may_query(identity, lens):
        return LensAccess(lens, not identity.is_public)
    if identity.kind is KeyKind.ADMIN and lens is not None:
        raise _forbidden("viewers read the control plane, not rows")
    known = (each.name for each in snapshot.lenses(environment.id) if may_query(identity, each))
    raise not_found("lens", name, known, hint=_GRANTED_ONLY if identity.is_public else None)


def may_see_request(identity: Identity, environment: Environment, *, of: EnvironmentId, by: KeyId) -> bool:
    """The key that made a request may see what became of it, and so may every admin key of the environment."""
    return of == environment.id and (by == identity.key or identity.kind is KeyKind.ADMIN)


def require_cancel(identity: Identity, *, by: KeyId) -> None:
    """A key may cancel its own requests, an operator those of the environment.

    Raises:
        LenswayError: FORBIDDEN; also for a publishable key, which everyone who looks at the same page shares.
    """
    if identity.is_public:
        raise LenswayError(ErrorCode.FORBIDDEN, "A publishable key cannot cancel requests")
    if by != identity.key:
        require_operate(identity)


def may_operate(identity: Identity) -> bool:
    """True for an operator or admin."""
    return identity.kind is KeyKind.ADMIN and identity.role in (Role.OPERATOR, Role.ADMIN)


def may_administer(identity: Identity) -> bool:
    """True for an admin."""
    return identity.kind is KeyKind.ADMIN and identity.role is Role.ADMIN


def _unauthenticated(message: str, hint: str, **details: object) -> LenswayError:
    return LenswayError(ErrorCode.UNAUTHENTICATED, message, hint=hint, details=details)


def _forbidden(why: str) -> LenswayError:
    return LenswayError(ErrorCode.FORBIDDEN, f"This key may not do that: {why}")

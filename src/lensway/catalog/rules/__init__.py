"""The rules by which the catalog changes: pure decisions that give the changes, or raise `LenswayError` and change nothing.

Ids, times and hashes come as arguments. A decision that changes nothing gives no changes, so that nothing is bumped.
"""

from lensway.catalog.rules.environments import create_environment, delete_environment
from lensway.catalog.rules.keys import can_administer, create_key, delete_key, has_expired
from lensway.catalog.rules.lenses import delete_lens, put_lens
from lensway.catalog.rules.lookup import (
    require_environment,
    require_key,
    require_lens,
    require_runner,
    require_source,
)
from lensway.catalog.rules.runners import (
    assign,
    create_runner,
    delete_runner,
    drain_runner,
    patch_runner,
    resume_runner,
    revoke_runner,
    rotate_runner,
    unassign,
)
from lensway.catalog.rules.sources import create_source, delete_source, patch_source

__all__ = [
    "assign",
    "can_administer",
    "create_environment",
    "create_key",
    "create_runner",
    "create_source",
    "delete_environment",
    "delete_key",
    "delete_lens",
    "delete_runner",
    "delete_source",
    "drain_runner",
    "has_expired",
    "patch_runner",
    "patch_source",
    "put_lens",
    "require_environment",
    "require_key",
    "require_lens",
    "require_runner",
    "require_source",
    "resume_runner",
    "revoke_runner",
    "rotate_runner",
    "unassign",
]

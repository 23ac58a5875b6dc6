"""The one table of routes: the server's routing and the OpenAPI document are both made from it."""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from lensway.api import shapes
from lensway.api.negotiation import EXPORT_MEDIA, PAGE_MEDIA


class Access(enum.Enum):
    """Who may call a route. The decision itself is made in `auth`."""

    OPEN = "open"
    """No key."""
    DATA = "data"
    """Any key; the lens's grants decide."""
    READ = "read"
    """An admin key of any role."""
    OPERATE = "operate"
    """An admin key with role operator or admin."""
    ADMIN = "admin"
    """An admin key with role admin."""
    INSTANCE = "instance"
    """An instance-wide admin key with role admin."""


class Param(msgspec.Struct, frozen=True):
    """A query parameter."""

    name: str
    kind: type = str
    description: str = ""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one path. ``name`` is the operation id and the name of its handler."""

    method: str
    path: str
    name: str
    summary: str
    access: Access
    request: Any = None
    answer: Any = None
    status: int = 200
    params: tuple[Param, ...] = ()
    media: str = "application/json"
    streams: tuple[str, ...] = ()
    """Media types that `Accept` may choose besides."""
    is_body_optional: bool = False


_FORCE: Final = Param("force", bool, "delete the runner even if it has assignments")
_VERIFY: Final = Param("verify", bool, "test from that runner first; change nothing when it fails")
_LIMIT: Final = Param("limit", int, "maximum number of entries, newest first")

ROUTES: Final[tuple[Route, ...]] = (
    Route(method="GET", path="/healthz", name="healthz", summary="Liveness: the process runs.", access=Access.OPEN),
    Route(
        method="GET",
        path="/readyz",
        name="readyz",
        summary="Readiness: the process serves requests.",
        access=Access.OPEN,
    ),
    Route(method="GET", path="/openapi.json", name="openapi", summary="This document.", access=Access.OPEN),
    Route(
        method="GET",
        path="/metrics",
        name="metrics",
        summary="Prometheus metrics.",
        access=Access.READ,
        media="text/plain",
    ),
    # data plane
    Route(
        method="POST",
        path="/v1/query/{lens}",
        name="query",
        summary="One page of the rows of a lens.",
        access=Access.DATA,
        request=shapes.QueryRequest,
        answer=shapes.QueryAnswer,
        streams=PAGE_MEDIA[1:],
        is_body_optional=True,
    ),
    Route(
        method="POST",
        path="/v1/query/{lens}/export",
        name="export",
        summary="Stream every matching row; `Accept` selects the format.",
        access=Access.DATA,
        request=shapes.ExportRequest,
        media=EXPORT_MEDIA[0],
        streams=EXPORT_MEDIA[1:],
        is_body_optional=True,
    ),
    Route(
        method="POST",
        path="/v1/query/{lens}/explain",
        name="explain",
        summary="Show what would run and where, without running it.",
        access=Access.DATA,
        request=shapes.QueryRequest,
        answer=shapes.ExplainAnswer,
        is_body_optional=True,
    ),
    Route(
        method="POST",
        path="/v1/count/{lens}",
        name="count",
        summary="Count the matching rows.",
        access=Access.DATA,
        request=shapes.CountRequest,
        answer=shapes.CountAnswer,
        is_body_optional=True,
    ),
    Route(
        method="GET",
        path="/v1/lenses",
        name="list_lenses",
        summary="List the lenses that this key may query.",
        access=Access.DATA,
        answer=shapes.LensList,
    ),
    Route(
        method="GET",
        path="/v1/lenses/{lens}",
        name="show_lens",
        summary="Show one lens with its field types.",
        access=Access.DATA,
        answer=shapes.LensSummary,
    ),
    Route(
        method="GET",
        path="/v1/requests/{id}",
        name="show_request",
        summary="Show one request and its outcome.",
        access=Access.DATA,
    ),
    Route(
        method="POST",
        path="/v1/requests/{id}/cancel",
        name="cancel_request",
        summary="Cancel a running request and its statement; the caller gets `cancelled`.",
        access=Access.DATA,
    ),
    # control plane
    Route(
        method="POST",
        path="/v1/environments",
        name="create_environment",
        summary="Create an environment.",
        access=Access.INSTANCE,
        request=shapes.EnvironmentRequest,
        answer=shapes.EnvironmentAnswer,
        status=201,
    ),
    Route(
        method="GET",
        path="/v1/environments",
        name="list_environments",
        summary="List the environments that this key may see.",
        access=Access.READ,
        answer=shapes.EnvironmentList,
    ),
    Route(
        method="DELETE",
        path="/v1/environments/{environment}",
        name="delete_environment",
        summary="Delete an empty environment.",
        access=Access.INSTANCE,
        status=204,
    ),
    Route(
        method="POST",
        path="/v1/sources",
        name="create_source",
        summary="Create a source.",
        access=Access.ADMIN,
        request=shapes.SourceRequest,
        answer=shapes.SourceAnswer,
        status=201,
    ),
    Route(
        method="GET",
        path="/v1/sources",
        name="list_sources",
        summary="List the sources.",
        access=Access.READ,
        answer=shapes.SourceList,
    ),
    Route(
        method="GET",
        path="/v1/sources/{source}",
        name="show_source",
        summary="Show one source.",
        access=Access.READ,
        answer=shapes.SourceAnswer,
    ),
    Route(
        method="PATCH",
        path="/v1/sources/{source}",
        name="patch_source",
        summary="Change a source; absent keys keep their values.",
        access=Access.ADMIN,
        request=shapes.SourcePatch,
        answer=shapes.SourceAnswer,
    ),
    Route(
        method="DELETE",
        path="/v1/sources/{source}",
        name="delete_source",
        summary="Delete a source without lenses and assignments.",
        access=Access.ADMIN,
        status=204,
    ),
    Route(
        method="POST",
        path="/v1/sources/{source}/test",
        name="test_source",
        summary="Test the connection from every place that executes the source.",
        access=Access.OPERATE,
        answer=shapes.TestAnswer,
        params=(Param("runner", str, "test from this runner, assigned or not"),),
    ),
    Route(
        method="GET",
        path="/v1/sources/{source}/tables",
        name="list_tables",
        summary="List the tables that its login can read.",
        access=Access.READ,
    ),
    Route(
        method="GET",
        path="/v1/sources/{source}/tables/{table}",
        name="show_table",
        summary="List the columns of one table.",
        access=Access.READ,
    ),
    Route(
        method="POST",
        path="/v1/sources/{source}/scaffold",
        name="scaffold_source",
        summary="Generate declarations of lenses for the source's tables, without changing anything.",
        access=Access.OPERATE,
        request=shapes.ScaffoldRequest,
        answer=shapes.ScaffoldAnswer,
        is_body_optional=True,
    ),
    Route(
        method="POST",
        path="/v1/lenses/{lens}/check",
        name="check_lens",
        summary="List the differences between a lens and its table.",
        access=Access.READ,
        answer=shapes.LensDrift,
    ),
    Route(
        method="PUT",
        path="/v1/lenses/{lens}",
        name="put_lens",
        summary="Declare a lens. Does not contact the source.",
        access=Access.ADMIN,
        request=shapes.LensRequest,
    ),
    Route(
        method="DELETE",
        path="/v1/lenses/{lens}",
        name="delete_lens",
        summary="Delete a lens.",
        access=Access.ADMIN,
        status=204,
    ),
    Route(
        method="POST",
        path="/v1/runners",
        name="create_runner",
        summary="Register a runner; its token is shown once.",
        access=Access.ADMIN,
        request=shapes.RunnerRequest,
        answer=shapes.CreatedRunner,
        status=201,
    ),
    Route(
        method="GET",
        path="/v1/runners",
        name="list_runners",
        summary="List every runner with its state and its sources.",
        access=Access.READ,
        answer=shapes.RunnerList,
    ),
    Route(
        method="GET",
        path="/v1/runners/{runner}",
        name="show_runner",
        summary="Show one runner, by id or name.",
        access=Access.READ,
        answer=shapes.RunnerAnswer,
    ),
    Route(
        method="PATCH",
        path="/v1/runners/{runner}",
        name="patch_runner",
        summary="Change the network label.",
        access=Access.ADMIN,
        request=shapes.RunnerPatch,
        answer=shapes.RunnerAnswer,
    ),
    Route(
        method="DELETE",
        path="/v1/runners/{runner}",
        name="delete_runner",
        summary="Delete a runner.",
        access=Access.ADMIN,
        params=(_FORCE,),
    ),
    Route(
        method="POST",
        path="/v1/runners/{runner}/rotate",
        name="rotate_runner",
        summary="Create a new token, shown once; the old one stays valid for an overlap.",
        access=Access.ADMIN,
        answer=shapes.CreatedRunner,
    ),
    Route(
        method="POST",
        path="/v1/runners/{runner}/revoke",
        name="revoke_runner",
        summary="End its tokens and sessions; its assignments stay.",
        access=Access.ADMIN,
    ),
    Route(
        method="POST",
        path="/v1/runners/{runner}/drain",
        name="drain_runner",
        summary="Stop giving it new work; its assignments stay.",
        access=Access.OPERATE,
    ),
    Route(
        method="POST",
        path="/v1/runners/{runner}/resume",
        name="resume_runner",
        summary="End a drain.",
        access=Access.OPERATE,
    ),
    Route(
        method="GET",
        path="/v1/runners/{runner}/sources",
        name="list_runner_sources",
        summary="List the sources that are assigned to a runner.",
        access=Access.READ,
        answer=shapes.RunnerSources,
    ),
    Route(
        method="PUT",
        path="/v1/runners/{runner}/sources/{source}",
        name="assign",
        summary="Assign the source to the runner.",
        access=Access.OPERATE,
        answer=shapes.AssignmentAnswer,
        params=(_VERIFY,),
    ),
    Route(
        method="DELETE",
        path="/v1/runners/{runner}/sources/{source}",
        name="unassign",
        summary="Unassign the source from the runner.",
        access=Access.OPERATE,
        answer=shapes.AssignmentAnswer,
    ),
    Route(
        method="GET",
        path="/v1/assignments",
        name="list_assignments",
        summary="Show the whole set of assignments with its revision.",
        access=Access.READ,
        answer=shapes.AssignmentList,
    ),
    Route(
        method="POST",
        path="/v1/push",
        name="push",
        summary="Apply a declaration in one transaction; the answer lists the changes.",
        access=Access.ADMIN,
        request=dict[str, Any],
        answer=shapes.PushAnswer,
        params=(
            Param("dryRun", bool, "only report what would change"),
            Param("prune", bool, "remove what the document does not name"),
        ),
    ),
    Route(
        method="GET",
        path="/v1/config",
        name="config",
        summary="Export the environment as a declaration, without configs.",
        access=Access.READ,
    ),
    Route(
        method="POST",
        path="/v1/keys",
        name="create_key",
        summary="Create a key, shown once.",
        access=Access.ADMIN,
        request=shapes.KeyRequest,
        answer=shapes.KeyAnswer,
        status=201,
    ),
    Route(
        method="GET",
        path="/v1/keys",
        name="list_keys",
        summary="List the keys, without their secrets.",
        access=Access.READ,
        answer=shapes.KeyList,
    ),
    Route(
        method="DELETE",
        path="/v1/keys/{id}",
        name="delete_key",
        summary="Delete a key; it is invalid at once.",
        access=Access.ADMIN,
        status=204,
    ),
    Route(
        method="GET",
        path="/v1/sign-ins",
        name="list_sign_ins",
        summary="List the sign-ins to the Console.",
        access=Access.READ,
        answer=shapes.SignInList,
    ),
    Route(
        method="DELETE",
        path="/v1/sign-ins",
        name="end_sign_ins",
        summary="End every sign-in to the Console.",
        access=Access.ADMIN,
        answer=shapes.SignInsEnded,
    ),
    Route(
        method="DELETE",
        path="/v1/sign-ins/{id}",
        name="end_sign_in",
        summary="End one sign-in to the Console.",
        access=Access.ADMIN,
        status=204,
    ),
    Route(
        method="GET",
        path="/v1/requests",
        name="list_requests",
        summary="List recent requests with their attempts.",
        access=Access.READ,
        params=(_LIMIT,),
    ),
    Route(
        method="GET",
        path="/v1/events",
        name="events",
        summary="Stream server-sent events: session, assignment, health, drain, test, warning.",
        access=Access.READ,
        media="text/event-stream",
    ),
    Route(
        method="GET",
        path="/v1/audit",
        name="audit",
        summary="List who did what, newest first.",
        access=Access.READ,
        params=(_LIMIT, Param("before", int, "entries below this sequence number: `before` of the previous answer")),
    ),
    Route(
        method="GET",
        path="/v1/audit/verify",
        name="verify_audit",
        summary="Verify that the audit is unaltered.",
        access=Access.INSTANCE,
        answer=shapes.AuditVerdict,
        params=(Param("head", str, "SEQUENCE:CHAIN of a head that is stored elsewhere"),),
    ),
    Route(
        method="GET",
        path="/v1/audit/export",
        name="export_audit",
        summary="Export the audit of every environment with its chain, oldest first; the last line holds `$end`.",
        access=Access.INSTANCE,
        media="application/x-ndjson",
        params=(Param("after", int, "entries after this sequence number"),),
    ),
)


def route_named(name: str) -> Route:
    """The route of this operation id."""
    return next(route for route in ROUTES if route.name == name)

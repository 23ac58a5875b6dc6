"""Keys, decisions, sealing, cookies, and secrets that do not print themselves."""

from __future__ import annotations

import ast
import functools
import pathlib
import pickle

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensway.auth import decisions, sealing, tokens
from lensway.auth.limiter import FailureLimiter
from lensway.auth.secret import Secret
from lensway.catalog.records import (
    Credentials,
    Environment,
    ExecutionMode,
    Key,
    KeyKind,
    Lens,
    QueryGrant,
    Role,
    Runner,
    RunnerToken,
    Source,
)
from lensway.catalog.snapshot import Snapshot
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition

AT = "2026-01-01T00:00:00+00:00"
OWN, OTHER = (
    Environment(id="env_a", name="default", created_at=AT),
    Environment(id="env_b", name="other", created_at=AT),
)


def key(name: str, kind: KeyKind, environment: str | None, role: Role | None = None) -> tuple[str, Key]:
    text = tokens.mint(kind.value).reveal()
    return text, Key(
        id=f"key_{name}",
        environment=environment,
        kind=kind,
        name=name,
        hash=tokens.hash_token(text),
        role=role,
        created_at=AT,
    )


KEYS = {
    "master": key("master", KeyKind.ADMIN, None, Role.ADMIN),
    "admin": key("admin", KeyKind.ADMIN, "env_a", Role.ADMIN),
    "operator": key("operator", KeyKind.ADMIN, "env_a", Role.OPERATOR),
    "viewer": key("viewer", KeyKind.ADMIN, "env_a", Role.VIEWER),
    "service": key("service", KeyKind.SERVICE, "env_a"),
    "public": key("public", KeyKind.PUBLISHABLE, "env_a"),
}
FIELD = Field(name="id", type=FieldType.INTEGER, column="id")
LENSES = [
    Lens(
        environment="env_a",
        id=f"lens_{name}",
        name=name,
        source="src_1",
        definition=LensDefinition(name=name, table="t", fields={"id": FIELD}),
        query_grant=grant,
        created_at=AT,
    )
    for name, grant in (("granted", QueryGrant.PUBLIC), ("private", QueryGrant.NONE))
]
RUNNER_TOKENS = {name: tokens.mint("rk").reveal() for name in ("present", "overlapping", "expired")}
RUNNER = Runner(
    environment="env_a",
    id="run_1",
    name="alpha",
    tokens=tuple(
        RunnerToken(hash=tokens.hash_token(RUNNER_TOKENS[name]), created_at=AT, expires_at=expires)
        for name, expires in (
            ("present", None),
            ("overlapping", "2026-06-01T00:00:00+00:00"),
            ("expired", "2026-01-02T00:00:00+00:00"),
        )
    ),
    created_at=AT,
)
SOURCE = Source(
    environment="env_a",
    id="src_1",
    name="main",
    bridge="postgres",
    credentials=Credentials.RUNNER_LOCAL,
    execution=ExecutionMode.AUTO,
    config_version=0,
    created_at=AT,
)
SNAPSHOT = Snapshot.of([OWN, OTHER, SOURCE, *LENSES, RUNNER, *(record for _, record in KEYS.values())], revision=3)


def identity(name: str) -> decisions.Identity:
    return decisions.authenticate(SNAPSHOT, f"Bearer {KEYS[name][0]}", at=AT)


def code_of(function, *arguments) -> ErrorCode | None:
    try:
        function(*arguments)
    except LenswayError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("name", "read", "operate", "admin", "instance"),
    [
        ("master", True, True, True, True),
        ("admin", True, True, True, False),
        ("operator", True, True, False, False),
        ("viewer", True, False, False, False),
        ("service", False, False, False, False),
        ("public", False, False, False, False),
    ],
)
def test_what_each_key_opens(name: str, read: bool, operate: bool, admin: bool, instance: bool) -> None:
    checks = (
        decisions.require_read,
        decisions.require_operate,
        decisions.require_admin,
        decisions.require_instance_wide,
    )
    for check, allowed in zip(checks, (read, operate, admin, instance), strict=True):
        assert code_of(check, identity(name)) == (None if allowed else ErrorCode.FORBIDDEN), check.__name__


def test_wrong_keys_all_look_the_same() -> None:
    good = KEYS["service"][0]
    messages = set()
    for wrong in (good[:-1] + "!", "sk_" + "x" * 43, "nonsense", ""):
        with pytest.raises(LenswayError) as error:
            decisions.authenticate(SNAPSHOT, f"Bearer {wrong}", at=AT)
        assert error.value.code is ErrorCode.UNAUTHENTICATED
        assert good not in str(error.value)
        messages.add(str(error.value))
    assert len(messages) == 1
    for header in (None, "", "Basic abc", good, f"Bearer {RUNNER_TOKENS['present']}"):
        assert code_of(functools.partial(decisions.authenticate, at=AT), SNAPSHOT, header) is ErrorCode.UNAUTHENTICATED


def test_i10_environments_are_chosen_by_instance_wide_keys_only() -> None:
    assert decisions.choose_environment(SNAPSHOT, identity("master"), "other") is OTHER
    assert decisions.choose_environment(SNAPSHOT, identity("master"), None) is OWN
    assert decisions.choose_environment(SNAPSHOT, identity("admin"), "default") is OWN
    for name in ("other", "env_b", "no-such"):
        assert code_of(decisions.choose_environment, SNAPSHOT, identity("admin"), name) is ErrorCode.NOT_FOUND


def test_a_publishable_key_sees_granted_lenses_only() -> None:
    assert decisions.require_lens(SNAPSHOT, identity("public"), OWN, "granted").name == "granted"
    with pytest.raises(LenswayError) as hidden:
        decisions.require_lens(SNAPSHOT, identity("public"), OWN, "private")
    with pytest.raises(LenswayError) as absent:
        decisions.require_lens(SNAPSHOT, identity("public"), OWN, "privato")
    assert hidden.value.code is absent.value.code is ErrorCode.NOT_FOUND
    assert "private" not in str(absent.value.failure), "a suggestion would give it away"
    assert decisions.require_lens(SNAPSHOT, identity("service"), OWN, "private").name == "private"
    assert code_of(decisions.require_lens, SNAPSHOT, identity("viewer"), OWN, "private") is ErrorCode.FORBIDDEN


def test_runner_tokens_count_while_they_are_good() -> None:
    now = "2026-03-01T00:00:00+00:00"
    for name, good in (("present", True), ("overlapping", True), ("expired", False)):
        expected = None if good else ErrorCode.UNAUTHENTICATED
        assert code_of(decisions.authenticate_runner, SNAPSHOT, RUNNER_TOKENS[name], now) == expected
    revoked = Snapshot.of([OWN, msgspec.structs.replace(RUNNER, is_revoked=True)], revision=1)
    assert code_of(decisions.authenticate_runner, revoked, RUNNER_TOKENS["present"], now) is ErrorCode.FORBIDDEN


CLAIMS = {"environment": "env_a", "source": "src_1", "runner": "run_1", "version": 4}
KEYS_OF_INSTANCE = sealing.InstanceKeys.generate()
SEALED = sealing.seal(
    b'{"url": "x"}', KEYS_OF_INSTANCE.public_bytes, sealing.SealClaims(**CLAIMS, expires_at_wall_ms=1_000)
)


def test_sealed_settings_open_for_whom_they_are_meant() -> None:
    assert sealing.open_sealed(SEALED, KEYS_OF_INSTANCE, **CLAIMS, now_wall_ms=999) == b'{"url": "x"}'
    assert b"url" not in SEALED


@pytest.mark.parametrize(
    "change",
    [{"environment": "env_b"}, {"source": "src_2"}, {"runner": "run_2"}, {"version": 5}, {"now_wall_ms": 1_001}],
    ids=str,
)
def test_sealed_settings_are_refused_for_anything_else(change: dict) -> None:
    arguments = {**CLAIMS, "now_wall_ms": 999, **change}
    with pytest.raises(LenswayError):
        sealing.open_sealed(SEALED, KEYS_OF_INSTANCE, **arguments)
    with pytest.raises(LenswayError):
        sealing.open_sealed(SEALED, sealing.InstanceKeys.generate(), **CLAIMS, now_wall_ms=999)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_sealed_text_with_any_byte_changed_opens_nothing(index: int, change: int) -> None:
    altered = bytearray(SEALED)
    altered[index] ^= change
    try:
        opened = sealing.open_sealed(bytes(altered), KEYS_OF_INSTANCE, **CLAIMS, now_wall_ms=999)
    except LenswayError:
        return
    # The last character of a part has unused bits: a change there is no change.
    assert opened == b'{"url": "x"}'


def test_too_many_failures_are_asked_to_wait_and_forgiven_with_time() -> None:
    limiter = FailureLimiter(per_minute=3)
    for _ in range(3):
        limiter.failed("a", 0.0)
    for _ in range(100):
        with pytest.raises(LenswayError) as error:
            limiter.failed("a", 1.0)
        assert error.value.code is ErrorCode.RATE_LIMITED
        assert 0 < error.value.failure.retry_after_seconds <= 20
    limiter.failed("b", 1.0)
    limiter.failed("a", 30.0)


def test_secrets_do_not_print_themselves() -> None:
    secret = Secret("hidden-value")
    for text in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>40}",
        repr([secret]),
        repr({"x": secret}),
    ):
        assert "hidden-value" not in text
    for encode in (pickle.dumps, msgspec.json.encode):
        with pytest.raises(TypeError):
            encode(secret)
    assert secret.reveal() == "hidden-value"
    assert "hidden" not in repr(sealing.InstanceKeys.generate())


def test_keys_are_256_bits_and_admin_keys_are_taken_as_given() -> None:
    minted = {tokens.mint("sk").reveal() for _ in range(50)}
    assert len(minted) == 50
    assert all(len(text) == 46 for text in minted)
    assert tokens.check_admin_key("ak_" + "a" * 32).reveal() == "ak_" + "a" * 32
    for wrong in ("ak_short", "sk_" + "a" * 40, "ak_" + "a" * 31 + "!", ""):
        with pytest.raises(LenswayError, match="admin key"):
            tokens.check_admin_key(wrong)


def test_what_a_caller_sent_is_compared_in_constant_time() -> None:
    """`==` on hashes ends at the first byte that differs. Its duration cannot be tested reliably, so the source is read."""
    compared = [
        f"{file.name}:{node.lineno}"
        for file in pathlib.Path("src/lensway/auth").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
        for side in (node.left, *node.comparators)
        if "hash" in (getattr(side, "attr", "") or getattr(side, "id", ""))
    ]
    assert compared == []

"""Sign-ins to the Console: a random cookie, kept as its hash, ended by sign-out, idleness, age, or an administrator."""

from __future__ import annotations

import asyncio
import datetime
import secrets
from collections.abc import Hashable, Sequence
from typing import Any, Final

import structlog

from lensway import limits
from lensway.auth import decisions, tokens
from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.moments import moment_text
from lensway.catalog.names import counted, not_found
from lensway.catalog.ports import SignIn, SignInStore
from lensway.errors import LenswayError
from lensway.ids import new_sign_in_id
from lensway.usecases.desk import Desk

_log = structlog.get_logger("lensway.console")
_COOKIE_BYTES: Final = 32


class SignIns:
    """Opens, finds, lists and ends sign-ins. The key behind one is looked up again at every request."""

    def __init__(self, desk: Desk, store: SignInStore) -> None:
        self._desk = desk
        self._store = store
        self._writing: set[asyncio.Task[None]] = set()

    async def open(self, identity: decisions.Identity, address: str) -> str:
        """Sign in; the cookie's value. Raises LenswayError INTERNAL when the store cannot be written."""
        cookie, now = secrets.token_urlsafe(_COOKIE_BYTES), self._desk.clock.wall()
        known = list(self._store.sign_ins().values())
        of_key = sorted((each for each in known if each.key == identity.key), key=lambda each: each.used_at)
        surplus = of_key[: max(0, len(of_key) + 1 - limits.CONSOLE_SIGN_INS_PER_KEY_MAX)]
        over = [each for each in known if self._identity(each) is None]
        sign_in = SignIn(
            id=new_sign_in_id(),
            key=identity.key,
            environment=identity.environment,
            hash=tokens.hash_token(cookie),
            role="" if identity.role is None else identity.role.value,
            address=address,
            created_at=moment_text(now),
            used_at=moment_text(now),
            expires_at=moment_text(now + datetime.timedelta(seconds=limits.CONSOLE_SIGN_IN_SECONDS)),
        )
        await self._store.write_sign_ins(put=(sign_in,), ended=(*surplus, *over))
        return cookie

    def find(self, cookie: str) -> tuple[SignIn, decisions.Identity] | None:
        """The sign-in of this cookie and its key as it is now; None for one that is forged or over."""
        sign_in = self._store.sign_ins().get(tokens.hash_token(cookie)) if cookie else None
        identity = None if sign_in is None else self._identity(sign_in)
        return None if sign_in is None or identity is None else (sign_in, identity)

    def used(self, sign_in: SignIn) -> None:
        """Note that a person used it; written at most once a minute."""
        now = self._desk.clock.wall()
        if sign_in.used_at < moment_text(now - datetime.timedelta(seconds=limits.KEY_USE_SECONDS)):
            task = asyncio.get_running_loop().create_task(self._note(sign_in, moment_text(now)), name="note a sign-in")
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def close(self, sign_in: SignIn) -> None:
        """Sign out: the cookie opens nothing any more. Raises LenswayError INTERNAL."""
        await self._store.write_sign_ins(ended=(sign_in,))

    def mark(self) -> Hashable:
        """A value that differs as soon as a sign-in began or ended."""
        return hash(frozenset(self._store.sign_ins()))

    def list(self, caller: Caller) -> dict[str, Any]:
        """The sign-ins that are not over, the newest first."""
        found = [each for each in self._visible(caller) if self._identity(each) is not None]
        found.sort(key=lambda each: each.created_at, reverse=True)
        return {"signIns": [self._answer(each) for each in found]}

    async def end(self, caller: Caller, id: str) -> None:
        """End one. Raises LenswayError NOT_FOUND."""
        found = [each for each in self._visible(caller) if each.id == id]
        if not found:
            raise not_found("sign-in", id)
        await self._store.write_sign_ins(ended=found)
        self._desk.note(caller, "sign-in.end", id)

    async def end_all(self, caller: Caller) -> dict[str, Any]:
        """End every one that the caller sees; how many."""
        found = self._visible(caller)
        await self._store.write_sign_ins(ended=found)
        self._desk.note(caller, "sign-in.end-all", counted(len(found), "sign-in"))
        return {"ended": len(found)}

    def _visible(self, caller: Caller) -> Sequence[SignIn]:
        wide = caller.identity.environment is None
        shown = (caller.environment.id, None) if wide else (caller.environment.id,)
        return [each for each in self._store.sign_ins().values() if each.environment in shown]

    def _identity(self, sign_in: SignIn) -> decisions.Identity | None:
        now = self._desk.clock.wall()
        idle_since = moment_text(now - datetime.timedelta(seconds=limits.CONSOLE_IDLE_SECONDS))
        key = self._desk.snapshot().key(sign_in.key)
        is_over = sign_in.expires_at <= moment_text(now) or sign_in.used_at <= idle_since
        if key is None or is_over or rules.has_expired(key, at=moment_text(now)):
            return None
        identity = decisions.identity_of(key)
        return identity if identity.role is not None and identity.role.value == sign_in.role else None

    async def _note(self, sign_in: SignIn, at: str) -> None:
        try:
            await self._store.note_sign_in(sign_in, at)
        except LenswayError as error:
            _log.warning("the use of a sign-in was not written", code=error.code.value)

    def _answer(self, sign_in: SignIn) -> dict[str, Any]:
        key = self._desk.snapshot().key(sign_in.key)
        return {
            "id": sign_in.id,
            "key": sign_in.key,
            "keyName": "" if key is None else key.name,
            "role": sign_in.role,
            "address": sign_in.address,
            "createdAt": sign_in.created_at,
            "lastUsedAt": sign_in.used_at,
            "expiresAt": sign_in.expires_at,
        }

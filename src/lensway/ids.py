"""Typed, prefixed ids. An id says what it names; it is public and never a secret."""

from __future__ import annotations

import os
from typing import Final, NewType

EnvironmentId = NewType("EnvironmentId", str)
SourceId = NewType("SourceId", str)
LensId = NewType("LensId", str)
RunnerId = NewType("RunnerId", str)
KeyId = NewType("KeyId", str)
RequestId = NewType("RequestId", str)
SignInId = NewType("SignInId", str)
"""One sign-in to the Console."""
InstanceId = NewType("InstanceId", str)
"""One running process of a runner; made by the process itself at its start."""
SessionId = NewType("SessionId", int)
"""One live connection. Grows by one with every session a node opens, and so is its epoch too."""
JobId = NewType("JobId", int)
"""One request's execution on one node; grows by one."""

# Crockford's base 32 in lower case: no vowels that make words by accident, no look-alikes.
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_CHARACTERS: Final = 20
"""20 characters of 5 bits are 100 bits: no collision in any deployment, and not guessable either."""


_CHARACTER_OF_BYTE: Final = (_ALPHABET * 8).encode()
"""Each character stands for 8 of the 256 bytes: none is likelier than another, and one system call makes an id."""


def _new(prefix: str) -> str:
    return f"{prefix}_{_characters(_RANDOM_CHARACTERS)}"


def _characters(count: int) -> str:
    return os.urandom(count).translate(_CHARACTER_OF_BYTE).decode()


def new_environment_id() -> EnvironmentId:
    """A fresh ``env_…`` id."""
    return EnvironmentId(_new("env"))


def new_source_id() -> SourceId:
    """A fresh ``src_…`` id."""
    return SourceId(_new("src"))


def new_lens_id() -> LensId:
    """A fresh ``lens_…`` id."""
    return LensId(_new("lens"))


def new_runner_id() -> RunnerId:
    """A fresh ``run_…`` id."""
    return RunnerId(_new("run"))


def new_key_id() -> KeyId:
    """A fresh ``key_…`` id."""
    return KeyId(_new("key"))


def new_request_id() -> RequestId:
    """A fresh ``req_…`` id. Every request needs one, so the system is asked for the randomness of many at once."""
    try:
        return _request_ids.pop()
    except IndexError:
        characters = _characters(_RANDOM_CHARACTERS * _REQUEST_IDS)
        starts = range(0, len(characters), _RANDOM_CHARACTERS)
        first, *others = [RequestId(f"req_{characters[at : at + _RANDOM_CHARACTERS]}") for at in starts]
        _request_ids.extend(others)
        return first


def new_sign_in_id() -> SignInId:
    """A fresh ``sin_…`` id."""
    return SignInId(_new("sin"))


def new_instance_id() -> InstanceId:
    """A fresh ``ins_…`` id."""
    return InstanceId(_new("ins"))


_REQUEST_IDS: Final = 64
_request_ids: Final[list[RequestId]] = []
"""Made and not given out. A process that is forked off makes its own."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_request_ids.clear)
